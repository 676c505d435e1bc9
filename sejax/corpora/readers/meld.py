"""The reader of MELD (Poria et al., ACL 2019): utterances of a television series, from its tables and converted clips.

    {train,dev,test}_sent_emo.csv                                          here, or in data/MELD
    train_splits/, dev_splits_complete/, output_repeated_splits_test/      dia6_utt1.wav
    waves/ or here                                                         train_dia6_utt1.wav

The clips are videos, which have to be converted to wav. The same numbers of dialogue and utterance occur in several
parts: an utterance is its part, its dialogue and its number. The number in the first column is not unique.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sejax.corpora.files import find_path, require_folder, require_path, separate_absent
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme
from sejax.corpora.published import compare_counts
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import Corpus, Dropped, Utterance
from sejax.corpora.spelling import clean, hash_words, show, spelling_key
from sejax.errors import InputError
from sejax.host.wording import count


class _Part(NamedTuple):
    split: str
    folder: str  # of the clips
    rows: int  # published number


PARTS = {
    "train": _Part("train", "train_splits", 9989),
    "dev": _Part("val", "dev_splits_complete", 1109),
    "test": _Part("test", "output_repeated_splits_test", 2610),
}
# The published number of each class over all parts.
CLASS_COUNTS = {
    "neutral": 6436,
    "happiness": 2308,
    "surprise": 1636,
    "anger": 1607,
    "sadness": 1002,
    "disgust": 361,
    "fear": 358,
}
# Clips that hold something else than their row says, with what is known about them.
WRONGLY_CUT = {
    "test_dia38_utt4": "is cut wrongly: the clip of one utterance lasts 305 s",
    "test_dia220_utt0": "is cut wrongly: the clip of one utterance lasts 235 s",
    "train_dia309_utt0": "is cut wrongly: the clip of one utterance lasts 41 s",
}
# Clips of the release that cannot be converted.
UNUSABLE = {
    "train_dia125_utt3": "its video in the release is known to be unreadable",
    "dev_dia110_utt7": "its video is known to be missing in the release",
}
NOISY = ("train_dia793_utt0", "train_dia164_utt5", "train_dia682_utt1", "train_dia529_utt2")
OUT_OF_STEP = ("241", "757")  # dialogues of train

_EMOTIONS = {
    "neutral": "neutral",
    "joy": "happiness",
    "surprise": "surprise",
    "anger": "anger",
    "sadness": "sadness",
    "disgust": "disgust",
    "fear": "fear",
}
_SENTIMENTS = ("positive", "negative", "neutral")
_SOURCE = "perceived: majority of 3 annotators who saw and read the scene, every utterance has a class"
MELD_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("emotion", tuple(CLASS_COUNTS), {name: name for name in CLASS_COUNTS}, source=_SOURCE),
        LabelScheme("sentiment", _SENTIMENTS, {name: name for name in _SENTIMENTS}, source=_SOURCE),
    )
}

_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode")
# Where a clip may lie. `{folder}` is the one of the release, `{clip}` such as dia6_utt1.
_PLACES = (
    "{folder}/{clip}",
    "waves/{folder}/{clip}",
    "{part}/{clip}",
    "waves/{part}/{clip}",
    "waves/{part}_{clip}",
    "{part}_{clip}",
)
# Apostrophes and dashes of Windows-1252, which the tables have as control characters.
_WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
_CLIP = re.compile(r"(?:(?:train|dev|test)_)?dia\d+_utt\d+")


def read_meld(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the tables and clips below `data_dir`.

    The scheme `emotion` (the default) has seven classes, `sentiment` three. Splits are the official ones. `speaker` is
    the name in the table in its first spelling, which is no more than a label of convenience: it also says Woman, All
    or Both, and some people have two. `session` is the episode, `text` an id of the words.

    Raises:
      InputError: a table is missing, only videos are there (the message has the command that converts them), the
        scheme is unknown, or a row cannot be read (the message quotes it).
    """
    scheme = find_scheme("meld", MELD_SCHEMES, labels, default="emotion")
    root = require_folder(data_dir, "MELD", "the folder with train_sent_emo.csv and the converted clips")
    utterances: list[Utterance] = []
    speakers: dict[str, str] = {}  # by key, in the first spelling
    spellings: set[str] = set()
    notes = []
    for part in PARTS:
        table = require_path(root, "MELD", f"{part}_sent_emo.csv", f"data/MELD/{part}_sent_emo.csv")
        place = _find_place(root, part)
        rows = list(_read_rows(table, part, os.path.join(root, place), scheme.name == "sentiment", speakers, spellings))
        utterances += rows
        notes += _describe_other_files(root, place, part, {utterance.id for utterance in rows})
    counts = Counter(utterance.id.partition("_")[0] for utterance in utterances)
    expected = {part: facts.rows for part, facts in PARTS.items()}
    if scheme.name == "emotion":
        counts.update(utterance.label for utterance in utterances if utterance.label is not None)
        expected |= CLASS_COUNTS
    notes = [compare_counts("MELD", "counts of rows", expected, counts), *notes]
    notes += _remarks(utterances, len(spellings) - len(speakers))
    classified, outside = classify(map(Labelled, sorted(utterances, key=lambda utterance: utterance.id)), scheme)
    wrong = [Dropped(u.id, u.path, f"{u.place}: {u.id} {WRONGLY_CUT[u.id]}") for u in classified if u.id in WRONGLY_CUT]
    present, absent = separate_absent(u for u in classified if u.id not in WRONGLY_CUT)
    absent = [
        Dropped(d.id, d.path, f"{d.reason} ({UNUSABLE[d.id]})", d.kind) if d.id in UNUSABLE else d for d in absent
    ]
    return Corpus(
        name="meld",
        classes=scheme.classes,
        vad_scale=(1.0, 5.0),  # unused: there is no VAD
        utterances=tuple(present),
        dropped=tuple(sorted((*wrong, *absent), key=lambda lost: lost.id)),
        notes=(*notes, *outside),
        label_source=scheme.source,
    )


