"""The reader of EmoDB, the Berlin Database of Emotional Speech (Burkhardt et al., Interspeech 2005).

The folder or archive may also hold `erkennung.txt`: the share of 20 listeners who recognised the intended emotion,
and of those who found it natural. Neither is a distribution over the classes, so the file is not read.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "M"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "F"),
}
# The initials of the German words: Wut, Langeweile, neutral, Freude, Angst, Trauer, Ekel.
LABELS = {
    "W": "anger",
    "L": "boredom",
    "N": "neutral",
    "F": "happiness",
    "A": "fear",
    "T": "sadness",
    "E": "disgust",
}
CLASS_COUNTS = {
    "anger": 127,
    "boredom": 81,
    "neutral": 79,
    "happiness": 71,
    "fear": 69,
    "sadness": 62,
    "disgust": 46,
}

EMODB = FileNames(
    name="emodb",
    title="EmoDB",
    example="wav/03a01Fa.wav",
    parts=f"speaker of {' '.join(sorted(GENDERS))}, text, emotion, version",
    pattern=re.compile(rf"(?P<speaker>{'|'.join(GENDERS)})(?P<text>[ab]\d\d)(?P<code>[{''.join(LABELS)}])[a-z]"),
    lookups={"label": ("code", LABELS), "gender": ("speaker", GENDERS)},
    counts=CLASS_COUNTS,
    folders=("wav", "."),
)


def read_emodb(data_dir: str, labels: str = "default") -> Corpus:
    """Reads EmoDB by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(EMODB, data_dir, labels)
