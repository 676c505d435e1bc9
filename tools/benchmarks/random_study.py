"""A study of random features with IEMOCAP's durations: the cost of a step does not depend on the values of features."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sejax.data.buckets import assemble
from sejax.data.order import epoch_order
from sejax.data.types import Data, Scale, Stream
from sejax.engine import epoch
from sejax.engine.augment import RATES, Augment
from sejax.engine.compiled import Wanted, compile_side_by_side
from sejax.engine.epoch import Chunk, Shared
from sejax.engine.runs import RunKey, Setting, count_steps, hparams_of, lay_out, run_sharding
from sejax.engine.step import Frozen, Network, Recipe, Run, StepMetrics
from sejax.engine.tasks import TASKS
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk

SHAPE = Path(__file__).parent.parent.parent / "sejax" / "corpora" / "readers" / "iemocap_shape.json"
OPTIONS = Path(__file__).parent / "default_options.json"
SPEAKERS, CLASSES, DIMENSIONS = 10, 4, 3
SAMPLING_RATE = 16_000
HUBERT = {"size": 768, "hop_length": 320}  # the stream "ssl"
STF_SIZE = 68
STATISTICS = 14  # of each value of a frame


def default_options(**changes: Any) -> dict[str, Any]:
    """Returns the options of `sejax.config` as nested dictionaries, some of them changed.

    They are read from a file, which a test compares with `default_config()`: a machine with a GPU need not have what
    `sejax.config` imports. The stream `ssl` stands for HuBERT's hidden states.
    """
    return json.loads(OPTIONS.read_text()) | changes


class StreamOptions(NamedTuple):
    """The shape of a stream and its encoder."""

    encoder: str
    layers: int
    stride: int
    size: int  # values of a frame
    hop_seconds: float


@dataclass(frozen=True)
class Study:
    """A study of the default model; `seconds`: the length of all utterances (0: IEMOCAP's durations)."""

    options: Mapping[str, Any]  # see `default_options`
    utterances: int = 5531
    seconds: float = 0.0

    @cached_property
    def streams(self) -> dict[str, StreamOptions]:
        """The study's streams by name, in order."""
        model, features = self.options["model"], self.options["features"]
        sizes = {"mfcc": features["mfcc"]["n_mfcc"], "mel": features["mel"]["n_mels"], "stf": STF_SIZE}
        streams = {}
        for name in self.options["streams"]:
            if name == "ssl":
                encoder, stride = model["encoder"]["hubert"], max(1, model["stride"] // 2)
                size, hop_length = HUBERT["size"], HUBERT["hop_length"]
            else:
                encoder, stride = model["encoder"][name], model["stride"]
                size, hop_length = sizes[name], features[name]["hop_length"]
            streams[name] = StreamOptions(encoder, model["layers"], stride, size, hop_length / SAMPLING_RATE)
        return streams


def durations(n: int) -> np.ndarray:
    """Returns the seconds of `n` utterances by the quantiles of IEMOCAP's classes; utterance i has class i mod 4."""
    corpus = json.loads(SHAPE.read_text())
    quantiles = np.array(corpus["duration_quantiles_percent"]) / 100
    seconds = np.empty(n)
    for label, shape in enumerate(corpus["by_class"].values()):
        count = len(range(label, n, CLASSES))
        seconds[label::CLASSES] = np.interp(
            (np.arange(count) + 0.5) / count, quantiles, shape["duration_seconds_quantiles"]
        )
    return seconds


def random_data(study: Study) -> Data:
    """Returns the arrays of the corpus, on the host. Speakers take turns."""
    return jax.tree.map(np.asarray, padded_data(study))


def padded_data(study: Study) -> Data:
    """Returns `random_data` whose frames are not read yet."""
    random = np.random.default_rng(0)
    n = study.utterances
    seconds = np.full(n, study.seconds) if study.seconds else random.permutation(durations(n))
    noise = random.standard_normal(1 << 22, np.float32)

    def frames(name: str, length: float) -> np.ndarray:
        shape = max(8, int(length / study.streams[name].hop_seconds)), study.streams[name].size
        start = random.integers(0, len(noise) - shape[0] * shape[1])
        return noise[start : start + shape[0] * shape[1]].reshape(shape)

    streams = {
        name: Stream(
            [[frames(name, length) for length in seconds]],
            random.standard_normal((n, 1, STATISTICS * stream.size), np.float32),
        )
        for name, stream in study.streams.items()
    }
    options = study.options
    data, _ = assemble(
        streams,
        encoded=tuple(study.streams),
        target=np.eye(CLASSES, dtype=np.float32)[np.arange(n) % CLASSES],
        vad=random.uniform(-1, 1, (n, DIMENSIONS)).astype(np.float32),
        n_buckets=options["buckets"],
        batch_size=options["batch_size"],
        trained=trained_of_folds(n),
        max_seconds=0.0 if study.seconds else options["max_seconds"],
        hop_seconds={name: stream.hop_seconds for name, stream in study.streams.items()},
        frames_dtype=jnp.dtype(options["frames_dtype"]),
    )
    return data


def trained_of_folds(utterances: int) -> np.ndarray:
    """Returns the training utterances of leave one speaker out, `[fold, utterance]`; the next speaker validates."""
    speaker, test = np.arange(utterances) % SPEAKERS, np.arange(SPEAKERS)[:, None]
    return (speaker != test) & (speaker != (test + 1) % SPEAKERS)


def random_runs(study: Study, n_runs: int) -> Run:
    """Returns runs `[run]` of leave one speaker out, one fold after the other; their steps are not known."""
    trained = trained_of_folds(study.utterances)

    def scales(factor: int) -> dict[str, Scale]:
        sizes = {name: (n_runs, factor * stream.size) for name, stream in study.streams.items()}
        return {name: Scale(np.zeros(size, np.float32), np.ones(size, np.float32)) for name, size in sizes.items()}

    return Run(
        hparams_of(run_keys(study, n_runs), (study.options["weighting"],)),
        trained=trained[np.arange(n_runs) % SPEAKERS],
        class_weight=np.ones((n_runs, CLASSES), np.float32),
        frame_scale=scales(1),
        statistic_scale=scales(STATISTICS),
    )


def run_keys(study: Study, n_runs: int) -> list[RunKey]:
    """Returns the keys of the runs, all of one seed and of the study's own setting."""
    setting = Setting("", {**study.options, "loss.focal_gamma": 0.0, **{f"augment.{name}": 0.0 for name in RATES}})
    return [RunKey(run, run % SPEAKERS, 0, setting) for run in range(n_runs)]


def joint_model(study: Study) -> JointModel:
    """Returns the model of the study."""
    model = study.options["model"]
    trunk = Trunk(
        tuple(StreamSpec(name, s.encoder, s.layers, s.stride) for name, s in study.streams.items()),
        dtype=jnp.dtype(study.options["compute_dtype"]),
        **{name: model[name] for name in ("width", "fused", "heads", "self_attention", "co_attention", "statistics")},
    )
    return JointModel(trunk, Heads(classes=CLASSES, dimensions=DIMENSIONS))


def random_network(study: Study) -> Network:
    """Returns the model of the study and the recipe that trains it."""
    return Network(joint_model(study), recipe_of(study.options))


def recipe_of(options: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a study's options, all of whose runs have one weighting scheme."""
    return Recipe(
        clip_norm=options["clip_norm"],
        vad_loss=options["loss"]["vad"],
        averaging=options["averaging"],
        augment=Augment.of(options["augment"]),
        tasks=TASKS[tuple(options["tasks"])],
        schemes=(options["weighting"],),
        gradients_at=options["gradients_at"],
    )


class Epoch:
    """A compiled epoch of stacked runs. Each call trains one epoch and continues from `states`, those of each program.

    Args:
      slots: runs that are trained side by side, shared by the devices.
      solo: compiles a program of one run; a call then trains one run after the other.
    """

    def __init__(
        self, study: Study, data: Data, n_runs: int, *, slots: int, devices: int = 1, solo: bool = False
    ) -> None:
        options, runs = study.options, random_runs(study, n_runs)
        order = epoch_order(
            [bucket.utterance for bucket in data.buckets],
            orders=[(0, trained) for trained in runs.trained],
            epoch=1,
            batch_size=options["batch_size"],
            views=1,
        )
        numbers = {name: options[name] for name in ("epochs", "warmup")}
        self.steps, steps = count_steps(order, None, runs=n_runs, final=0, **numbers)
        self.flops = n_runs * sum(
            int(count.sum()) * step_flops(study, {s: x.shape[2] for s, x in bucket.frames.items()})
            for bucket, count in zip(data.buckets, order.taken, strict=True)
        )
        network = random_network(study)
        runs = runs._replace(steps=steps)
        by_run = run_sharding(jax.local_devices()[:devices])
        replicated = NamedSharding(by_run.mesh, PartitionSpec())
        turns = epoch.parts(1, order, together=jax.default_backend() == "cpu")
        all_frames, parts = jax.device_put((Shared(data, Frozen({}, {})), [part for _, part in turns]), replicated)
        self._shared, buckets = epoch.without_frames(all_frames), all_frames.data.buckets
        self._parts = [
            (numbers, tuple(buckets[n] for n in numbers), part) for (numbers, _), part in zip(turns, parts, strict=True)
        ]

        programs = [[run] for run in range(n_runs)] if solo else [list(range(n_runs))]
        keys = run_keys(study, n_runs)
        layouts = [lay_out([keys[run] for run in members], slots=1 if solo else slots) for members in programs]
        self._by_run = by_run
        self._chunks, self.states = [], []
        for members, layout in zip(programs, layouts, strict=True):
            rows = np.array(members, np.int32)
            seed = jax.device_put(layout.seed.astype(np.int32), replicated)
            stacked, order_row = jax.device_put(
                (jax.tree.map(lambda x, place=rows[layout.run]: x[place], runs), rows[layout.run]), by_run
            )
            chunk = Chunk(stacked, order_row, seed)
            states = jax.device_put(epoch.init_runs(chunk, all_frames, {}, network=network), by_run)
            no_metrics = StepMetrics.none(*layout.run.shape, self.steps, len(network.recipe.tasks))
            self._metrics = jax.device_put(no_metrics, by_run)
            self.states.append(states)
            self._chunks.append((chunk, jax.device_put(np.int32(len(layout.seed)), replicated)))
        began = time.perf_counter()
        chunk, n_chunks = self._chunks[0]
        self.leaves = epoch.leaves_of(chunk, all_frames, {}, network=network)
        network = replace(network, leaves=self.leaves)
        of_all, static = (states, self._metrics, chunk, self._shared), {"network": network, "by_run": by_run}
        self._train_part = compile_side_by_side(
            {
                numbers: Wanted(epoch.train_part, (*of_all, buckets, part, n_chunks), static)
                for numbers, buckets, part in self._parts
            }
        )
        self.compile_seconds = time.perf_counter() - began

    def __call__(self) -> None:
        for place, (chunk, n_chunks) in enumerate(self._chunks):
            states, metrics = self.states[place], self._metrics
            for numbers, buckets, part in self._parts:
                states, metrics = self._train_part[numbers](
                    states, metrics, chunk, self._shared, buckets, part, n_chunks
                )
                states, metrics = jax.device_put((states, metrics), self._by_run)
            self.states[place] = jax.block_until_ready(states)


def step_flops(study: Study, frames: Mapping[str, int]) -> float:
    """Returns the operations of the matrix products of a training step, two per multiplication.

    The backward pass takes twice as many as the forward pass.

    Args:
      frames: the number of frames of a padded utterance, by stream.
    """
    time = {name: -(-n // study.streams[name].stride) for name, n in frames.items()}
    w, heads_in, first, rest = study.options["model"]["width"], 0, 0, 0
    for name, t in time.items():
        stream = study.streams[name]
        attention = t * (4 * w * w + 2 * t * w)
        first += t * stream.stride * stream.size * w
        rest += {"lstm": 6 * t * w * w, "transformer": attention + 4 * t * w * w, "conv": 5 * t * w * w, "linear": 0}[
            stream.encoder
        ]
        rest += attention + 4 * t * w * w  # self-attention
        rest += t * w * w  # pooling
        heads_in += 2 * w + STATISTICS * stream.size
        for other, t_other in time.items():
            if other != name:
                rest += 2 * t * w * w + 2 * t_other * w * w + 2 * t * t_other * w
    first += heads_in * study.options["model"]["fused"]
    return 2.0 * study.options["batch_size"] * (2 * first + 3 * rest)
