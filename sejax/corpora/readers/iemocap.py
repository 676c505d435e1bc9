"""The reader of IEMOCAP (Busso et al., Language Resources and Evaluation 42, 2008), from its release tree.

    IEMOCAP_full_release/Session{1..5}/dialog/EmoEvaluation/<recording>.txt      turns, labels, raters
                                      /dialog/transcriptions/<recording>.txt     words
                                      /sentences/wav/<recording>/<turn>.wav      audio

The letter after `SesNN` names the actor who wears the motion-capture markers. The letter of the last block names the
actor who speaks: `Ses05M_script01_1b_F003` is spoken by Ses05F.

The synthetic corpus is written in this layout, with a marker file beside the tree, and is read here too.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sejax.corpora.files import AudioFiles, read_text
from sejax.corpora.labels import LabelScheme, find_scheme, vote_shares
from sejax.corpora.ratings import describe_ratings
from sejax.corpora.schema import DIMENSIONS, Corpus, Dropped, Utterance
from sejax.corpora.spelling import hash_words
from sejax.errors import InputError

VAD_SCALE = (1.0, 5.0)
N_SESSIONS = 5
N_RECORDINGS = 151
SYNTHETIC_MARKER = "synthetic_corpus.json"  # the file that marks a synthetic corpus
# Number of turns with each label; xxx: the raters reached no majority.
CODE_COUNTS = {
    "ang": 1103,
    "hap": 595,
    "exc": 1041,
    "sad": 1084,
    "neu": 1708,
    "fru": 1849,
    "fea": 40,
    "sur": 107,
    "dis": 2,
    "oth": 3,
    "xxx": 2507,
}
# The first word of a rater's category, in lower case ("Neutral" and "Neutral state" both occur), and its label.
RATER_WORDS = {
    "anger": "ang",
    "happiness": "hap",
    "excited": "exc",
    "sadness": "sad",
    "neutral": "neu",
    "frustration": "fru",
    "fear": "fea",
    "surprise": "sur",
    "disgust": "dis",
    "other": "oth",
}

_TURN = re.compile(r"\[\s*([^\s\]]+)\s*-\s*([^\s\]]+)\s*\]\s+(\S+)\s+(\S+)\s+\[([^\[\]]*)\]")
_UTTERANCE = re.compile(r"Ses(\d\d)[FM]_(impro|script)(\d\d)[a-z]?(?:_\d+[a-z]?)?_([FM])\d{3}")
_RATER = re.compile(r"([CA])-([EFM])\d+:(.*)")
_TRANSCRIPT = re.compile(r"(Ses\S+)\s+\[[^\]]*\]:(.*)")


@dataclass(frozen=True)
class IemocapScheme(LabelScheme):
    """A label scheme that may leave scripted turns out."""

    improvised_only: bool = False
    source: str = "perceived: majority of 3 raters or more, no class without one"


_FOUR = {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}
_FOUR_CLASSES = ("angry", "happy", "sad", "neutral")
_FOUR_EXC_CLASSES = ("angry", "excited", "sad", "neutral")
_FOUR_HAP = {"ang": "angry", "hap": "happy", "sad": "sad", "neu": "neutral"}
_FOUR_EXC = {"ang": "angry", "exc": "excited", "sad": "sad", "neu": "neutral"}
_SIX = {**_FOUR_HAP, "exc": "excited", "fru": "frustrated"}
_WORDS = {**_SIX, "fea": "fear", "sur": "surprise", "dis": "disgust", "oth": "other"}

# With the number of utterances in the full release.
IEMOCAP_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        IemocapScheme("four", _FOUR_CLASSES, _FOUR),  # 5,531
        IemocapScheme("four_hap", _FOUR_CLASSES, _FOUR_HAP),  # 4,490: without excitement
        IemocapScheme("four_exc", _FOUR_EXC_CLASSES, _FOUR_EXC),  # 4,936: excitement in place of happiness
        IemocapScheme("four_improvised", _FOUR_CLASSES, _FOUR, improvised_only=True),  # 2,943
        IemocapScheme("five", (*_FOUR_CLASSES, "frustrated"), {**_FOUR, "fru": "frustrated"}),  # 7,380
        IemocapScheme("six", ("angry", "happy", "excited", "sad", "neutral", "frustrated"), _SIX),  # 7,380
        IemocapScheme("soft", _FOUR_CLASSES, _FOUR, soft=True),
        IemocapScheme("words", tuple(_WORDS.values()), _WORDS),  # 7,532: every label of a majority
    )
}


@dataclass(frozen=True)
class Turn:
    """One turn of an EmoEvaluation file.

    Args:
      id: such as `Ses05M_script01_1b_F003`.
      start, end: seconds within the recording.
      code: the release's label, a key of `CODE_COUNTS`.
      vad: valence, arousal and dominance, NaN for a missing one.
      votes: the labels that each external rater named.
    """

    id: str
    start: float
    end: float
    code: str
    vad: tuple[float, float, float]
    votes: tuple[tuple[str, ...], ...] = ()

    @property
    def recording(self) -> str:
        return self.id.rpartition("_")[0]

    @property
    def session(self) -> str:
        return self.id[:5]

    @property
    def gender(self) -> str:
        return self.id.rpartition("_")[2][0]

    @property
    def speaker(self) -> str:
        """`SesNN` and the letter of the last block. The letter after `SesNN` names who wears the markers."""
        return self.session + self.gender

    @property
    def improvised(self) -> bool:
        return "_impro" in self.id


def iemocap_shape() -> dict[str, Any]:
    """Returns published aggregate facts about the 5,531 utterances of the scheme `four`."""
    return json.loads(resources.files("sejax.corpora.readers").joinpath("iemocap_shape.json").read_text("utf-8"))


def read_iemocap(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the release tree under `data_dir`: `IEMOCAP_full_release`, or the folder that holds it.

    A turn is used if its label belongs to the scheme. The notes count the labels outside it. The scheme `soft`
    also keeps every turn for which any rater named one of the four classes, even without a majority (`xxx`) or
    with a majority for another label: the `label` of such a turn is None, and its `distribution` holds the
    votes. `distribution` counts the external raters (`C-E` lines) and not the actors themselves (`C-F`, `C-M`).

    `text` is set for scripted turns: the number of the script and a hash of the transcript without case,
    punctuation and sounds in brackets. The same line therefore has the same id in every session, as far as the
    actors keep to the script. Improvised turns have no `text`, because they share only words like "yeah".

    A turn whose audio file is missing is dropped with a sentence. A tree with all five sessions and 151
    recordings has to have the published counts, whatever the scheme.

    Raises:
      InputError: a missing folder, a synthetic corpus, an unknown scheme, a line that cannot be read (the message
        quotes the line and its place), a turn that occurs twice, or a full release whose counts differ from the
        published ones (the message lists them).
    """
    if is_synthetic(data_dir):
        raise InputError(f"{data_dir!r} holds the synthetic corpus, not IEMOCAP, expected config.corpus synthetic")
    scheme = find_scheme("iemocap", IEMOCAP_SCHEMES, labels, default="four")
    release = _read_release(data_dir)
    if len(release.sessions) == N_SESSIONS and release.n_recordings == N_RECORDINGS:
        check_full_release(release.turns.values(), release.root)
        note = "full release: all 10,039 turns have the published counts per label and speaker"
    else:
        note = (
            f"not a full release ({len(release.sessions)} of {N_SESSIONS} sessions, {release.n_recordings} of "
            f"{N_RECORDINGS} recordings): the published counts were not checked"
        )
    return _select("iemocap", release, scheme, [note])


