"""The runs of a bundle as one pure function from named arrays to named arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Num

from sejax.corpora.schema import DIMENSIONS, SAMPLING_RATE
from sejax.data.buckets import ROUND_FRAMES
from sejax.data.inputs import Input
from sejax.data.types import Batch
from sejax.engine.step import frozen_forward, predict_above
from sejax.features.registry import FEATURES
from sejax.inference.scoring import LENGTH_RATIO, SHORTEST, Runs
from sejax.nn.attention import attention_of_jax
from sejax.pretrained.extract import LARGEST, Wanted, hidden_states, load_wanted, read_settings

Arrays = Mapping[str, Num[Array, "batch ..."]]
Features = Callable[
    [Float32[Array, "batch samples"], Int32[Array, " batch"]], tuple[Array, Int32[Array, " batch"], Array | None]
]
"""From samples and their valid numbers to frames, their valid numbers, and statistics, if there are any."""

SAMPLES = "samples"
"""The input of pretrained models: audio at 16 kHz, full scale at -1 and 1."""
LONGEST_SECONDS = 30.0  # of an input, unless the model reads less
WITH_SAMPLES = 2.5  # the ratio of lengths where each file holds a pretrained model; `LENGTH_RATIO` elsewhere
SHORTEST_SAMPLES = 4 * SAMPLING_RATE  # likewise the shortest length


class Tensor(NamedTuple):
    """An input or an output: a row per utterance."""

    name: str
    shape: tuple[int, ...]  # of a row
    dtype: str


class Portable:
    """The function of a bundle.

    Its inputs are, per acoustic stream, `<stream>_frames` and `<stream>_length` (valid frames) if the model encodes
    them, and `<stream>_statistics` if it reads them; and `samples` and `samples_length` if it reads pretrained models.
    Its outputs are `probabilities`, means over the runs before temperature scaling; `calibrated`, those after it;
    and `dimensions` in the corpus's scale.
    """

    def __init__(self, runs: Runs) -> None:
        """Loads the pretrained models.

        Raises:
          InputError: one cannot be loaded.
        """
        self.runs = runs
        self.acoustic = {name for name, given in runs.inputs.items() if given.feature in FEATURES.keys() - {"raw"}}
        self._features: dict[str, Features] = {}
        longest = [LONGEST_SECONDS]
        for name, given, contents in zip(runs.inputs, runs.inputs.values(), runs.contents, strict=True):
            if given.feature == "ssl":
                wanted = read_settings(contents.settings)
                longest.append(float(wanted.settings["max_seconds"]))
                params, options = load_wanted(wanted)
                self._features[name] = partial(_features_of, wanted, jax.device_put(params), options)
            elif given.feature == "raw":
                self._features[name] = _raw
        self.longest = min(longest)
        """Seconds; longer utterances are cut, or predicted over time."""

    def lengths(self, seconds: Sequence[float] = ()) -> list[float]:
        """Returns the seconds of audio that each program holds, the shortest first; one without frames holds all.

        Args:
          seconds: the lengths that are asked for; by default those to which `Model` pads, and where the programs hold
            a pretrained model, few.
        """
        if not self._features and not self.runs.encoded:
            return [self.longest]
        most = self.longest
        limits = [self._limit_seconds(name) for name in self.runs.encoded]
        if not self._features:
            most = min(most, max(limits))
        if seconds:
            return sorted({min(each, most) for each in seconds})
        shortest, ratio = SHORTEST / 100, LENGTH_RATIO
        if self._features:
            shortest, ratio = SHORTEST_SAMPLES / SAMPLING_RATE, WITH_SAMPLES
        found = [min(shortest, most)]
        while found[-1] < most:
            found.append(min(most, round(found[-1] * ratio, 2)))
        return found

    def _limit_seconds(self, name: str) -> float:
        given = self.runs.inputs[name]
        return LONGEST_SECONDS if given.limit is None else given.limit * _hop(given) / SAMPLING_RATE

    def inputs(self, seconds: float) -> list[Tensor]:
        """Returns the inputs of the program that holds so many seconds."""
        _, run, _ = self.runs.arrays
        found = []
        for name in self.runs.inputs:
            given = self.runs.inputs[name]
            if name not in self.acoustic:
                continue
            if name in self.runs.encoded:
                size = FEATURES[given.feature].size(given.settings)
                found.append(Tensor(f"{name}_frames", (self._frames(given, seconds), size), "float32"))
                found.append(Tensor(f"{name}_length", (), "int32"))
            if self.runs.model.trunk.statistics:
                size = given.statistics[1] - given.statistics[0] if given.statistics else _size(run, name)
                found.append(Tensor(f"{name}_statistics", (size,), "float32"))
        if self._features:
            found.append(Tensor(SAMPLES, (round(seconds * SAMPLING_RATE),), "float32"))
            found.append(Tensor(f"{SAMPLES}_length", (), "int32"))
        return found

    @staticmethod
    def _frames(given: Input, seconds: float) -> int:
        frames = int(seconds * SAMPLING_RATE) // _hop(given) + 1
        if given.limit is not None:
            frames = min(frames, given.limit)
        return -(-frames // ROUND_FRAMES) * ROUND_FRAMES

    @property
    def outputs(self) -> list[Tensor]:
        """The outputs."""
        names, found = self.runs.names, []
        if names.classes:
            found.append(Tensor("probabilities", (len(names.classes),), "float32"))
            found.append(Tensor("calibrated", (len(names.classes),), "float32"))
        if names.dimensions:
            found.append(Tensor("dimensions", (len(names.dimensions),), "float32"))
        return found

    def __call__(self, *arrays: Num[Array, "batch ..."], names: Sequence[str]) -> tuple[Array, ...]:
        """Computes `outputs` from arrays of these names, in jax's own operations."""
        with attention_of_jax():
            return self._outputs(self._batch(dict(zip(names, arrays, strict=True))))

    def _batch(self, arrays: Arrays) -> Batch:
        first = next(iter(arrays.values()))
        rows = first.shape[0]
        frames: dict[str, Array] = {}
        lengths: dict[str, Array] = {}
        statistics: dict[str, Array] = {}
        for name, given in self.runs.inputs.items():
            if name in self.acoustic:
                if name in self.runs.encoded:
                    frames[name] = _rounded(arrays[f"{name}_frames"], given.dtype)
                    lengths[name] = arrays[f"{name}_length"]
                if self.runs.model.trunk.statistics:
                    statistics[name] = arrays[f"{name}_statistics"]
                continue
            x, length, pooled = self._features[name](arrays[SAMPLES], arrays[f"{SAMPLES}_length"])
            if name in self.runs.encoded:
                limit = x.shape[1] if given.limit is None else given.limit
                frames[name], lengths[name] = x[:, :limit], jnp.minimum(length, limit)
            if pooled is not None:
                statistics[name] = pooled[:, slice(*given.statistics)] if given.statistics else pooled
        return Batch(
            utterance=jnp.zeros(rows, jnp.int32),
            frames=frames,
            lengths=lengths,
            statistics=statistics,
            target=jnp.zeros((rows, 1), jnp.float32),
            vad=jnp.zeros((rows, len(DIMENSIONS)), jnp.float32),
        )

    def _outputs(self, batch: Batch) -> tuple[Array, ...]:
        runs = self.runs
        params, run, frozen = runs.arrays
        # An array without elements is no valid ONNX.
        run = run._replace(statistic_scale={name: run.statistic_scale[name] for name in batch.statistics})
        batch = frozen_forward(runs.model, frozen, batch, None)
        logits, values = jax.vmap(lambda p, r: predict_above(runs.model, frozen, p, r, batch))(params, run)
        found = []
        if runs.label.any():
            logits = logits[np.flatnonzero(runs.label)][..., : len(runs.classes)]
            temperature = np.asarray(runs.calibration.temperature[runs.label], np.float32)[:, None, None]
            found += [_mean_softmax(logits), _mean_softmax(logits / temperature)]
        if len(runs.columns):
            whole = np.flatnonzero(runs.predicted.all(axis=1))
            low, high = runs.vad_scale
            own = values[whole][..., runs.columns]
            found.append((own * jnp.float32((high - low) / 2) + jnp.float32((low + high) / 2)).mean(axis=0))
        return tuple(found)


