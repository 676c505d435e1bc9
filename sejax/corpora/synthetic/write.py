"""The synthetic corpus: invented speech with IEMOCAP's class counts, VAD statistics, durations and layout.

It is written to disk as an IEMOCAP release tree and read by IEMOCAP's reader, so that everything behind the
reader meets what it would meet there. No word, voice or label of the real corpus is in it: only the aggregate
facts of `iemocap_shape.json`.
"""

import json
import os
import shutil
import tempfile
import wave
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from sejax.corpora.iemocap import RATER_WORDS, iemocap_shape, read_iemocap
from sejax.corpora.schema import SAMPLING_RATE, Corpus
from sejax.corpora.synthetic import voice
from sejax.errors import InputError
from sejax.host.processes import map_in_processes
from sejax.host.progress import progress_bar

# Everything that changes what is written: raise it with any change to this file or to voice.py that does.
SYNTHETIC_VERSION = 1
MARKER = "synthetic_corpus.json"

RATER_SD = 0.3  # of one rater's valence, arousal or dominance, before it is rounded to the integer grid
TWO_RATERS_SHARE = 0.6  # of the turns have two raters of VAD (multiples of 1/2), the others three (of 1/3)
# Turns that the usual label schemes leave out, as a share of a speaker's other turns.
FRUSTRATED_SHARE = 0.05
UNDECIDED_SHARE = 0.05
HAPPINESS_SHARE = 595 / 1636  # of the happy turns; the others are labelled as excitement
LINES_PER_LENGTH = 3  # of a script
ROOM_LEVEL = -69.0  # dB full scale

_WORD_OF_CODE = {code: word.capitalize() for word, code in RATER_WORDS.items()}
_CONSONANTS = "bdfgklmnprst"
_VOWELS = "aeiou"  # the rows of voice.VOWELS
_UTTERANCES_PER_PROCESS = 200  # with fewer, starting one more process takes longer than it saves