def read_synthetic(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the synthetic corpus, which has IEMOCAP's layout and label schemes but not its counts.

    Raises:
      InputError: there is no complete synthetic corpus in `data_dir`, or the errors of `read_iemocap`.
    """
    if not is_synthetic(data_dir):
        raise InputError(
            f"no synthetic corpus in {data_dir!r}: {SYNTHETIC_MARKER} is missing, expected a folder of write_synthetic"
        )
    scheme = find_scheme("synthetic", IEMOCAP_SCHEMES, labels, default="four")
    return _select("synthetic", _read_release(data_dir), scheme, [])


def is_synthetic(data_dir: str) -> bool:
    """Returns whether `data_dir`, or the folder above its release tree, is a complete synthetic corpus."""
    above = os.path.dirname(os.path.abspath(data_dir))
    return any(os.path.isfile(os.path.join(folder, SYNTHETIC_MARKER)) for folder in (data_dir, above))


@dataclass(frozen=True)
class _Release:
    """The turns and transcripts of a release tree, before any label scheme."""

    root: str
    sessions: tuple[str, ...]  # the folders below the root
    n_recordings: int
    turns: Mapping[str, Turn]  # by id
    transcripts: Mapping[str, str]  # of turns, by id
    notes: tuple[str, ...]


def _read_release(data_dir: str) -> _Release:
    """Reads every turn and transcript of the tree."""
    root, sessions = _find_sessions(data_dir)
    turns: dict[str, Turn] = {}
    transcripts: dict[str, str] = {}
    n_recordings = nameless = 0
    notes = []
    for session in sessions:
        dialog = os.path.join(root, session, "dialog")
        if not os.path.isdir(os.path.join(root, session, "sentences", "wav")):
            raise InputError(f"{os.path.join(root, session)} has no folder sentences/wav, expected it with the audio")
        evaluations = _text_files(os.path.join(dialog, "EmoEvaluation"))
        n_recordings += len(evaluations)
        for path in evaluations:
            for turn in parse_evaluation(read_text(path), path):
                if turn.id in turns:
                    raise InputError(f"{path}: the turn {turn.id} occurs twice, expected once")
                turns[turn.id] = turn
        transcriptions = os.path.join(dialog, "transcriptions")
        if not os.path.isdir(transcriptions):
            notes.append(f"{session} has no dialog/transcriptions: its scripted turns have no text id")
            continue
        for path in _text_files(transcriptions):
            words, unread = parse_transcript(read_text(path))
            transcripts.update(words)
            nameless += unread
    if nameless:
        notes.append(f"{nameless} lines of the transcriptions name no turn and were left out")
    return _Release(root, tuple(sessions), n_recordings, turns, transcripts, tuple(notes))


def _select(name: str, release: _Release, scheme: IemocapScheme, notes: Sequence[str]) -> Corpus:
    """Returns the turns that belong to the scheme as the corpus `name`. `notes` are about the whole release."""
    utterances, dropped, outside = [], [], Counter[str]()
    files = AudioFiles()
    for turn in sorted(release.turns.values(), key=lambda turn: turn.id):
        distribution = vote_shares(turn.votes, scheme)
        label = scheme.merge.get(turn.code)
        if scheme.improvised_only and not turn.improvised:
            outside["scripted"] += 1
            continue
        if label is None and not (scheme.soft and distribution is not None):
            outside[turn.code] += 1
            continue
        session = f"Session{int(turn.session[3:])}"
        path = os.path.join(release.root, session, "sentences", "wav", turn.recording, turn.id + ".wav")
        if problem := files.problem(path):
            kind, sentence = problem
            dropped.append(Dropped(turn.id, path, f"the turn {turn.id} has a label, but {sentence}", kind))
            continue
        utterances.append(
            Utterance(
                id=turn.id,
                path=path,
                corpus=name,
                speaker=turn.speaker,
                session=turn.session,
                text=text_id(turn, release.transcripts.get(turn.id, "")),
                gender=turn.gender,
                label=label,
                distribution=distribution,
                vad=turn.vad,
                duration=turn.end - turn.start,
            )
        )
    if not utterances and not dropped:
        raise InputError(
            f"{release.root} has no usable utterance for labels={scheme.name!r}: all {len(release.turns)} turns are "
            "outside the label scheme, expected at least one"
        )
    about_raters = "rater distributions count the external raters (C-E) only, not the actors' own votes"
    all_notes = (about_raters, *release.notes, *notes, *_notes_on_selection(utterances, outside, scheme))
    return Corpus(name, scheme.classes, VAD_SCALE, tuple(utterances), tuple(dropped), all_notes, scheme.source)


def parse_evaluation(text: str, path: str) -> tuple[Turn, ...]:
    """Reads the text of one EmoEvaluation file. `path` is for the messages.

    Raises:
      InputError: a line is neither a header (`%`), a turn, a rater's line nor blank. The message quotes it.
    """
    turns: list[Turn] = []
    votes: list[tuple[str, ...]] = []
    open_comment = False

    def close() -> None:
        if turns:
            last = turns[-1]
            turns[-1] = Turn(last.id, last.start, last.end, last.code, last.vad, tuple(votes))
            votes.clear()

    for number, raw in enumerate(text.split("\n"), start=1):
        line, where = raw.strip(), f"{path}, line {number}"
        rater = _RATER.fullmatch(line)
        if not line or line.startswith("%"):
            continue
        if line.startswith("["):
            close()
            turns.append(parse_turn(line, where))
            open_comment = False
        elif rater is not None:
            if not turns:
                raise InputError(f"{where}: a rater's line before the first turn, {line!r}, expected a turn")
            if rater[1] == "C" and rater[2] == "E":
                named = parse_categories(rater[3], line, where)
                if named:
                    votes.append(named)
            open_comment = "(" in rater[3] and not line.endswith(")")
        elif open_comment:  # a rater's comment may run over several lines
            open_comment = not line.endswith(")")
        else:
            raise InputError(
                f"{where}: expected a turn '[start - end] turn label [V, A, D]' or a rater's line "
                f"'C-E1: ...', found {line!r}"
            )
    close()
    return tuple(turns)


def parse_turn(line: str, where: str) -> Turn:
    """Reads `[6.2901 - 8.2357] <tab> Ses01F_impro01_F000 <tab> neu <tab> [2.5000, 2.5000, 2.5000]`.

    The three numbers are valence, arousal and dominance. An absent one or `nan` becomes NaN. Values from 0 to 6
    are accepted (0.5 and 5.5 occur in the release).

    Raises:
      InputError: the line is not of this form. The message quotes it after `where`.
    """

    def fail(what: str) -> InputError:
        return InputError(f"{where}: {what} in {line!r}")

    match = _TURN.fullmatch(line.strip())
    if match is None:
        raise fail("expected '[start - end] turn label [V, A, D]', found something else")
    try:
        start, end = float(match[1]), float(match[2])
    except ValueError:
        start, end = math.nan, math.nan
    if not 0 <= start < end < math.inf:
        raise fail("the times are not two numbers of seconds, start before end,")
    utterance, code = match.group(3, 4)
    if _UTTERANCE.fullmatch(utterance) is None:
        raise fail("expected a turn like Ses01F_impro01_F000")
    if code not in CODE_COUNTS:
        raise fail(f"unknown label {code!r} (the release has {', '.join(CODE_COUNTS)})")
    fields = [field.strip() for field in match.group(5).split(",")]
    if len(fields) > len(DIMENSIONS):
        raise fail(f"{len(fields)} values where valence, arousal and dominance were expected")
    values = []
    for field in fields + [""] * (len(DIMENSIONS) - len(fields)):
        try:
            value = float(field or "nan")
        except ValueError:
            raise fail(f"{field!r} is not a number") from None
        if value < 0 or value > 6:
            raise fail(f"{field} lies far outside the scale 1 to 5")
        values.append(value)
    return Turn(utterance, start, end, code, (values[0], values[1], values[2]))


def parse_categories(text: str, line: str, where: str) -> tuple[str, ...]:
    """Reads a rater's categories, such as `<tab>Neutral; Frustration;<tab>(comment)`, as labels, each once.

    Returns:
      The labels, an empty tuple for a rater who named nothing.

    Raises:
      InputError: a category is unknown. The message quotes `line` after `where`.
    """
    codes: list[str] = []
    for category in text.partition("(")[0].split(";"):
        words = category.lower().split()
        if not words:
            continue
        if words[0] not in RATER_WORDS:
            raise InputError(
                f"{where}: unknown category {category.strip()!r} in {line!r}, expected "
                f"one of {', '.join(word.capitalize() for word in RATER_WORDS)}"
            )
        if RATER_WORDS[words[0]] not in codes:
            codes.append(RATER_WORDS[words[0]])
    return tuple(codes)


def parse_transcript(text: str) -> tuple[dict[str, str], int]:
    """Returns the words of each turn of a transcription file, and the number of lines that name no turn."""
    words: dict[str, str] = {}
    nameless = 0
    for line in text.split("\n"):
        match = _TRANSCRIPT.fullmatch(line.strip())
        if match is not None:
            words[match[1]] = match[2].strip()
        elif line.strip():
            nameless += 1
    return words, nameless


def text_id(turn: Turn, transcript: str) -> str | None:
    """Returns the id of a scripted turn's words, None for an improvised turn and for one without words."""
    match = _UTTERANCE.fullmatch(turn.id)
    words = hash_words(transcript)
    if match is None or turn.improvised or words is None:
        return None
    return f"script{match[3]}_{words}"


def check_full_release(turns: Iterable[Turn], root: str) -> None:
    """Compares the labels of all turns with the published counts.

    Raises:
      InputError: a count differs. The message lists all that do.
    """
    turns = list(turns)
    shape, four = iemocap_shape(), IEMOCAP_SCHEMES["four"]
    usual = [turn for turn in turns if turn.code in four.merge]
    counts = Counter(turn.code for turn in turns)
    counts.update(f"{turn.speaker} {four.merge[turn.code]}" for turn in usual)
    counts.update(f"{turn.speaker} scripted" for turn in usual if not turn.improvised)
    expected = dict(CODE_COUNTS)
    for speaker, facts in shape["speakers"].items():
        expected.update({f"{speaker} {label}": count for label, count in facts["counts"].items()})
        expected[f"{speaker} scripted"] = facts["scripted"]
    differ = [
        f"{key} {counts[key]} instead of {expected.get(key, 0)}"
        for key in sorted(expected.keys() | counts.keys())
        if counts[key] != expected.get(key, 0)
    ]
    if differ:
        raise InputError(
            f"{root} has all recordings but not the published counts: {', '.join(differ)}, "
            "expected an unchanged release"
        )


def _notes_on_selection(utterances: Sequence[Utterance], outside: Counter[str], scheme: IemocapScheme) -> list[str]:
    notes = []
    if outside:
        counts = ", ".join(f"{code} {count}" for code, count in sorted(outside.items()))
        notes.append(f"turns outside the label scheme {scheme.name}: {counts}")
    notes += describe_ratings(utterances, VAD_SCALE)
    without_votes = sum(utterance.distribution is None for utterance in utterances)
    if without_votes:
        notes.append(f"{without_votes} utterances have no vote of an external rater for any class of the scheme")
    return notes


def _find_sessions(data_dir: str) -> tuple[str, list[str]]:
    if not os.path.isdir(data_dir):
        raise InputError(f"no IEMOCAP at {data_dir!r}: expected the folder IEMOCAP_full_release")
    data_dir = os.path.abspath(data_dir)
    for root in (data_dir, os.path.join(data_dir, "IEMOCAP_full_release")):
        names = [f"Session{number}" for number in range(1, N_SESSIONS + 1)]
        sessions = [name for name in names if os.path.isdir(os.path.join(root, name))]
        if sessions:
            return root, sessions
    raise InputError(f"no IEMOCAP in {data_dir!r}: expected folders Session1 to Session{N_SESSIONS} in it")


def _text_files(folder: str) -> list[str]:
    """Returns the text files of a folder, without those that macOS writes (their names start with a dot)."""
    if not os.path.isdir(folder):
        raise InputError(f"the folder {folder} is missing, expected it in the release")
    return [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name.endswith(".txt") and not name.startswith(".")
    ]
