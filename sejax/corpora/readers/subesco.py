"""The reader of SUBESCO, the SUST Bangla emotional speech corpus (Sultana et al., PLoS ONE 16(4), 2021).

    M_02_NIPUN_S_5_ANGRY_3.wav    gender, number and name of the speaker, S, sentence, emotion, take

The numbers of women and men are the same: the speaker is gender and number. Files have 44.1 or 48 kHz.
"""

import re
from collections.abc import Collection

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

LABELS = {
    "ANGRY": "anger",
    "DISGUST": "disgust",
    "FEAR": "fear",
    "HAPPY": "happiness",
    "NEUTRAL": "neutral",
    "SAD": "sadness",
    "SURPRISE": "surprise",
}
SPEAKERS = [f"{gender}_{number:02d}" for gender in "FM" for number in range(1, 11)]


def _names(there: Collection[str]) -> set[str]:
    """Returns all recordings of the speakers that are there: their names are known from their files only."""
    people = {name.partition("_S_")[0] for name in there}
    sentences, takes = range(1, 11), range(1, 6)
    return {
        f"{who}_S_{text}_{code}_{take}" for who in people for text in sentences for code in LABELS for take in takes
    }


SUBESCO = FileNames(
    name="subesco",
    title="SUBESCO",
    example="M_02_NIPUN_S_5_ANGRY_3.wav",
    parts=f"F or M, number and name of the speaker, S, sentence, emotion of {' '.join(LABELS)}, take",
    pattern=re.compile(
        rf"(?P<speaker>(?P<gender>[FM])_(?:0[1-9]|10))_[A-Z]+_S_(?P<text>[1-9]|10)_(?P<code>{'|'.join(LABELS)})_[1-5]"
    ),
    lookups={"label": ("code", LABELS)},
    counts=dict.fromkeys(LABELS.values(), 1000),
    folders=("**",),
    renamed={"F_02_MONIKA_S_2_SURPRISE_3]": "F_02_MONIKA_S_2_SURPRISE_3"},
    speakers=dict.fromkeys(SPEAKERS, 350),
    names=_names,
)


def read_subesco(data_dir: str, labels: str = "default") -> Corpus:
    """Reads SUBESCO by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(SUBESCO, data_dir, labels)