@dataclass(frozen=True)
class SyntheticTurn:
    """A turn before any sound.

    `expressed` is the VAD that the actor feels, `mixture` the classes; `vad` and `code` are what the raters
    heard.
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
    """What a speaker will say and how, before it has a place in a recording."""

    gender: str
    scripted: bool
    code: str
    seconds: float
    vad: Float[np.ndarray, " 3"]
    expressed: Float[np.ndarray, " 3"]
    mixture: tuple[str, ...]
    raters: tuple[str, ...]


def write_synthetic(folder: str, *, fraction: float, seed: int, workers: int | None = None) -> None:
    """Writes the corpus to `folder`, in the layout of IEMOCAP's release, unless it is there already.

    `fraction` of the 5,531 utterances of IEMOCAP's usual set are made, with at least one per speaker and
    class, and about a tenth as many again that the usual label schemes leave out. What is written depends on
    `fraction` and `seed` alone. It appears under its name only when it is complete; a killed process leaves a
    folder `<folder>.partial-*` behind, which is never read and may be deleted.

    `workers` processes speak (all CPUs by default); like all programs that start processes, a script that
    calls this needs `if __name__ == "__main__":`.

    Raises:
      InputError: the folder exists and holds something else or a corpus of other settings, or a setting is
        out of range, or the place cannot be written to.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction={fraction}: the synthetic corpus needs a fraction above 0 and up to 1")
    if seed < 0:
        raise InputError(f"seed={seed}: the synthetic corpus needs a seed of 0 or more")
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}: at least one process is needed")
    folder = os.path.abspath(folder)
    settings = {"synthetic": SYNTHETIC_VERSION, "fraction": float(fraction), "seed": int(seed)}
    if _is_complete(folder, settings):
        return
    parent, name = os.path.split(folder)
    try:
        os.makedirs(parent, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=f"{name}.partial-", dir=parent)
    except OSError as error:
        raise InputError(f"no folder can be made in {parent} ({error.strerror})") from error
    try:
        os.chmod(partial, 0o755)  # mkdtemp makes it private
        _write_tree(os.path.join(partial, "IEMOCAP_full_release"), fraction, seed, workers)
        with open(os.path.join(partial, MARKER), "w", encoding="utf-8") as file:
            json.dump(settings, file)
        try:
            os.replace(partial, folder)
        except OSError:
            # Another process may have finished first; anything else is raised by the check or here.
            if not _is_complete(folder, settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_synthetic(data_dir: str, labels: str = "default") -> Corpus:
    """Reads what `write_synthetic` has written, with IEMOCAP's reader and label schemes.

    Raises:
      InputError: there is no complete synthetic corpus in `data_dir`, or what `read_iemocap` raises.
    """
    if not is_synthetic(data_dir):
        raise InputError(f"no synthetic corpus in {data_dir!r}: {MARKER} is missing (write_synthetic makes one)")
    return read_iemocap(data_dir, labels, name="synthetic")


def is_synthetic(data_dir: str) -> bool:
    """Whether `data_dir`, or the folder above its release tree, is a complete synthetic corpus."""
    above = os.path.dirname(os.path.abspath(data_dir))
    return any(os.path.isfile(os.path.join(folder, MARKER)) for folder in (data_dir, above))


def plan_turns(fraction: float, seed: int) -> tuple[SyntheticTurn, ...]:
    """Every turn of the corpus, by recording and time, without sound."""
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
    """The improvised and the scripted recordings of a session, 151 in all five; some have a suffix a or b."""
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
    """What one speaker says, in an order that means nothing."""
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
    # The published covariance is that of the raters' mean: take their own scatter off to get the actor's.
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
    """Three external raters, whose majority is `code`, and the actor."""
    # What else might be heard: the class that is likely for this VAD.
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
    own = np.clip(np.rint(ratings.mean(axis=0) + 0.5 * rng.standard_normal(3)), 1, 5)
    names = [f"E{number}" for number in range(3, 3 + len(ratings))]
    for rater, (valence, arousal, dominance) in zip([*names, f"{gender}1"], [*ratings, own], strict=True):
        yield f"A-{rater}:\tval {valence:.0f}; act {arousal:.0f}; dom  {dominance:.0f};\t()"


def _script(rng: np.random.Generator) -> dict[int, list[str]]:
    """The lines of a play by their number of syllables."""
    lengths = {round(length) for length in np.geomspace(1, 150, 45)}
    return {length: [_words(rng, length) for _ in range(LINES_PER_LENGTH)] for length in sorted(lengths)}


def _words(rng: np.random.Generator, n_syllables: int) -> str:
    """Invented words: syllables of a consonant and a vowel; only the vowels are heard."""
    syllables = [
        _CONSONANTS[rng.integers(len(_CONSONANTS))] + _VOWELS[rng.integers(len(_VOWELS))] for _ in range(n_syllables)
    ]
    words = [syllables[0]]
    for syllable in syllables[1:]:
        if rng.random() < 0.5 or len(words[-1]) >= 6:
            words.append(syllable)
        else:
            words[-1] += syllable
    return " ".join(words).capitalize() + "."


def _vowels(transcript: str) -> tuple[int, ...]:
    return tuple(_VOWELS.index(letter) for letter in transcript.lower() if letter in _VOWELS)


def _place(
    rng: np.random.Generator,
    recording: str,
    drafts: Sequence[_Draft],
    scripts: dict[int, dict[int, list[str]]],
) -> Iterator[SyntheticTurn]:
    """Puts what is said in one recording in an order, gives it times and finds the words."""
    time = 1 + 4 * rng.random()
    spoken = {"F": 0, "M": 0}
    for index in rng.permutation(len(drafts)):
        draft = drafts[index]
        start = round(time, 4)
        end = round(start + draft.seconds, 4)
        time = end + 0.1 + 1.5 * rng.random()
        n_syllables = max(1, round(draft.seconds * voice.SPEAKING_SHARE * voice.SYLLABLES_PER_SECOND))
        if draft.scripted:
            script = scripts[int(recording.partition("_script")[2][:2])]
            lines = script[min(script, key=lambda length: abs(length - n_syllables))]
            transcript = lines[rng.integers(len(lines))]
        else:
            transcript = _words(rng, n_syllables)
        valence, arousal, dominance = (float(value) for value in draft.vad)
        felt = tuple(float(value) for value in draft.expressed)
        yield SyntheticTurn(
            id=f"{recording}_{draft.gender}{spoken[draft.gender]:03d}",
            start=start,
            end=end,
            code=draft.code,
            vad=(valence, arousal, dominance),
            raters=draft.raters,
            transcript=transcript,
            expressed=(felt[0], felt[1], felt[2]),
            mixture=draft.mixture,
        )
        spoken[draft.gender] += 1


def _write_tree(root: str, fraction: float, seed: int, workers: int | None) -> None:
    turns = plan_turns(fraction, seed)
    by_recording: dict[str, list[SyntheticTurn]] = {}
    for turn in turns:
        by_recording.setdefault(turn.recording, []).append(turn)
    for recording, members in by_recording.items():
        session = os.path.join(root, f"Session{members[0].session}")
        evaluation = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
        words = []
        for turn in members:
            vad = ", ".join(f"{value:.4f}" for value in turn.vad)
            evaluation.append(f"[{turn.start:.4f} - {turn.end:.4f}]\t{turn.id}\t{turn.code}\t[{vad}]")
            evaluation += [*turn.raters, ""]
            words.append(f"{turn.id} [{turn.start:08.4f}-{turn.end:08.4f}]: {turn.transcript}")
        for folder, lines in (("EmoEvaluation", evaluation), ("transcriptions", words)):
            path = os.path.join(session, "dialog", folder, recording + ".txt")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        os.makedirs(os.path.join(session, "sentences", "wav", recording))

    jobs = [(root, seed, turn) for turn in turns]
    processes = min(workers or os.cpu_count() or 1, 1 + len(jobs) // _UTTERANCES_PER_PROCESS)
    progress = progress_bar(len(jobs), f"synthetic corpus  {len(jobs)} utterances", leave=True)
    spoken = map(_speak, jobs) if processes == 1 else map_in_processes(_speak, jobs, workers=processes, chunk=16)
    with progress:
        for _ in spoken:
            progress.update()


def _speak(job: tuple[str, int, SyntheticTurn]) -> None:
    """Synthesises one turn and writes its file; the sound depends on the seed and the turn alone."""
    root, seed, turn = job
    samples = speak_turn(turn, seed)
    path = os.path.join(root, f"Session{turn.session}", "sentences", "wav", turn.recording, turn.id + ".wav")
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def speak_turn(turn: SyntheticTurn, seed: int) -> Float32[np.ndarray, " samples"]:
    """The sound of one turn, 16 kHz: its speaker's voice, its emotion, and the noise of the room."""
    shape = iemocap_shape()
    gender = turn.id.rpartition("_")[2][0]
    speaker = voice.draw_speaker(np.random.default_rng([seed, turn.session, ord(gender)]), gender)
    rng = np.random.default_rng([seed, zlib.crc32(turn.id.encode())])
    vad = (np.array(turn.expressed) - shape["vad_mean"]) / shape["vad_sd"]
    anger, joy, sorrow = (turn.mixture.count(name) / len(turn.mixture) for name in ("angry", "happy", "sad"))
    expression = voice.express(rng, vad, anger, joy, sorrow)
    samples = voice.synthesise(rng, speaker, expression, _vowels(turn.transcript), turn.end - turn.start)
    room = 10 ** ((ROOM_LEVEL + 3 * rng.standard_normal()) / 20)
    return samples + np.float32(room) * rng.standard_normal(len(samples), dtype=np.float32)


def _is_complete(folder: str, settings: dict[str, int | float]) -> bool:
    """Whether `folder` holds the corpus of these settings; InputError if it holds anything else."""
    if not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    marker = os.path.join(folder, MARKER)
    if not os.path.isfile(marker):
        raise InputError(f"{folder} exists and is no synthetic corpus ({MARKER} is missing): give a new folder")
    with open(marker, encoding="utf-8") as file:
        found = file.read()
    if found != json.dumps(settings):
        raise InputError(f"{folder} holds the synthetic corpus {found}, not {json.dumps(settings)}: give a new folder")
    return True
