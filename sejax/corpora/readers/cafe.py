"""The reader of CaFE, the Canadian French emotional speech dataset (Gournay, Lahaie and Lefebvre, ACM MMSys 2018).

    CaFE_48k/Peur/Fort/12-P-2-5.wav    actor, emotion, intensity, sentence

The folders Colère and Dégoût have other names on most systems, since the archive does not say how they are encoded: the
file names say everything. One actor is fifteen years old.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

# The initials of the French words: colère, dégoût, joie, neutre, peur, surprise, tristesse.
LABELS = {
    "C": "anger",
    "D": "disgust",
    "J": "happiness",
    "N": "neutral",
    "P": "fear",
    "S": "surprise",
    "T": "sadness",
}
GENDERS = {f"{actor:02d}": "F" if actor % 2 == 0 else "M" for actor in range(1, 13)}
NAMES = [
    f"{actor}-{code}-{intensity}-{sentence}"
    for actor in GENDERS
    for code in LABELS
    for intensity in ("1" if code == "N" else "12")
    for sentence in "123456"
]

CAFE = FileNames(
    name="cafe",
    title="CaFE",
    example="Peur/Fort/12-P-2-5.wav",
    parts=f"actor 01 to 12, emotion of {' '.join(LABELS)}, intensity 1 or 2, sentence 1 to 6",
    pattern=re.compile(rf"(?P<speaker>\d\d)-(?P<code>[{''.join(LABELS)}])-[12]-(?P<text>[1-6])"),
    lookups={"label": ("code", LABELS), "gender": ("speaker", GENDERS)},
    counts={label: 72 if label == "neutral" else 144 for label in LABELS.values()},
    folders=("**",),
    endings=(".wav", ".aiff", ".aif"),  # the release at 192 kHz is AIFF
    speakers=dict.fromkeys(GENDERS, 78),
    names=lambda _: NAMES,
)


def read_cafe(data_dir: str, labels: str = "default") -> Corpus:
    """Reads CaFE by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(CAFE, data_dir, labels)
