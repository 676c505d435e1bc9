"""The reader of AESDD, the Acted Emotional Speech Dynamic Database (Vryzas et al., J. Audio Eng. Soc. 66, 2018), Greek.

    anger/a03 (3).wav    emotion, utterance, speaker

The text that comes with it speaks of five actors, the numbers of the speakers go to six. Their genders are not given.
Speaker 5 has second takes, `a06 (5)b.wav`.
"""

import re

from sejax.corpora.filenames import Fault, FileNames, read_by_filename
from sejax.corpora.schema import Corpus

LABELS = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"}
CLASS_COUNTS = {"anger": 121, "disgust": 122, "fear": 120, "happiness": 119, "sadness": 122}
# Without the file that cannot be read.
SPEAKER_COUNTS = {"1": 100, "2": 100, "3": 98, "4": 99, "5": 107, "6": 100}

AESDD = FileNames(
    name="aesdd",
    title="AESDD",
    example="anger/a03 (3).wav",
    parts=f"emotion of {' '.join(LABELS)}, utterance 01 to 20, speaker 1 to 6 in parentheses, of a second take a or b",
    pattern=re.compile(r"(?P<code>[adfhs])(?P<number>0[1-9]|1\d|20) ?\((?P<speaker>[1-6])\) ?(?P<take>[ab]?)"),
    lookups={"label": ("code", LABELS)},
    formats={"id": "{code}{number} ({speaker}){take}", "text": "{code}{number}"},
    counts=CLASS_COUNTS,
    folders=("**",),
    renamed={f"{name} (01)": f"{name} (1)" for name in ("d03", "f10", "f11", "f12", "f13")},
    speakers=SPEAKER_COUNTS,
    faults=(Fault(("s05 (3)",), "the release holds no readable audio in it", unusable=True),),
)


def read_aesdd(data_dir: str, labels: str = "default") -> Corpus:
    """Reads AESDD by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(AESDD, data_dir, labels)
