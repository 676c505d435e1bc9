"""The reader of IEMOCAP (Busso et al., Language Resources and Evaluation 42, 2008), from its release tree.

    IEMOCAP_full_release/Session{1..5}/dialog/EmoEvaluation/<recording>.txt      turns, labels, raters
                                      /dialog/transcriptions/<recording>.txt     words
                                      /sentences/wav/<recording>/<turn>.wav      audio

The letter after `SesNN` names the actor who wears the motion-capture markers. The one who speaks is the
letter of the last block: `Ses05M_script01_1b_F003` is spoken by Ses05F.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sejax.corpora.labels import IEMOCAP_SCHEMES, find_scheme, vote_shares
from sejax.corpora.schema import DIMENSIONS, Corpus, Dropped, Utterance
from sejax.errors import InputError

VAD_SCALE = (1.0, 5.0)
N_SESSIONS = 5
N_RECORDINGS = 151
# xxx: the raters reached no majority.
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
# How the raters' categories are spelt ("Neutral" and "Neutral state" both occur: the first word counts).
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
class Turn:
    """One turn of an EmoEvaluation file: times in seconds, the release's label, VAD, external votes."""

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
        """`SesNN` and the letter of the last block; the letter after `SesNN` is whoever wears the markers."""
        return self.session + self.gender

    @property
    def improvised(self) -> bool:
        return "_impro" in self.id


def iemocap_shape() -> dict[str, Any]:
    """Published aggregate facts about the 5,531 utterances of the scheme `four`."""
    return json.loads(resources.files("sejax.corpora").joinpath("iemocap_shape.json").read_text("utf-8"))


def read_iemocap(data_dir: str, labels: str = "default", *, name: str = "iemocap") -> Corpus:
    """Reads the release tree under `data_dir`: `IEMOCAP_full_release`, or the folder that holds it.

    A turn takes part if its label belongs to the scheme; the notes count the labels that do not. The scheme
    `soft` keeps every turn for which any rater named one of the four classes, those without a majority
    (`xxx`) or with a majority outside the classes included: their `label` is None and their `distribution`
    says what the raters heard. `distribution` counts the external raters (`C-E` lines) and not the actors
    themselves (`C-F`, `C-M`).

    `text` is set for scripted turns: the number of the script and a hash of the transcript without case,
    punctuation and sounds in brackets, so that the same line has the same id in every session, as far as the
    actors keep to the script. Improvised turns have none: what they share is a word like "yeah".

    A turn whose audio file is missing is dropped with a sentence. With all five sessions and 151 recordings
    the published counts are checked, whatever the scheme, unless `name` says that this is another corpus in
    this layout.

    Raises:
      InputError: a missing folder, an unknown scheme, a line that cannot be read (it quotes the line and says
        where it is), a turn that occurs twice, or a full release whose counts differ from the published ones
        (it says which).
    """
    scheme = find_scheme(name, IEMOCAP_SCHEMES, labels, default="four")
    root, sessions = _find_sessions(data_dir)
    turns: dict[str, Turn] = {}
    texts: dict[str, str] = {}
    n_recordings = 0
    notes = ["rater distributions count the external raters (C-E) only, not the actors' own votes"]
    nameless = 0
    for session in sessions:
        dialog = os.path.join(root, session, "dialog")
        if not os.path.isdir(os.path.join(root, session, "sentences", "wav")):
            raise InputError(f"{os.path.join(root, session)} has no folder sentences/wav with the audio")
        evaluations = _text_files(os.path.join(dialog, "EmoEvaluation"))
        n_recordings += len(evaluations)
        for path in evaluations:
            for turn in parse_evaluation(_read_text(path), path):
                if turn.id in turns:
                    raise InputError(f"{path}: the turn {turn.id} occurs twice")
                turns[turn.id] = turn
        transcriptions = os.path.join(dialog, "transcriptions")
        if not os.path.isdir(transcriptions):
            notes.append(f"{session} has no dialog/transcriptions: its scripted turns have no text id")
            continue
        for path in _text_files(transcriptions):
            found, unread = parse_transcript(_read_text(path))
            texts.update(found)
            nameless += unread
    if nameless:
        notes.append(f"{nameless} lines of the transcriptions name no turn and were left out")

    if name == "iemocap":
        if len(sessions) == N_SESSIONS and n_recordings == N_RECORDINGS:
            check_full_release(turns.values(), root)
            notes.append("full release: all 10,039 turns have the published counts per label and speaker")
        else:
            notes.append(
                f"not a full release ({len(sessions)} of {N_SESSIONS} sessions, {n_recordings} of "
                f"{N_RECORDINGS} recordings): the published counts were not checked"
            )

    utterances, dropped, outside = [], [], Counter[str]()
    for turn in sorted(turns.values(), key=lambda turn: turn.id):
        distribution = vote_shares(turn.votes, scheme)
        label = scheme.merge.get(turn.code)
        if scheme.improvised_only and not turn.improvised:
            outside["scripted"] += 1
            continue
        if label is None and not (scheme.soft and distribution is not None):
            outside[turn.code] += 1
            continue
        path = os.path.join(
            root, f"Session{int(turn.session[3:])}", "sentences", "wav", turn.recording, turn.id + ".wav"
        )
        if not os.path.isfile(path):
            dropped.append(Dropped(turn.id, path, f"the turn {turn.id} has a label but no audio file {path}"))
            continue
        utterances.append(
            Utterance(
                id=turn.id,
                path=path,
                speaker=turn.speaker,
                session=turn.session,
                text=text_id(turn, texts.get(turn.id, "")),
                gender=turn.gender,
                label=label,
                distribution=distribution,
                vad=turn.vad,
                duration=turn.end - turn.start,
            )
        )
    if not utterances:
        raise InputError(
            f"{root} has no usable utterance for labels={labels!r}: of {len(turns)} turns {len(dropped)} are "
            "without audio and the others outside the label scheme"
        )
    if outside:
        counts = ", ".join(f"{code} {count}" for code, count in sorted(outside.items()))
        notes.append(f"turns outside the label scheme {scheme.name}: {counts}")
    notes += _notes_on_vad(utterances)
    silent = sum(utterance.distribution is None for utterance in utterances)
    if silent:
        notes.append(f"{silent} utterances have no vote of an external rater for any class of the scheme")
    return Corpus(name, scheme.classes, VAD_SCALE, tuple(utterances), tuple(dropped), tuple(notes))


