"""The reader of EMOVO, the Italian emotional speech database (Costantini et al., LREC 2014).

EMOVO/f1/gio-f1-b2.wav    emotion, speaker, sentence (b short, l long, n nonsense, d question)
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

# The first letters of the Italian words: neutro, disgusto, gioia, paura, rabbia, sorpresa, tristezza.
LABELS = {
    "neu": "neutral",
    "dis": "disgust",
    "gio": "happiness",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
}
SPEAKERS = ("f1", "f2", "f3", "m1", "m2", "m3")
SENTENCES = [f"{kind}{number}" for kind, n in {"b": 3, "l": 4, "n": 5, "d": 2}.items() for number in range(1, n + 1)]
NAMES = [f"{code}-{speaker}-{sentence}" for code in LABELS for speaker in SPEAKERS for sentence in SENTENCES]

EMOVO = FileNames(
    name="emovo",
    title="EMOVO",
    example="f1/gio-f1-b2.wav",
    parts=f"emotion of {' '.join(LABELS)}, speaker of {' '.join(SPEAKERS)}, sentence",
    pattern=re.compile(
        rf"(?P<code>{'|'.join(LABELS)})-(?P<speaker>{'|'.join(SPEAKERS)})-(?P<text>{'|'.join(SENTENCES)})"
    ),
    lookups={
        "label": ("code", LABELS),
        "gender": ("speaker", {speaker: speaker[0].upper() for speaker in SPEAKERS}),
    },
    counts=dict.fromkeys(LABELS.values(), 84),
    folders=("**",),
    speakers=dict.fromkeys(SPEAKERS, 98),
    names=lambda _: NAMES,
)


def read_emovo(data_dir: str, labels: str = "default") -> Corpus:
    """Reads EMOVO by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(EMOVO, data_dir, labels)
