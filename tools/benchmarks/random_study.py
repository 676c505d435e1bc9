"""A study of random features with IEMOCAP's durations: what a step costs does not depend on what it hears."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sejax import program
from sejax.data.load import Data, Stream, assemble, epoch_order
from sejax.models.joint import JointModel, StreamSpec
from sejax.runs import run_sharding
from sejax.step import Frozen, HParams, Recipe, Run, Scale

SHAPE = Path(__file__).parent.parent.parent / "sejax" / "corpora" / "iemocap_shape.json"
SPEAKERS = 10
ENCODERS = {"mfcc": "lstm", "stf": "transformer", "mel": "conv", "ssl": "linear"}
FEATURES = {"mfcc": 40, "stf": 68, "mel": 128, "ssl": 768}
HOP_SECONDS = {"mfcc": 0.01, "stf": 0.01, "mel": 0.01, "ssl": 0.02}
STRIDE = {"mfcc": 4, "stf": 4, "mel": 4, "ssl": 2}


@dataclass(frozen=True)
class Study:
    """The default model of `sejax.config`; `seconds`: all utterances that long (0: IEMOCAP's durations)."""

    streams: tuple[str, ...] = ("mfcc", "stf", "mel")
    utterances: int = 5531
    seconds: float = 0.0
    batch_size: int = 32
    buckets: int = 4
    scheme: str = "static"
    tasks: int = 2
    gradients_at: str = "representation"


def durations(n: int) -> np.ndarray:
    """Seconds of `n` utterances, by the quantiles of IEMOCAP's classes; the utterance's class is its number mod 4."""
    shape = json.loads(SHAPE.read_text())
    quantiles = np.array(shape["duration_quantiles_percent"]) / 100
    seconds = np.empty(n)
    for label, own in enumerate(shape["by_class"].values()):
        count = len(range(label, n, 4))
        seconds[label::4] = np.interp((np.arange(count) + 0.5) / count, quantiles, own["duration_seconds_quantiles"])
    return seconds


def random_data(study: Study) -> Data:
    """The arrays of the corpus, on the host. Speakers take turns; frames are cut at 15 s, as by default."""
    random = np.random.default_rng(0)
    n = study.utterances
    seconds = np.full(n, study.seconds) if study.seconds else random.permutation(durations(n))
    noise = random.standard_normal(1 << 22, np.float32)

    def frames(name: str, length: float) -> np.ndarray:
        shape = max(8, int(length / HOP_SECONDS[name])), FEATURES[name]
        start = random.integers(0, len(noise) - shape[0] * shape[1])
        return noise[start : start + shape[0] * shape[1]].reshape(shape)

    streams = {
        name: Stream(
            [[frames(name, length) for length in seconds]],
            random.standard_normal((n, 1, 14 * FEATURES[name]), np.float32),
        )
        for name in study.streams
    }
    data, _ = assemble(
        streams,
        encoded=study.streams,
        target=np.eye(4, dtype=np.float32)[np.arange(n) % 4],
        vad=random.uniform(-1, 1, (n, 3)).astype(np.float32),
        n_buckets=study.buckets,
        min_rows=study.batch_size,
        max_seconds=15.0 if not study.seconds else 0.0,
        hop_seconds={name: HOP_SECONDS[name] for name in study.streams},
    )
    return jax.tree.map(np.asarray, data)


def random_runs(study: Study, shape: tuple[int, int], *, first_fold: int = 0) -> Run:
    """Runs `[chunk, slot]` of leave one speaker out, one after the other from fold `first_fold` on."""
    number = first_fold + np.arange(shape[0] * shape[1]).reshape(shape)
    speaker = np.arange(study.utterances) % SPEAKERS
    test = number[..., None] % SPEAKERS

    def column(value: float) -> np.ndarray:
        return np.full(shape, value, np.float32)

    def scales(factor: int) -> dict[str, Scale]:
        sizes = {name: (*shape, factor * FEATURES[name]) for name in study.streams}
        return {name: Scale(np.zeros(size, np.float32), np.ones(size, np.float32)) for name, size in sizes.items()}

    return Run(
        HParams(
            learning_rate=column(1e-3),
            weight_decay=column(1e-2),
            dropout=column(0.3),
            statistics_dropout=column(0.3),
            label_smoothing=column(0.1),
            alpha=column(0.5),
            tau=column(1.0),
            weighting=np.zeros(shape, np.int32),
        ),
        trained=(speaker != test) & (speaker != (test + 1) % SPEAKERS),
        class_weight=np.ones((*shape, 4), np.float32),
        frame_scale=scales(1),
        statistic_scale=scales(14),
    )


def joint_model(study: Study) -> JointModel:
    return JointModel(
        tuple(StreamSpec(name, ENCODERS[name], 1, STRIDE[name]) for name in study.streams),
        classes=4,
        dimensions=3,
        width=64,
        fused=256,
        heads=4,
        self_attention=True,
        co_attention=True,
        statistics=True,
    )


def make_epoch(
    study: Study, data: Data, shape: tuple[int, int], *, devices: int = 1, first_fold: int = 0
) -> Callable[[], None]:
    """A compiled epoch of stacked runs; every call continues where the last one ended.

    Args:
      shape: chunks and slots.
      devices: the slots are shared by so many.
    """
    runs = random_runs(study, shape, first_fold=first_fold)
    trained = runs.trained.reshape(-1, study.utterances)
    order = epoch_order(
        [bucket.utterance for bucket in data.buckets],
        orders=[(0, own) for own in trained],
        epoch=1,
        batch_size=study.batch_size,
        views=1,
    )
    steps = sum(rows.shape[1] * rows.shape[2] for rows in order.rows)
    model = joint_model(study)
    recipe = Recipe(
        total_steps=30 * steps,
        warmup_steps=3 * steps,
        clip_norm=1.0,
        vad_loss="ccc",
        averaging=0.99,
        time_masks=2,
        time_mask_frames=20,
        feature_masks=2,
        feature_mask_share=0.15,
        tasks=("class", "vad") if study.tasks == 2 else ("class", "valence", "arousal", "dominance"),
        schemes=(study.scheme,),
        gradients_at=study.gradients_at,
        epoch_steps=steps,
    )
    by_run = run_sharding(jax.local_devices()[:devices])
    shared = NamedSharding(by_run.mesh, PartitionSpec())
    data, order = jax.device_put((data, order), shared)
    runs, order_row = jax.device_put((runs, np.arange(len(trained), dtype=np.int32).reshape(shape)), by_run)
    seed = jnp.zeros(shape[0], jnp.int32)
    frozen = Frozen({}, {})
    states = program.init_runs(runs, data, frozen, {}, seed, model=model, recipe=recipe)
    kept: list[Any] = [jax.device_put(states, by_run)]

    def epoch() -> None:
        states, _ = program.train_epoch(
            kept[0], runs, data, frozen, order, order_row, seed, jnp.int32(1), model=model, recipe=recipe
        )
        kept[0] = jax.device_put(jax.block_until_ready(states), by_run)

    return epoch
