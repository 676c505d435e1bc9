"""The reader of MESD, the Mexican Emotional Speech Database (Duville, Alonso-Valerdi and Ibarra-Zarate, EMBC 2021).

    Anger_C_A_abajo.wav    emotion, voice (female, male, child), list of words, word

The words of list A are said in all classes, those of list B in one class each: there the word tells the emotion. The
six children are 9.8 years old on average.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

CLASS_COUNTS = {"anger": 143, "disgust": 144, "fear": 144, "happiness": 144, "neutral": 143, "sadness": 144}
LABELS = {label.capitalize(): label for label in CLASS_COUNTS}

MESD = FileNames(
    name="mesd",
    title="MESD",
    example="Anger_C_A_abajo.wav",
    parts=f"emotion of {' '.join(LABELS)}, voice F, M or C, list of words A or B, word",
    pattern=re.compile(rf"(?P<code>{'|'.join(LABELS)})_(?P<speaker>(?P<gender>[FM])|C)_[AB]_(?P<text>.+)"),
    lookups={"label": ("code", LABELS)},
    counts=CLASS_COUNTS,
    folders=("**",),
    speakers={"F": 288, "M": 288, "C": 286},
    remarks=(
        "MESD does not say which of its 3 women, 2 men and 6 children speaks: the voice (F, M, C) is taken as the "
        "speaker, so that a test on new speakers is one on another kind of voice",
        "in list B of MESD's words each word belongs to one class: there the word tells the emotion",
    ),
)


def read_mesd(data_dir: str, labels: str = "default") -> Corpus:
    """Reads MESD by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(MESD, data_dir, labels)
