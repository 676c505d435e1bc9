"""The reader of MSP-Podcast (Lotfian and Busso, IEEE Transactions on Affective Computing 10, 2019), from 1.7 to 2.0.

Its official splits are Train, Development, and one to three test sets. The test sets share speakers among each other;
the labels of Test3 are hidden since release 1.12: its files are kept without labels, see `sejax.corpora.submission`.
"""

from sejax.corpora.podcasts import Podcasts, Release, read_podcasts
from sejax.corpora.schema import Corpus

_CLASSES_1_8 = {
    "neutral": 26_009,
    "happiness": 14_285,
    "no agreement": 14_199,
    "surprise": 4_084,
    "contempt": 3_644,
    "anger": 3_218,
    "sadness": 2_649,
    "disgust": 2_593,
    "fear": 1_544,
    "other": 817,
}
MSP_PODCAST = Podcasts(
    name="msp_podcast",
    title="MSP-Podcast",
    source="perceived: plurality of at least 5 raters, no class for a tie",
    releases=(
        Release("1.7", 62_140, {}),
        Release("1.8", 73_042, {"train": 44_879, "val": 7_800, "test1": 15_326, "test2": 5_037, **_CLASSES_1_8}),
        Release("1.10", 104_267, {}),
        Release("of the 2025 challenge", 116_221, {"train": 84_260, "val": 31_961}, labelled_only=True),
        Release("1.11", 151_654, {"train": 84_030, "val": 19_815, "test1": 30_647, "test2": 14_815, "test3": 2_347}),
        Release("1.12", 207_136, {}),
        Release("2.0", 264_705, {}, labelled_only=True),
    ),
    faults={"MSP-PODCAST_1023_0235": "is stereo at 44.1 kHz, the others are mono at 16 kHz: it is mixed and resampled"},
)


def read_msp_podcast(data_dir: str, labels: str = "default") -> Corpus:
    """Reads a release: see `read_podcasts`. The label schemes are `eight` (default), `four` and `soft`."""
    return read_podcasts(MSP_PODCAST, data_dir, labels)
