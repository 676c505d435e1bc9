"""The reader of ESD, the Emotional Speech Dataset (Zhou et al., Speech Communication 137, 2022), Mandarin and English.

    0001/Angry/0001_000351.wav        speaker, number; older archives have 0001/Angry/{train,evaluation,test}/
    0001/0001.txt                     number, words and emotion of each utterance

The number says emotion and sentence: 350 sentences of each language are read in the five emotions by its ten speakers.
The parts train, evaluation and test are made for voice conversion: all speakers are in each.

The transcripts are optional. They show whether the sentences are parallel as the numbers say.
"""

import codecs
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from sejax.corpora.filenames import FileNames, find_utterances, label_found
from sejax.corpora.files import read_bytes
from sejax.corpora.labels import Labelled
from sejax.corpora.schema import Corpus, Utterance
from sejax.corpora.trees import find_files, last_names
from sejax.errors import InputError
from sejax.host.wording import count

CLASSES = ("neutral", "anger", "happiness", "sadness", "surprise")  # in the order of the numbers
N_SENTENCES = 350
SPEAKERS = [f"{number:04d}" for number in range(1, 21)]
MANDARIN = SPEAKERS[:10]
MEN = ("0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020")
NUMBERS = [f"{number:06d}" for number in range(1, len(CLASSES) * N_SENTENCES + 1)]

# The last field of a transcript's line, which lines may lack.
_EMOTION = re.compile(r"\s(?:neutral|angry|happy|sad|surprise|中立|快乐|伤心|生气|惊喜)$", re.IGNORECASE)
_LINE = re.compile(r"\s*(\d{4}_\d{6})\s+(\S.*)")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

ESD = FileNames(
    name="esd",
    title="ESD",
    example="0001/Angry/0001_000351.wav",
    parts="speaker 0001 to 0020, number 000001 to 001750",
    pattern=re.compile(r"(?:(?P<part>train|evaluation|test)|[^/]*)/(?P<speaker>\d{4})_(?P<number>\d{6})"),
    lookups={
        "label": ("number", {number: CLASSES[i // N_SENTENCES] for i, number in enumerate(NUMBERS)}),
        "sentence": ("number", {number: f"{i % N_SENTENCES + 1:03d}" for i, number in enumerate(NUMBERS)}),
        "language": ("speaker", {speaker: "zh" if speaker in MANDARIN else "en" for speaker in SPEAKERS}),
        "gender": ("speaker", {speaker: "M" if speaker in MEN else "F" for speaker in SPEAKERS}),
        "split": ("part", {"train": "train", "evaluation": "val", "test": "test"}),
    },
    formats={"text": "{language}{sentence}"},
    counts=dict.fromkeys(CLASSES, len(SPEAKERS) * N_SENTENCES),
    folders=("**",),
    with_folder=True,
    speakers=dict.fromkeys(SPEAKERS, len(NUMBERS)),
    names=lambda _: (f"{speaker}_{number}" for speaker in SPEAKERS for number in NUMBERS),
)


def read_esd(data_dir: str, labels: str = "default") -> Corpus:
    """Reads ESD by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    scheme = ESD.find_scheme(labels)
    found = find_utterances(ESD, data_dir)
    found = found._replace(notes=[*found.notes, *_compare_words(found.utterances, data_dir)])
    return label_found(ESD, found, map(Labelled, found.utterances), scheme)


def _compare_words(utterances: Sequence[Utterance], data_dir: str) -> list[str]:
    """Compares the words of the utterances of one text and returns notes."""
    speakers = {utterance.speaker for utterance in utterances}
    files = find_files(data_dir, {f"{speaker}.txt" for speaker in speakers})
    notes = []
    if lacking := sorted(speaker for speaker in speakers if f"{speaker}.txt" not in files):
        notes.append(f"no transcripts of the speakers {', '.join(lacking)}: their texts are known by the numbers only")
    words = dict[str, str]()
    for path in files.values():
        try:
            words |= _read_words(path)
        except InputError as error:
            notes.append(f"a transcript is left out: {error}")
    transcribed = [utterance for utterance in utterances if f"{utterance.speaker}.txt" in files]
    if unread := [utterance.id for utterance in transcribed if utterance.id not in words]:
        notes.append(
            f"{count(len(unread), 'utterance')} without a readable line in the transcripts (the first: {unread[0]})"
        )
    versions = defaultdict[str | None, Counter[str]](Counter)
    for utterance in transcribed:
        if utterance.id in words:
            versions[utterance.text][words[utterance.id]] += 1
    usual = {text: counts.most_common(1)[0][0] for text, counts in versions.items()}
    if other := [u.id for u in transcribed if u.id in words and words[u.id] != usual[u.text]]:
        notes.append(
            f"{count(len(other), 'utterance')} with other words in the transcripts than most of the same sentence (the "
            f"first: {other[0]}); the number decides the text"
        )
    return notes


def _read_words(path: str) -> dict[str, str]:
    """Returns the id of each utterance in a transcript -> its words without case, blanks and punctuation."""
    words = {}
    for line in _decode(read_bytes(path, "a transcript"), last_names(path)[1].removesuffix(".txt")).splitlines():
        if match := _LINE.fullmatch(line.strip()):
            words[match[1]] = re.sub(r"[\W_]+", "", _EMOTION.sub("", match[2])).casefold()
    return words


def _decode(data: bytes, speaker: str) -> str:
    """Returns the text of a speaker's transcript. Its encoding differs from file to file."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # GB 18030 accepts most of Latin-1 too: the language decides.
        return data.decode("gb18030" if speaker in MANDARIN else "latin-1", "replace")
