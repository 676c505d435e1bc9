"""The reader of SAVEE, the Surrey Audio-Visual Expressed Emotion database (Haq and Jackson, AVSP 2009).

    AudioData/DC/a01.wav    speaker, emotion, number; other copies have DC_a01.wav or DCa01.wav

Three of the fifteen sentences are common to all classes and carry other numbers in each: the text is known within a
class only.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

SPEAKERS = ("DC", "JE", "JK", "KL")
LABELS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SENTENCES = {code: 30 if code == "n" else 15 for code in LABELS}  # of each speaker
NAMES = [
    f"{speaker}_{code}{number:02d}"
    for speaker in SPEAKERS
    for code, n in SENTENCES.items()
    for number in range(1, n + 1)
]

SAVEE = FileNames(
    name="savee",
    title="SAVEE",
    example="DC/sa01.wav",
    parts=f"speaker of {' '.join(SPEAKERS)} as the folder or in the name, emotion of {' '.join(LABELS)}, number",
    pattern=re.compile(rf"(?:[^/]*/)?(?P<speaker>{'|'.join(SPEAKERS)})[/_]?(?P<code>sa|su|[adfhn])(?P<number>\d\d)"),
    lookups={"label": ("code", LABELS), "gender": ("speaker", dict.fromkeys(SPEAKERS, "M"))},
    formats={"id": "{speaker}_{code}{number}", "text": "{code}{number}"},
    counts={LABELS[code]: len(SPEAKERS) * n for code, n in SENTENCES.items()},
    folders=("**",),
    with_folder=True,
    speakers=dict.fromkeys(SPEAKERS, 120),
    names=lambda _: NAMES,
)


def read_savee(data_dir: str, labels: str = "default") -> Corpus:
    """Reads SAVEE by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(SAVEE, data_dir, labels)
