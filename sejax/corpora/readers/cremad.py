"""The reader of CREMA-D (Cao et al., IEEE Transactions on Affective Computing 5(4), 2014).

    AudioWAV/1001_IEO_NEU_XX.wav           actor, sentence, emotion, level
    processedResults/summaryTable.csv      the raters' choice for each clip: by voice, by face, by both
    processedResults/tabulatedVotes.csv    how many raters chose each emotion
    VideoDemographics.csv                  age and sex of the actors

What the actors meant and what the raters perceived differ: by the voice alone 46 % of the clips with a choice are
perceived as they were meant. A label scheme is of one kind, and names it. The mp3 files have more faults than the wav
files and are not read.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sejax.corpora.filenames import Fault, FileNames, Found, find_utterances, label_found
from sejax.corpora.labels import Labelled, LabelScheme, plurality
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import Corpus, Dropped, Loss
from sejax.corpora.trees import find_files
from sejax.errors import InputError, shown
from sejax.host.wording import count, printable

LABELS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
LETTERS = {code[0]: label for code, label in LABELS.items()}  # of the raters' choices
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
# The clips of each actor; five actors lack clips, all of them of these sentences.
ACTORS = dict.fromkeys((str(actor) for actor in range(1001, 1092)), 82) | {
    "1002": 81,
    "1008": 76,
    "1009": 76,
    "1019": 76,
    "1076": 81,
}
INCOMPLETE = ("TIE", "ITS", "MTI", "ITH", "WSI")
DEMOGRAPHICS, CHOICES, VOTES = "VideoDemographics.csv", "summaryTable.csv", "tabulatedVotes.csv"
SILENT = "1076_MTI_SAD_XX"
SAME_AUDIO = (
    ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
    ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
    ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
)


@dataclass(frozen=True)
class PerceivedScheme(LabelScheme):
    """A label scheme of the raters' choices.

    Args:
      column: of summaryTable.csv.
      key: the first digit of the keys in tabulatedVotes.csv.
      published: the numbers of clips with each choice, and of ties, in the full corpus.
    """

    column: str = ""
    key: str = ""
    published: tuple[int, ...] = ()


def _perceived(
    name: str, medium: str, raters: str, column: str, key: str, published: tuple[int, ...], *, soft: bool = False
) -> PerceivedScheme:
    return PerceivedScheme(
        name=name,
        classes=tuple(LABELS.values()),
        merge={label: label for label in LABELS.values()},
        soft=soft,
        source=f"perceived: plurality of {raters} raters of {medium}, no class for a tie",
        column=column,
        key=key,
        published=published,
    )


# In the order of the classes, and ties.
_VOICE = ("the voice", "4 to 12", "VoiceVote", "1", (986, 547, 645, 353, 3897, 370, 644))
_FACE = ("the face", "6 to 12", "FaceVote", "2", (968, 1057, 822, 1266, 2076, 783, 470))
_MULTIMODAL = ("voice and face", "5 to 12", "MultiModalVote", "3", (1019, 1139, 1084, 1219, 1972, 589, 420))
PERCEIVED = {
    scheme.name: scheme
    for scheme in (
        _perceived("perceived_voice", *_VOICE),
        _perceived("perceived_face", *_FACE),
        _perceived("perceived_multimodal", *_MULTIMODAL),
        _perceived("perceived_voice_soft", *_VOICE, soft=True),
    )
}


def _names(there: Collection[str]) -> set[str]:
    """Returns the clips that the release surely has: all but those of the sentences that five actors lack in part."""
    codes = {sentence: [f"{code}_XX" for code in LABELS] for sentence in SENTENCES}
    codes["IEO"] = ["NEU_XX", *(f"{code}_{level}" for code in LABELS if code != "NEU" for level in ("LO", "MD", "HI"))]
    return {SILENT} | {
        f"{actor}_{sentence}_{code}"
        for actor, n in ACTORS.items()
        for sentence in SENTENCES
        if n == 82 or sentence not in INCOMPLETE
        for code in codes[sentence]
    }


CREMAD = FileNames(
    name="cremad",
    title="CREMA-D",
    example="AudioWAV/1001_IEO_NEU_XX.wav",
    parts=f"actor 1001 to 1091, sentence of {' '.join(SENTENCES)}, emotion of {' '.join(LABELS)}, level",
    pattern=re.compile(
        rf"(?P<speaker>1\d{{3}})_(?P<text>{'|'.join(SENTENCES)})_(?P<code>{'|'.join(LABELS)})_(?:XX|LO|MD|HI)"
    ),
    lookups={"label": ("code", LABELS), "actor": ("speaker", {actor: actor for actor in ACTORS})},
    counts={label: 1087 if label == "neutral" else 1271 for label in LABELS.values()},
    folders=("**",),
    schemes=PERCEIVED,
    words="intended",
    default="intended",
    speakers=ACTORS,
    names=_names,
    faults=(
        Fault((SILENT,), f"{SILENT} is silent in the release"),
        *(Fault(pair, f"{pair[0]} and {pair[1]} have the same audio under two intended labels") for pair in SAME_AUDIO),
    ),
)


def read_cremad(data_dir: str, labels: str = "default") -> Corpus:
    """Reads CREMA-D by its file names, and its tables: see `find_utterances`.

    The genders come from VideoDemographics.csv; a note says so if it is not there or cannot be read.

    Args:
      data_dir: the folder that holds `AudioWAV`, or the zip archive of one. The tables may be anywhere in it.
      labels: "intended" (default); "perceived_voice", "perceived_face" and "perceived_multimodal" have the raters'
        choices from summaryTable.csv and their votes from tabulatedVotes.csv, and leave ties out;
        "perceived_voice_soft" keeps ties, without a class, for their votes.

    Raises:
      InputError: see `find_utterances`; or a table that the scheme needs is missing or damaged.
    """
    scheme = CREMAD.find_scheme(labels)
    found = find_utterances(CREMAD, data_dir)
    tables = find_files(data_dir, (DEMOGRAPHICS, CHOICES, VOTES))
    found = _with_genders(found, tables)
    labelled = [Labelled(utterance) for utterance in found.utterances]
    if isinstance(scheme, PerceivedScheme):
        found, labelled = _perceive(found, scheme, tables, data_dir)
    return label_found(CREMAD, found, labelled, scheme)


def _with_genders(found: Found, tables: Mapping[str, str]) -> Found:
    """Returns what was found with the speakers' genders, or with a note why there are none."""
    if DEMOGRAPHICS not in tables:
        return found._replace(notes=[*found.notes, f"no {DEMOGRAPHICS}: the speakers' genders are not known"])
    try:
        rows = [row for _, row in read_rows(tables[DEMOGRAPHICS], None, ("ActorID", "Sex"))]
    except InputError as error:
        return found._replace(notes=[*found.notes, f"the speakers' genders are not known: {error}"])
    genders = {row["ActorID"]: {"Female": "F", "Male": "M"}.get(row["Sex"]) for row in rows}
    notes = list(found.notes)
    if lacking := sorted({utterance.speaker for utterance in found.utterances if not genders.get(utterance.speaker)}):
        notes.append(
            f"{DEMOGRAPHICS} has no gender (Female or Male) for {count(len(lacking), 'actor')}: {lacking[0]}, ..."
        )
    utterances = [replace(utterance, gender=genders.get(utterance.speaker)) for utterance in found.utterances]
    return found._replace(utterances=utterances, notes=notes)


