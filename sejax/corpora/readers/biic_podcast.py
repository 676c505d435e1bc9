"""The reader of BIIC-Podcast (Upadhyay et al., ACII 2023), Taiwanese Mandarin, release 1.01.

It has the form of MSP-Podcast. Names: BIIC-PODCAST_1000_0321_0003.wav. Where the label file has no EmoClass but a
column with the share of each class (as EMO-SUPERB redistributes it, smoothed), the largest share is the class.
"""

from sejax.corpora.podcasts import Podcasts, Release, read_podcasts
from sejax.corpora.schema import Corpus

BIIC_PODCAST = Podcasts(
    name="biic_podcast",
    title="BIIC-Podcast",
    source="perceived: plurality of 3.3 raters on average (students), no class for a tie",
    releases=(Release("1.01", 70_000, {"train": 48_815, "val": 10_845, "test": 10_340}),),
    faults={},
)


def read_biic_podcast(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the release: see `read_podcasts`. The label schemes are `eight` (default), `four` and `soft`."""
    return read_podcasts(BIIC_PODCAST, data_dir, labels)