def _find_place(root: str, part: str) -> str:
    """Returns the entry of `_PLACES`, filled but for the clip, in which a part's wav files are."""
    videos = ""
    for pattern in _PLACES:
        place = pattern.replace("{folder}", PARTS[part].folder).replace("{part}", part)
        folder, prefix = os.path.split(place)
        path = find_path(root, folder) if folder else root
        if path is None:
            continue
        place = os.path.join(os.path.relpath(path, root), prefix)
        names = os.listdir(path)
        start = prefix.replace("{clip}", "dia")
        if any(name.startswith(start) and name.endswith(".wav") for name in names):
            return place
        if any(name.startswith(start) and name.endswith(".mp4") for name in names):
            videos = videos or path
    if videos:
        raise InputError(
            f"{videos} holds videos (mp4), expected wav files beside or in place of them: for f in *.mp4; do ffmpeg -i "
            '"$f" -ac 1 -ar 16000 "${f%.mp4}.wav"; done'
        )
    folder = PARTS[part].folder
    raise InputError(f"no clips of MELD's part {part} in {root!r}: expected {folder}/dia0_utt0.wav or the like in it")


def _read_rows(
    table: str, part: str, place: str, sentiment: bool, speakers: dict[str, str], spellings: set[str]
) -> Iterator[Utterance]:
    first: dict[str, str] = {}
    for where, row in read_rows(table, None, _COLUMNS, free=("Utterance", "Speaker")):
        name = clean(row["Speaker"].translate(_WINDOWS))
        for column in ("Dialogue_ID", "Utterance_ID", "Season", "Episode"):
            if not row[column].isascii() or not row[column].isdigit():
                raise InputError(f"{where}: {column} is {show(row[column])}, expected a whole number")
        clip = f"dia{int(row['Dialogue_ID'])}_utt{int(row['Utterance_ID'])}"
        id = f"{part}_{clip}"
        if id in first:
            raise InputError(f"{where}: {id} occurs twice, first in {first[id]}, expected once in each part")
        first[id] = where
        if not name:
            raise InputError(f"{where}: Speaker is blank, expected a name")
        spellings.add(name)
        column, words = (
            ("Sentiment", dict(zip(_SENTIMENTS, _SENTIMENTS, strict=True))) if sentiment else ("Emotion", _EMOTIONS)
        )
        yield Utterance(
            id=id,
            path=os.path.normpath(place.replace("{clip}", clip) + ".wav"),
            speaker=speakers.setdefault(spelling_key(name), name),
            corpus="meld",
            session=f"season{int(row['Season']):02d}_episode{int(row['Episode']):02d}",
            text=hash_words(row["Utterance"].translate(_WINDOWS)),
            label=_word(row, column, words, where),
            split=PARTS[part].split,
            place=where,
        )


def _word(row: Mapping[str, str], column: str, words: Mapping[str, str], where: str) -> str:
    word = row[column].casefold()
    if word not in words:
        raise InputError(f"{where}: {column} is {show(row[column])}, expected one of {', '.join(words)}")
    return words[word]


def _describe_other_files(root: str, place: str, part: str, ids: set[str]) -> list[str]:
    """Returns a note about wav files of a part that no row names: some copies of the release have them."""
    folder, pattern = os.path.split(os.path.join(root, place))
    others = []
    for name in sorted(os.listdir(folder)):
        stem, ending = os.path.splitext(name)
        if ending != ".wav" or stem.startswith("."):
            continue
        if pattern == "{clip}":
            id = f"{part}_{stem}" if _CLIP.fullmatch(stem) else None
        elif stem.startswith(("train_", "dev_", "test_")) and not stem.startswith(f"{part}_"):
            continue
        else:
            id = stem
        if id not in ids:
            others.append(name)
    if not others:
        return []
    return [f"{count(len(others), 'wav file')} of {part} without a row left out (the first: {', '.join(others[:5])})"]


def _remarks(utterances: list[Utterance], merged: int) -> list[str]:
    """Returns notes about channels, speakers and known faults of the clips that are listed."""
    ids = {utterance.id for utterance in utterances}
    notes = [
        "clips of more than one channel are mixed to mono by the plain mean of their channels; most of the release are "
        "5.1 with the voice in the centre, for which ffmpeg -ac 1 gives the usual downmix: convert with it",
        "speakers are names of the tables, labels of convenience: guests such as Woman are several people, some people "
        "have two names, and the official splits share most speakers and episodes",
    ]
    if merged:
        notes.append(f"{count(merged, 'name')} of speakers in another spelling are taken as the first spelling")
    if noisy := [id for id in NOISY if id in ids]:
        notes.append(f"known to be noisy, kept: {', '.join(noisy)}")
    in_train = {id.split("_")[1] for id in ids if id.startswith("train_")}
    if dialogues := [dialogue for dialogue in OUT_OF_STEP if f"dia{dialogue}" in in_train]:
        notes.append(
            f"known to have words out of step with the clips, kept: the dialogues {', '.join(dialogues)} of train"
        )
    return notes
