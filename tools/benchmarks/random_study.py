"""A study of random features with IEMOCAP's durations: what a step costs does not depend on what it hears."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sejax.data.buckets import assemble
from sejax.data.order import epoch_order
from sejax.data.types import Data, Scale, Stream
from sejax.engine import epoch as program
from sejax.engine.augment import Augment
from sejax.engine.devices import compile_lowered
from sejax.engine.runs import RunKey, Setting, lay_out, run_sharding
from sejax.engine.step import Frozen, HParams, Recipe, Run
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk

SHAPE = Path(__file__).parent.parent.parent / "sejax" / "corpora" / "iemocap_shape.json"
SPEAKERS = 10
ENCODERS = {"mfcc": "lstm", "stf": "transformer", "mel": "conv", "ssl": "linear"}
FEATURES = {"mfcc": 40, "stf": 68, "mel": 128, "ssl": 768}
HOP_SECONDS = {"mfcc": 0.01, "stf": 0.01, "mel": 0.01, "ssl": 0.02}
STRIDE = {"mfcc": 4, "stf": 4, "mel": 4, "ssl": 2}
WIDTH, FUSED = 64, 256


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
    frames_dtype: str = "float16"
    compute_dtype: str = "float32"


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
        frames_dtype=jnp.dtype(study.frames_dtype),
    )
    return jax.tree.map(np.asarray, data)


def random_runs(study: Study, n_runs: int) -> Run:
    """Runs `[run]` of leave one speaker out, one fold after the other."""
    speaker = np.arange(study.utterances) % SPEAKERS
    test = np.arange(n_runs)[:, None] % SPEAKERS

    def column(value: float) -> np.ndarray:
        return np.full(n_runs, value, np.float32)

    def scales(factor: int) -> dict[str, Scale]:
        sizes = {name: (n_runs, factor * FEATURES[name]) for name in study.streams}
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
            weighting=np.zeros(n_runs, np.int32),
        ),
        trained=(speaker != test) & (speaker != (test + 1) % SPEAKERS),
        class_weight=np.ones((n_runs, 4), np.float32),
        frame_scale=scales(1),
        statistic_scale=scales(14),
    )


def joint_model(study: Study) -> JointModel:
    return JointModel(
        Trunk(
            tuple(StreamSpec(name, ENCODERS[name], 1, STRIDE[name]) for name in study.streams),
            width=WIDTH,
            fused=FUSED,
            heads=4,
            self_attention=True,
            co_attention=True,
            statistics=True,
            dtype=jnp.dtype(study.compute_dtype),
        ),
        Heads(classes=4, dimensions=3),
    )


class Epoch:
    """A compiled epoch of stacked runs; every call continues where the last one ended.

    Called it trains all runs at once. `solo` is the other way: the program holds one run, and a call trains one
    after the other.
    """

    def __init__(self, study: Study, data: Data, n_runs: int, *, slots: int, devices: int = 1, solo: bool = False):
        """`slots`: runs side by side, shared by so many devices."""
        runs = random_runs(study, n_runs)
        order = epoch_order(
            [bucket.utterance for bucket in data.buckets],
            orders=[(0, own) for own in runs.trained],
            epoch=1,
            batch_size=study.batch_size,
            views=1,
        )
        self.steps = sum(rows.shape[1] * rows.shape[2] for rows in order.rows)
        self.flops = n_runs * sum(
            rows.shape[1] * rows.shape[2] * step_flops(study, {s: x.shape[2] for s, x in bucket.frames.items()})
            for bucket, rows in zip(data.buckets, order.rows, strict=True)
        )
        recipe = Recipe(
            total_steps=30 * self.steps,
            warmup_steps=3 * self.steps,
            clip_norm=1.0,
            vad_loss="ccc",
            averaging=0.99,
            augment=Augment(2, 20, 2, 0.15),
            tasks=("class", "vad") if study.tasks == 2 else ("class", "valence", "arousal", "dominance"),
            schemes=(study.scheme,),
            gradients_at=study.gradients_at,
            epoch_steps=self.steps,
        )
        model, nothing = joint_model(study), Frozen({}, {})
        by_run = run_sharding(jax.local_devices()[:devices])
        shared = NamedSharding(by_run.mesh, PartitionSpec())
        data, order, epoch = jax.device_put((data, order, np.int32(1)), shared)

        programs = [[run] for run in range(n_runs)] if solo else [list(range(n_runs))]
        keys = [RunKey(run, run % SPEAKERS, 0, Setting("", {})) for run in range(n_runs)]
        layouts = [lay_out([keys[run] for run in own], slots=1 if solo else slots) for own in programs]
        self._arguments, self._states = [], []
        for own, layout in zip(programs, layouts, strict=True):
            rows = np.array(own, np.int32)
            seed = jax.device_put(layout.seed.astype(np.int32), shared)
            stacked, order_row = jax.device_put(
                (jax.tree.map(lambda x, place=rows[layout.run]: x[place], runs), rows[layout.run]), by_run
            )
            states = program.init_runs(stacked, data, nothing, {}, seed, model=model, recipe=recipe)
            self._states.append(jax.device_put(states, by_run))
            self._arguments.append((stacked, data, nothing, order, order_row, seed, epoch))
        self._by_run = by_run
        began = time.perf_counter()
        lowered = program.train_epoch.lower(self._states[0], *self._arguments[0], model=model, recipe=recipe)
        self._train_epoch = compile_lowered(lowered)
        self.compile_seconds = time.perf_counter() - began

    def __call__(self) -> None:
        for place, arguments in enumerate(self._arguments):
            states, _ = self._train_epoch(self._states[place], *arguments)
            self._states[place] = jax.device_put(jax.block_until_ready(states), self._by_run)


def step_flops(study: Study, frames: Mapping[str, int]) -> float:
    """Of the matrix products of a training step, two per multiplication; backwards they are twice those forwards.

    Args:
      frames: a padded utterance's, by stream.
    """
    time = {name: -(-n // STRIDE[name]) for name, n in frames.items()}
    w, heads_in, first, rest = WIDTH, 0, 0, 0
    for name, t in time.items():
        attention = t * (4 * w * w + 2 * t * w)
        first += t * STRIDE[name] * FEATURES[name] * w
        rest += {"lstm": 6 * t * w * w, "transformer": attention + 4 * t * w * w, "conv": 5 * t * w * w, "linear": 0}[
            ENCODERS[name]
        ]
        rest += attention + 4 * t * w * w  # self-attention
        rest += t * w * w  # pooling
        heads_in += 2 * w + 14 * FEATURES[name]
        for other, t_other in time.items():
            if other != name:
                rest += 2 * t * w * w + 2 * t_other * w * w + 2 * t * t_other * w
    first += heads_in * FUSED
    return 2.0 * study.batch_size * (2 * first + 3 * rest)