def _mean_softmax(logits: Float[Array, "run batch class"]) -> Float[Array, "batch class"]:
    return jax.nn.softmax(logits, axis=-1).mean(axis=0)


def _hop(given: Input) -> int:
    """Returns the samples from one frame to the next."""
    return int(given.settings["hop_length"]) if "hop_length" in given.settings else 1


def _size(run: Any, name: str) -> int:
    return int(run.statistic_scale[name].mean.shape[-1])


def _rounded(x: Float32[Array, "batch time feature"], dtype: str) -> Float32[Array, "batch time feature"]:
    """Returns frames as the study held them: see `sejax.data.buckets.rounded`."""
    largest = float(jnp.finfo(dtype).max)
    return jnp.clip(x, -largest, largest).astype(dtype).astype(jnp.float32)


def _raw(
    samples: Float32[Array, "batch samples"], length: Int32[Array, " batch"]
) -> tuple[Array, Int32[Array, " batch"], None]:
    """Returns samples in 16 bits: see `sejax.features.audio.raw`."""
    whole = jnp.clip(jnp.round(samples * 32768.0), -32768.0, 32767.0)
    return whole[..., None], length, None


def _features_of(
    wanted: Wanted,
    params: Mapping[str, Any],
    options: Mapping[str, Any],
    samples: Float32[Array, "batch samples"],
    length: Int32[Array, " batch"],
) -> tuple[Array, Int32[Array, " batch"], Array]:
    """Returns the features of utterances in one window: see `HiddenStates`."""
    backbone = wanted.backbone
    waveform = backbone.prepare(samples, length)
    if waveform.shape[1] < backbone.least:
        waveform = jnp.pad(waveform, ((0, 0), (0, backbone.least - waveform.shape[1])))
    frames = backbone.frames(length)
    states = hidden_states(params, waveform, length, jnp.stack([jnp.zeros_like(frames), frames], axis=1), **options)
    moments = jnp.stack([states.mean, jnp.sqrt(states.variance)], axis=2)
    pooled = jnp.clip(moments.reshape(moments.shape[0], -1), -LARGEST, LARGEST).astype(jnp.float16)
    x = jnp.zeros((samples.shape[0], 0, wanted.size), jnp.float16) if states.frames is None else states.frames
    return x, frames, pooled