def _perceive(
    found: Found, scheme: PerceivedScheme, tables: Mapping[str, str], data_dir: str
) -> tuple[Found, list[Labelled]]:
    """Returns what was found, less the clips without a row and with notes, and the clips with choices and votes.

    Raises:
      InputError: summaryTable.csv is missing, or tabulatedVotes.csv is and the scheme is soft; or one is damaged.
    """
    for table in (CHOICES, VOTES) if scheme.soft else (CHOICES,):
        if table not in tables:
            raise InputError(
                f"{data_dir} has no {table}, expected processedResults/{table} of CREMA-D's repository beside "
                f"AudioWAV: the label scheme {scheme.name} is made of it"
            )
    choices = _read_choices(tables[CHOICES], scheme.column)
    votes = _read_votes(tables[VOTES], scheme.key) if VOTES in tables else {}
    labelled = [
        Labelled(
            replace(utterance, label=choices[utterance.id]),
            tuple((label,) for label in votes.get(utterance.id, Counter[str]()).elements()),
        )
        for utterance in found.utterances
        if utterance.id in choices
    ]
    lost = [
        Dropped(clip.id, printable(clip.path), f"{clip.id} has no row in {tables[CHOICES]}", Loss.UNLABELLED)
        for clip in found.utterances
        if clip.id not in choices
    ]
    notes = _compare_choices(labelled, scheme)
    if VOTES not in tables:
        notes.append(f"no {VOTES}: the raters' votes are not known, only their choices")
    return Found([clip.utterance for clip in labelled], [*found.dropped, *lost], [*found.notes, *notes]), labelled