def parse_evaluation(text: str, path: str) -> tuple[Turn, ...]:
    """Reads the text of one EmoEvaluation file; `path` is for the messages.

    Raises:
      InputError: quotes the first line that is neither a header (`%`), a turn, a rater's line nor blank.
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
                raise InputError(f"{where}: a rater's line before the first turn: {line!r}")
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

    The three numbers are valence, arousal, dominance; one that is absent or `nan` becomes NaN. Values from 0
    to 6 are accepted (0.5 and 5.5 occur in the release). Raises InputError that quotes the line.
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
    """Reads what follows `C-E2:`, e.g. `<tab>Neutral; Frustration;<tab>(comment)`, as codes, each once.

    A rater who named nothing gives an empty tuple. Raises InputError that quotes the line on an unknown
    category.
    """
    codes: list[str] = []
    for category in text.partition("(")[0].split(";"):
        words = category.lower().split()
        if not words:
            continue
        if words[0] not in RATER_WORDS:
            raise InputError(
                f"{where}: unknown category {category.strip()!r} in {line!r} "
                f"(known are {', '.join(word.capitalize() for word in RATER_WORDS)})"
            )
        if RATER_WORDS[words[0]] not in codes:
            codes.append(RATER_WORDS[words[0]])
    return tuple(codes)


def parse_transcript(text: str) -> tuple[dict[str, str], int]:
    """The words of each turn of a transcription file, and how many lines name no turn."""
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
    """The id of a scripted turn's words; None for improvised turns and where there are no words."""
    match = _UTTERANCE.fullmatch(turn.id)
    spoken = re.sub(r"\[[^\]]*\]", " ", transcript.lower())
    normalised = " ".join(re.findall(r"[^\W_]+", spoken.replace("'", "")))
    if match is None or turn.improvised or not normalised:
        return None
    # A hash, because the words are under the corpus's licence and the id ends up in results.
    return f"script{match[3]}_{hashlib.blake2b(normalised.encode(), digest_size=6).hexdigest()}"


def check_full_release(turns: Iterable[Turn], root: str) -> None:
    """Compares the labels of all turns with the published counts; InputError says which differ."""
    turns = list(turns)
    shape, four = iemocap_shape(), IEMOCAP_SCHEMES["four"]
    usual = [turn for turn in turns if turn.code in four.merge]
    found = Counter(turn.code for turn in turns)
    found.update(f"{turn.speaker} {four.merge[turn.code]}" for turn in usual)
    found.update(f"{turn.speaker} scripted" for turn in usual if not turn.improvised)
    expected = dict(CODE_COUNTS)
    for speaker, facts in shape["speakers"].items():
        expected.update({f"{speaker} {label}": count for label, count in facts["counts"].items()})
        expected[f"{speaker} scripted"] = facts["scripted"]
    differ = [
        f"{key} {found[key]} instead of {expected.get(key, 0)}"
        for key in sorted(expected.keys() | found.keys())
        if found[key] != expected.get(key, 0)
    ]
    if differ:
        raise InputError(f"{root} has all recordings but not the published counts: {', '.join(differ)}")


def _notes_on_vad(utterances: Sequence[Utterance]) -> list[str]:
    notes = []
    for index, dimension in enumerate(DIMENSIONS):
        values = [utterance.vad[index] for utterance in utterances]
        missing = sum(math.isnan(value) for value in values)
        beyond = sum(not math.isnan(value) and not VAD_SCALE[0] <= value <= VAD_SCALE[1] for value in values)
        if missing:
            notes.append(f"{dimension} is missing in {missing} utterances")
        if beyond:
            notes.append(f"{dimension} lies outside the scale 1 to 5 in {beyond} utterances (kept as it is)")
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
    """The text files of a folder; names that start with a dot are what macOS leaves behind."""
    if not os.path.isdir(folder):
        raise InputError(f"the folder {folder} is missing")
    return [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name.endswith(".txt") and not name.startswith(".")
    ]


def _read_text(path: str) -> str:
    # Ids, labels and numbers are ASCII; what else stands in comments need not be decodable.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read()
