"""The reader of the JL corpus (James, Tian and Watson, Interspeech 2018), New Zealand English.

    Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/female1_angry_10a_1.wav

speaker, emotion, sentence with a or b, and 1 or 2. One of the last two is the session and the other the repetition;
which is not sure, so that neither is taken as the session.
"""

import re

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.labels import LabelScheme
from sejax.corpora.schema import Corpus

PRIMARY = {
    "angry": "anger",
    "sad": "sadness",
    "neutral": "neutral",
    "happy": "happiness",
    "excited": "excitement",
}
SECONDARY = ("anxious", "apologetic", "assertive", "concerned", "encouraging")  # they have no counterparts elsewhere
LABELS = {**PRIMARY, **{word: word for word in SECONDARY}}
SPEAKERS = {"female1": "F", "female2": "F", "male1": "M", "male2": "M"}
NAMES = [
    f"{speaker}_{code}_{sentence}{letter}_{digit}"
    for speaker in SPEAKERS
    for code in LABELS
    for sentence in range(1, 16)
    for letter in "ab"
    for digit in "12"
]


def _scheme(name: str, classes: tuple[str, ...]) -> LabelScheme:
    return LabelScheme(name, classes, {word: word for word in classes}, source="intended")


JL = FileNames(
    name="jl",
    title="JL corpus",
    example="JL(wav+txt)/female1_angry_10a_1.wav",
    parts=f"speaker of {' '.join(SPEAKERS)}, emotion of {' '.join(LABELS)}, sentence with a or b, 1 or 2",
    pattern=re.compile(
        rf"(?P<speaker>{'|'.join(SPEAKERS)})_(?P<code>{'|'.join(LABELS)})_(?P<text>[1-9]|1[0-5])[ab]_[12]"
    ),
    lookups={"label": ("code", LABELS), "gender": ("speaker", SPEAKERS)},
    counts=dict.fromkeys(LABELS.values(), 240),
    folders=("**",),
    schemes={
        "primary": _scheme("primary", tuple(PRIMARY.values())),
        "secondary": _scheme("secondary", SECONDARY),
    },
    words="all",
    default="primary",
    speakers=dict.fromkeys(SPEAKERS, 600),
    names=lambda _: NAMES,
)


def read_jl(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the JL corpus by its file names: see `read_by_filename`.

    Args:
      data_dir: see `read_by_filename`.
      labels: "primary" (default) has five emotions, "secondary" five others, "all" has both.
    """
    return read_by_filename(JL, data_dir, labels)
