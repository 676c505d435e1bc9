"""The reader of TESS, the Toronto emotional speech set (Dupuis and Pichora-Fuller, 2010).

    OAF_angry/OAF_back_angry.wav    the older (OAF) or the younger (YAF) actress, word, emotion

The folders are spelt in several ways, or there are none: the file names say everything.
"""

import re
from collections.abc import Collection

from sejax.corpora.filenames import Fault, FileNames, read_by_filename
from sejax.corpora.schema import Corpus

LABELS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "ps": "pleasant_surprise",
    "sad": "sadness",
}


def _names(there: Collection[str]) -> set[str]:
    """Returns each word that is there in all classes by both actresses."""
    words = {name.split("_")[1] for name in there}
    return {f"{speaker}_{word}_{code}" for speaker in ("OAF", "YAF") for word in words for code in LABELS}


TESS = FileNames(
    name="tess",
    title="TESS",
    example="OAF_angry/OAF_back_angry.wav",
    parts=f"OAF or YAF, word, emotion of {' '.join(LABELS)}",
    pattern=re.compile(rf"(?P<speaker>[OY]AF)_(?P<text>[a-z]+)_(?P<code>{'|'.join(LABELS)})"),
    lookups={"label": ("code", LABELS), "gender": ("speaker", {"OAF": "F", "YAF": "F"})},
    counts=dict.fromkeys(LABELS.values(), 400),
    folders=("**",),
    renamed={"OA_bite_neutral": "OAF_bite_neutral"},
    copies=True,  # a copy of Kaggle holds the tree twice
    speakers={"OAF": 1400, "YAF": 1400},
    names=_names,
    faults=(
        Fault(("OAF_food_fear",), "OAF_food_fear is sampled at 96 kHz in the release, all others at 24,414 Hz"),
        Fault(
            ("YAF_germ_angry",),
            "YAF_germ_angry is AIFF audio under the name of a wav file in the release, and is read as such",
        ),
        Fault(
            ("YAF_neat_fear",),
            "YAF_neat_fear is AIFF audio under the name of a wav file in the release, and is read as such",
        ),
    ),
)


def read_tess(data_dir: str, labels: str = "default") -> Corpus:
    """Reads TESS by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(TESS, data_dir, labels)
