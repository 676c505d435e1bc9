"""The turns of the synthetic corpus before any sound: who says what, when and how, and what the raters say.

The class counts, VAD statistics and durations follow the aggregate facts of `iemocap_shape.json`. No word or label of
the real corpus is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sejax.corpora.readers.iemocap import RATER_WORDS, iemocap_shape
from sejax.corpora.synthetic.voice import SPEAKING_SHARE, SYLLABLES_PER_SECOND

RATER_SD = 0.3  # standard deviation of one rater's valence, arousal or dominance before rounding to the integer grid
TWO_RATERS_SHARE = 0.6  # share of turns with two raters of VAD (multiples of 1/2); the others have three (of 1/3)
# Turns outside the usual label schemes, as a share of a speaker's other turns.
FRUSTRATED_SHARE = 0.05
UNDECIDED_SHARE = 0.05
HAPPINESS_SHARE = 595 / 1636  # share of the happy turns with the label happiness; the others have excitement
LINES_PER_LENGTH = 3  # lines of a script with the same number of syllables

VOWEL_LETTERS = "aeiou"  # in the order of the rows of voice.VOWELS

_WORD_OF_CODE = {code: word.capitalize() for word, code in RATER_WORDS.items()}
_CONSONANTS = "bdfgklmnprst"


@dataclass(frozen=True)
class SyntheticTurn:
    """A turn before any sound.

    Args:
      id: in IEMOCAP's form, such as `Ses05M_script01_1b_F003`.
      start, end: seconds within the recording.
      code: the majority label of the raters, one of IEMOCAP's.
      vad: the mean of the raters' valence, arousal and dominance.
      raters: the raters' lines of the EmoEvaluation file.
      transcript: the words.
      expressed: the valence, arousal and dominance that the actor expresses.
      mixture: the classes that the actor expresses.
    """

    id: str
    start: float
    end: float
    code: str
    vad: tuple[float, float, float]
    raters: tuple[str, ...]
    transcript: str
    expressed: tuple[float, float, float]
    mixture: tuple[str, ...]

    @property
    def recording(self) -> str:
        return self.id.rpartition("_")[0]

    @property
    def session(self) -> int:
        return int(self.id[3:5])


@dataclass(frozen=True)
class _Draft:
    """A turn without a recording, a time and words."""

    gender: str
    scripted: bool
    code: str
    seconds: float
    vad: Float[np.ndarray, " 3"]
    expressed: Float[np.ndarray, " 3"]
    mixture: tuple[str, ...]
    raters: tuple[str, ...]


def plan_turns(fraction: float, seed: int) -> tuple[SyntheticTurn, ...]:
    """Returns every turn of the corpus, sorted by session, recording and time.

    Args:
      fraction: share of IEMOCAP's 5,531 utterances, above 0 and up to 1. Every speaker has at least one turn of
        every class.
      seed: of all random numbers.
    """
    shape = iemocap_shape()
    scripts = {number: _script(np.random.default_rng([seed, 1000 + number])) for number in (1, 2, 3)}
    turns: list[SyntheticTurn] = []
    for session in range(1, 6):
        rng = np.random.default_rng([seed, session])
        drafts: dict[str, list[_Draft]] = {}
        improvised, scripted = recordings(session)
        for gender in "FM":
            for draft in _drafts(rng, shape, f"Ses{session:02d}{gender}", fraction):
                names = scripted if draft.scripted else improvised
                drafts.setdefault(names[rng.integers(len(names))], []).append(draft)
        for recording in sorted(drafts):
            turns += _place(rng, recording, drafts[recording], scripts)
    return tuple(turns)


def recordings(session: int) -> tuple[list[str], list[str]]:
    """Returns the improvised and the scripted recordings of a session. All five sessions have 151."""
    improvised, scripted = [], []
    for actor in "FM":
        for number in range(1, 8 if session == 1 else 9):
            split = (session, actor) == (3, "M") and number in (5, 8)
            improvised += [f"Ses{session:02d}{actor}_impro{number:02d}{part}" for part in ("ab" if split else [""])]
        parts = ["01_1", "01_2", "01_3", "02_1", "02_2", "03_1", "03_2"]
        if (session, actor) == (5, "M"):
            parts.append("01_1b")
        scripted += [f"Ses{session:02d}{actor}_script{part}" for part in parts]
    return improvised, scripted


def _drafts(rng: np.random.Generator, shape: dict[str, Any], speaker: str, fraction: float) -> list[_Draft]:
    """Returns the turns of one speaker in arbitrary order."""
    facts = shape["speakers"][speaker]
    total = sum(facts["counts"].values())
    # A class, or a code of the release, and the classes that the emotion is a mixture of.
    usual: list[tuple[str, tuple[str, ...]]] = [
        (name, (name,)) for name in shape["classes"] for _ in range(max(1, round(facts["counts"][name] * fraction)))
    ]
    frustrated = int(FRUSTRATED_SHARE * total * fraction + rng.random())
    undecided = int(UNDECIDED_SHARE * total * fraction + rng.random())
    unusual: list[tuple[str, tuple[str, ...]]] = [("fru", ("angry", "neutral"))] * frustrated
    for _ in range(undecided):
        first, second = rng.permutation(len(shape["classes"]))[:2]
        unusual.append(("xxx", (shape["classes"][first], shape["classes"][second])))
    share = facts["scripted"] / total
    scripted = [
        *(rng.permutation(len(usual)) < round(share * len(usual))),
        *(rng.random(len(unusual)) < share),
    ]
    return [
        _draft(rng, shape, speaker[-1], kind, mixture, bool(is_scripted))
        for (kind, mixture), is_scripted in zip(usual + unusual, scripted, strict=True)
    ]


def _draft(
    rng: np.random.Generator,
    shape: dict[str, Any],
    gender: str,
    kind: str,
    mixture: tuple[str, ...],
    scripted: bool,
) -> _Draft:
    classes = shape["by_class"]
    mean = np.mean([classes[name]["vad_mean"] for name in mixture], axis=0)
    covariance = np.mean([classes[name]["vad_cov"] for name in mixture], axis=0)
    # The published covariance is that of the raters' mean: subtract their own scatter to get the actor's.
    scatter = (RATER_SD**2 + 1 / 12) * (TWO_RATERS_SHARE / 2 + (1 - TWO_RATERS_SHARE) / 3)
    expressed = mean + np.linalg.cholesky(covariance - scatter * np.eye(3)) @ rng.standard_normal(3)
    n_raters = 2 if rng.random() < TWO_RATERS_SHARE else 3
    ratings = np.clip(np.rint(expressed + RATER_SD * rng.standard_normal((n_raters, 3))), 1, 5)

    code = {"angry": "ang", "sad": "sad", "neutral": "neu"}.get(kind, kind)
    if kind == "happy":
        code = "hap" if rng.random() < HAPPINESS_SHARE else "exc"
    quantiles = classes[mixture[0]]["duration_seconds_quantiles"]
    seconds = np.interp(100 * rng.random(), shape["duration_quantiles_percent"], quantiles)
    return _Draft(
        gender=gender,
        scripted=scripted,
        code=code,
        seconds=float(seconds),
        vad=ratings.mean(axis=0),
        expressed=expressed,
        mixture=mixture,
        raters=(*_category_lines(rng, shape, gender, code, expressed), *_vad_lines(rng, gender, ratings)),
    )


def _category_lines(
    rng: np.random.Generator,
    shape: dict[str, Any],
    gender: str,
    code: str,
    expressed: Float[np.ndarray, " 3"],
) -> Iterator[str]:
    """Yields the lines of three external raters, whose majority is `code`, and of the actor."""
    # A rater may name another label: one that is likely for this VAD.
    codes = ("ang", "exc", "sad", "neu")
    means = np.array([shape["by_class"][name]["vad_mean"] for name in shape["classes"]])
    covariances = np.array([shape["by_class"][name]["vad_cov"] for name in shape["classes"]])
    deviation = expressed - means
    distance = np.sum(deviation * np.linalg.solve(covariances, deviation[..., None])[..., 0], axis=1)
    density = np.exp(-0.5 * distance) / np.sqrt(np.linalg.det(covariances))
    likely = codes[int(rng.choice(len(codes), p=density / density.sum()))]
    if code == "xxx":
        votes = [likely, "fru" if rng.random() < 0.7 else "oth", "sur"]
    else:
        votes = [code, code, likely if rng.random() < 0.5 else code]
    order = rng.permutation(3)
    for rater, index in zip(("E2", "E3", "E4"), order, strict=True):
        yield f"C-{rater}:\t{_WORD_OF_CODE[votes[index]]};\t()"
    both = f"{_WORD_OF_CODE[votes[0]]}; {_WORD_OF_CODE['fru']};" if rng.random() < 0.1 else None
    yield f"C-{gender}1:\t{both or _WORD_OF_CODE[votes[0]] + ';'}\t()"


def _vad_lines(rng: np.random.Generator, gender: str, ratings: Float[np.ndarray, "rater 3"]) -> Iterator[str]:
    """Yields the lines of the external raters, with their integer ratings, and of the actor."""
    by_actor = np.clip(np.rint(ratings.mean(axis=0) + 0.5 * rng.standard_normal(3)), 1, 5)
    names = [f"E{number}" for number in range(3, 3 + len(ratings))]
    for rater, (valence, arousal, dominance) in zip([*names, f"{gender}1"], [*ratings, by_actor], strict=True):
        yield f"A-{rater}:\tval {valence:.0f}; act {arousal:.0f}; dom  {dominance:.0f};\t()"


def _script(rng: np.random.Generator) -> dict[int, list[str]]:
    """Returns the lines of a script by their number of syllables."""
    lengths = {round(length) for length in np.geomspace(1, 150, 45)}
    return {length: [_words(rng, length) for _ in range(LINES_PER_LENGTH)] for length in sorted(lengths)}


def _words(rng: np.random.Generator, n_syllables: int) -> str:
    """Returns invented words. A syllable is a consonant and a vowel, and only the vowel is synthesised."""
    syllables = [
        _CONSONANTS[rng.integers(len(_CONSONANTS))] + VOWEL_LETTERS[rng.integers(len(VOWEL_LETTERS))]
        for _ in range(n_syllables)
    ]
    words = [syllables[0]]
    for syllable in syllables[1:]:
        if rng.random() < 0.5 or len(words[-1]) >= 6:
            words.append(syllable)
        else:
            words[-1] += syllable
    return " ".join(words).capitalize() + "."


def _place(
    rng: np.random.Generator,
    recording: str,
    drafts: Sequence[_Draft],
    scripts: dict[int, dict[int, list[str]]],
) -> Iterator[SyntheticTurn]:
    """Yields the turns of one recording in random order, with their times and words."""
    time = 1 + 4 * rng.random()
    spoken = {"F": 0, "M": 0}
    for index in rng.permutation(len(drafts)):
        draft = drafts[index]
        start = round(time, 4)
        end = round(start + draft.seconds, 4)
        time = end + 0.1 + 1.5 * rng.random()
        n_syllables = max(1, round(draft.seconds * SPEAKING_SHARE * SYLLABLES_PER_SECOND))
        if draft.scripted:
            script = scripts[int(recording.partition("_script")[2][:2])]
            lines = script[min(script, key=lambda length: abs(length - n_syllables))]
            transcript = lines[rng.integers(len(lines))]
        else:
            transcript = _words(rng, n_syllables)
        valence, arousal, dominance = (float(value) for value in draft.vad)
        expressed = tuple(float(value) for value in draft.expressed)
        yield SyntheticTurn(
            id=f"{recording}_{draft.gender}{spoken[draft.gender]:03d}",
            start=start,
            end=end,
            code=draft.code,
            vad=(valence, arousal, dominance),
            raters=draft.raters,
            transcript=transcript,
            expressed=(expressed[0], expressed[1], expressed[2]),
            mixture=draft.mixture,
        )
        spoken[draft.gender] += 1
