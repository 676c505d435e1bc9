"""The reader of ShEMO, the Sharif emotional speech database (Mohamad Nezami et al., Lang. Res. Eval. 53, 2019).

    female/F03S02.wav    F or M and the number of the speaker, emotion, number

The labels are those of 12 raters. The names of 162 audio files have another letter or number than the transcripts and
`shemo.json` (F01S23 where these have F01N12). The label is that of the audio file, and no transcript is read.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.schema import Corpus

# F is fear in the fourth place, and a woman in the first.
LABELS = {
    "A": "anger",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
    "W": "surprise",
}
CLASS_COUNTS = {"anger": 1059, "fear": 38, "happiness": 201, "neutral": 1028, "sadness": 449, "surprise": 225}

SHEMO = FileNames(
    name="shemo",
    title="ShEMO",
    example="female/F03S02.wav",
    parts=f"F or M and the number of the speaker, emotion of {' '.join(LABELS)}, number",
    pattern=re.compile(rf"(?P<speaker>(?P<gender>[FM])\d\d)(?P<code>[{''.join(LABELS)}])\d\d"),
    lookups={"label": ("code", LABELS)},
    counts=CLASS_COUNTS,
    folders=("**",),
    label_source="perceived: majority of 12 raters, utterances without one are not in the corpus",
    speakers=87,
)


def read_shemo(data_dir: str, labels: str = "default") -> Corpus:
    """Reads ShEMO by its file names: see `read_by_filename`. There is one label scheme, "default"."""
    return read_by_filename(SHEMO, data_dir, labels)
