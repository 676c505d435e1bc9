"""The classical baselines of a config: what `compare_svm` is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from sejax.config import BASELINE
from sejax.data.types import Stream
from sejax.engine.runs import RunKey, Setting
from sejax.errors import InputError
from sejax.pretrained.convert import Pretrained
from sejax.protocols.folds import Fold

MOST_TRAINED = 15_000
"""Training utterances of a fold, whose products of features are held: 1.8 GB."""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Classical baselines: their runs, one per fold, and the statistics that each is trained on."""

    runs: list[RunKey]  # numbered behind those of the study and its final ones
    features: Mapping[str, Float[np.ndarray, "utterance _statistic"]]  # by the name of the baseline
    balanced: bool  # whether classes weigh alike in training
    workers: int  # folds that are trained side by side, at most


def stream_of(baseline: str) -> str:
    """Returns the stream whose statistics a baseline is trained on."""
    return baseline.removesuffix(BASELINE)


def require_small(config: ConfigDict, folds: Sequence[Fold]) -> None:
    """Refuses folds that train on too many utterances for the baselines of a config.

    Raises:
      InputError: a fold trains on more than `MOST_TRAINED` utterances.
    """
    most = max(int(fold.train.sum()) for fold in folds)
    if config.baselines and most > MOST_TRAINED:
        raise InputError(
            f"config.baselines is {config.baselines}, expected () where a fold trains on more than {MOST_TRAINED:,} "
            f"utterances: one trains on {most:,}, and a support vector machine holds the products of all pairs"
        )


def make_baselines(
    config: ConfigDict,
    streams: Mapping[str, Stream],
    checkpoints: Mapping[str, Pretrained],
    folds: Sequence[Fold],
    *,
    first: int,
    workers: int,
) -> Baselines:
    """Returns the baselines of a config.

    Of a pretrained model they read the means over time of the hidden states that its option `layers` names.

    Args:
      config: all options.
      streams: the statistics by the name of the baseline, the original recordings first.
      checkpoints: the pretrained models, by stream.
      folds: of the study.
      first: the number of the first run.
      workers: folds that are trained side by side, at most.
    """
    features = {}
    for name in config.baselines:
        statistics, stream = streams[name].statistics[:, 0], stream_of(name)
        if stream in checkpoints:
            backbone = checkpoints[stream].backbone
            state = backbone.state(config.features.ssl[stream].layers)
            means = statistics.reshape(len(statistics), -1, 2, backbone.hidden)[:, :, 0]
            statistics = (means if state is None else means[:, state]).reshape(len(statistics), -1)
        features[name] = statistics
    points = [(name, fold) for name in config.baselines for fold in range(len(folds))]
    runs = [RunKey(first + place, fold, config.seed, Setting(name, {})) for place, (name, fold) in enumerate(points)]
    return Baselines(runs=runs, features=features, balanced=config.loss.class_weight == "balanced", workers=workers)
