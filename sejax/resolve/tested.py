"""The corpora that a trained model is tested on, each by itself, and the options of a config that such a test has."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ml_collections import ConfigDict

from sejax.config import check_config
from sejax.corpora.common_classes import without_empty_classes
from sejax.corpora.join import read_each
from sejax.corpora.schema import Corpus
from sejax.resolve.corpus import locate, read_one


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The corpora that a model is tested on, and the options of the config that a test has."""

    corpora: Sequence[Corpus]
    labels: str
    cache_dir: str
    workers: int  # processes that decode
    max_bad_fraction: float  # the largest share of unusable audio files without an error
    n_bootstrap: int  # draws of speakers for the intervals


def read_tested(config: ConfigDict) -> Tested:
    """Reads the corpora of a config, each by itself, and the options of a test.

    Raises:
      InputError: an option makes no sense, or a corpus cannot be read.
    """
    check_config(config)
    if config.corpora:
        corpora = read_each(config.corpora, config.labels, locate=partial(locate, config))
    else:
        corpora = [read_one(config)]
    return Tested(
        corpora=[without_empty_classes(corpus) for corpus in corpora],
        labels=config.labels,
        cache_dir=os.path.expanduser(config.cache_dir),
        workers=config.workers or os.cpu_count() or 1,
        max_bad_fraction=config.max_bad_fraction,
        n_bootstrap=config.bootstrap,
    )