def _compare_choices(labelled: Sequence[Labelled], scheme: PerceivedScheme) -> list[str]:
    """Compares the raters' choices with their votes and with the published numbers, and returns notes."""
    notes = []
    other = [clip.utterance.id for clip in labelled if clip.votes and plurality(clip.votes) != clip.utterance.label]
    if other:
        notes.append(
            f"{CHOICES} has another choice than the votes of {VOTES} for {count(len(other), 'clip')} (the first: "
            f"{other[0]})"
        )
    counts = Counter(clip.utterance.label for clip in labelled)
    published = zip((*scheme.classes, None), scheme.published, strict=True)
    differ = [f"{label or 'ties'} {n:,} (found {counts[label]:,})" for label, n in published if counts[label] != n]
    if differ:
        notes.append(f"expected of the raters' choices, as published: {', '.join(differ)}")
    return notes


def _read_choices(path: str, column: str) -> dict[str, str | None]:
    """Returns the raters' choice for each clip, None for a tie (letters with colons between)."""
    choices = dict[str, str | None]()
    for where, row in read_rows(path, None, ("FileName", column)):
        letters = row[column].split(":")
        if not set(letters) <= LETTERS.keys():
            raise InputError(f"{where}: {column} {shown(row[column])}, expected letters of {' '.join(LETTERS)}")
        choices[row["FileName"]] = LETTERS[letters[0]] if len(letters) == 1 else None
    return choices


def _read_votes(path: str, key: str) -> dict[str, Counter[str]]:
    """Returns how many raters chose each class for each clip.

    The first column has no name. It holds six digits, of which the first is `key` for the raters that are meant.
    """
    votes = dict[str, Counter[str]]()
    for where, row in read_rows(path, None, ("fileName", "numResponses", *LETTERS)):
        number = next(iter(row.values()))
        if not re.fullmatch(r"[123]\d{5}", number):
            raise InputError(
                f"{where}: the first cell is {shown(number)}, expected the digit 1 (voice), 2 (face) or 3 (both) and "
                "five others"
            )
        if number[0] != key:
            continue
        cells = [row[letter] for letter in LETTERS]
        if not all(cell.isdecimal() for cell in cells) or row["numResponses"] != str(sum(map(int, cells))):
            raise InputError(
                f"{where}: {' '.join(LETTERS)} are {', '.join(map(shown, cells))} and numResponses "
                f"{shown(row['numResponses'])}, expected numbers of raters and their sum"
            )
        votes[row["fileName"]] = Counter(dict(zip(LETTERS.values(), map(int, cells), strict=True)))
    return votes
