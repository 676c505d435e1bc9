"""Hidden states of a pretrained model as features: an utterance's frames, and their mean and deviation.

Whole utterances go through the model in batches of similar length; what else is in a batch changes nothing but
rounding. Audio longer than `max_seconds` goes through in windows that overlap: each frame is taken from a window
in which it has a second or more of context on either side (less only at the utterance's ends). Attention then
sees that window alone. Models whose first convolution is group-normalised (base models) also normalise by the
statistics of the window instead of those of the utterance.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float16, Float32, Float64, Int32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.extract import Extraction, Loaded, Segment, bad_file, load_segment
from sejax.features.settings import Setting, complete_settings
from sejax.pretrained.convert import fingerprint, load_checkpoint, read_architecture
from sejax.pretrained.hub import locate
from sejax.pretrained.wav2vec2 import Architecture, SSLModel

DEFAULTS: Mapping[str, Setting] = {
    "model": "",  # a folder or a hub id
    "revision": "main",
    "layers": "all",  # or "last", or the number of a hidden state
    "pooled": False,  # keeps the statistics alone
    "max_seconds": 30.0,
    "dtype": "float32",  # computed in; or "bfloat16"
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
CONTEXT_SECONDS = 1.0  # on either side of what is kept of a window
LEAST_MAX_SECONDS = 3.0  # of which a window with its context can keep something
# Lengths that audio is padded to, the same for every corpus: each is a program to compile. The nineteenth is 30 s.
SHORTEST_SECONDS = 0.541
LENGTH_RATIO = 1.25
# Of audio in a batch, padding included.
BATCH_SECONDS = {"cpu": 16.0}
BATCH_SECONDS_ACCELERATOR = 240.0
# Utterances that are loaded before their turn, and the threads that do it.
AHEAD = 16
LOADERS = 4
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Wanted:
    """Which hidden states of which checkpoint, and how they are computed."""

    folder: Path
    fingerprint: str
    architecture: Architecture
    state: int | None  # None: all of them
    settings: dict[str, Setting]  # complete

    @property
    def size(self) -> int:
        """Values of a frame: of each wanted state its hidden ones, state 0 first."""
        return self.architecture.hidden * (self.architecture.layers + 1 if self.state is None else 1)

    @property
    def content(self) -> dict[str, Setting]:
        """All that changes the numbers: what the checkpoint holds, not where it lies."""
        return {
            "fingerprint": self.fingerprint,
            "layers": "all" if self.state is None else self.state,
            **{name: self.settings[name] for name in ("pooled", "max_seconds", "dtype")},
        }


class Window(NamedTuple):
    """A stretch of an utterance's samples, and which of the frames it gives are kept."""

    start: int
    stop: int
    first: int
    last: int  # the one after the last kept frame


class Piece(NamedTuple):
    """One row of a batch: a window's samples, on their way through the model."""

    utterance: int
    window: int
    samples: Float32[np.ndarray, " samples"]
    first: int
    last: int


class States(NamedTuple):
    """What the device gives back for a batch; moments over the kept frames, from float32."""

    frames: Float16[Array, "batch time feature"] | None
    mean: Float32[Array, "batch state hidden"]
    variance: Float32[Array, "batch state hidden"]
    finite: Bool[Array, " batch"]
    clipped: Int32[Array, " batch"]  # values of the kept frames beyond the range of float16


@dataclass(frozen=True)
class Part:
    """What a window gives to its utterance."""

    frames: Float16[np.ndarray, "time feature"] | None
    count: int
    mean: Float32[np.ndarray, "state hidden"]
    variance: Float32[np.ndarray, "state hidden"]
    finite: bool
    clipped: int


@dataclass
class Open:
    """An utterance of which some windows are still on their way."""

    loaded: Loaded
    windows: int
    parts: dict[int, Part] = field(default_factory=dict)


def read_settings(settings: Mapping[str, Setting]) -> Wanted:
    """What the settings of the feature "ssl" (see `DEFAULTS`) want. No weights are loaded.

    Raises:
      InputError: an unknown setting or value, no such checkpoint, layers it does not have.
    """
    full = complete_settings("ssl", settings, DEFAULTS)
    if full["dtype"] not in DTYPES:
        raise InputError(f"The setting dtype of the feature ssl is {full['dtype']!r}; expected one of {tuple(DTYPES)}.")
    if not LEAST_MAX_SECONDS <= float(full["max_seconds"]) < math.inf:  # also false for NaN
        raise InputError(
            f"The setting max_seconds of the feature ssl is {full['max_seconds']:g}; expected "
            f"{LEAST_MAX_SECONDS:g} or more: windows have {CONTEXT_SECONDS:g} s of context on either side."
        )
    folder = locate(str(full["model"]), str(full["revision"]))
    architecture = read_architecture(folder)
    return Wanted(folder, fingerprint(folder), architecture, architecture.state(str(full["layers"])), full)


def extract_hidden_states(
    segments: Sequence[Segment], *, wanted: Wanted, speed: float, loaders: int = LOADERS
) -> Generator[tuple[int, Extraction], None, None]:
    """The features of every utterance with its number, in the order in which batches fill.

    Frames are float16 `[time, state * hidden]`, state 0's values first, clipped to float16's range (which the
    note says); pooled, `[0, state * hidden]`. Statistics are float16 `[state * 2 * hidden]`: per state the mean
    over the utterance's frames, then the deviation. A bad file is a result, not an exception.

    Raises:
      InputError: the checkpoint cannot be loaded.
    """
    checkpoint = load_checkpoint(str(wanted.folder))
    architecture, pooled = wanted.architecture, bool(wanted.settings["pooled"])
    model, params = _up_to(wanted, checkpoint.params)
    params = jax.device_put(params)
    load = partial(_load, speed=speed, window=architecture.window, normalise=checkpoint.normalise)
    del checkpoint
    max_samples = int(float(wanted.settings["max_seconds"]) * SAMPLING_RATE)
    done: deque[tuple[int, Extraction]] = deque()
    opened: dict[int, Open] = {}

    def pieces() -> Iterator[Piece]:
        for number, loaded in enumerate(_load_ahead(load, segments, loaders)):
            if isinstance(loaded, InputError):
                done.append((number, bad_file(loaded, wanted.size, np.float16)))
                continue
            windows = plan_windows(len(loaded.samples), architecture, max_samples)
            opened[number] = Open(loaded, len(windows))
            for i, (start, stop, first, last) in enumerate(windows):
                yield Piece(number, i, loaded.samples[start:stop], first, last)

    def take_back(batch: Sequence[Piece], states: States) -> None:
        for piece, part in zip(batch, _split(batch, jax.device_get(states)), strict=False):
            utterance = opened[piece.utterance]
            utterance.parts[piece.window] = part
            if len(utterance.parts) == utterance.windows:
                del opened[piece.utterance]
                done.append((piece.utterance, _assemble(utterance, segments[piece.utterance].path, wanted)))

    batch_seconds = BATCH_SECONDS.get(jax.default_backend(), BATCH_SECONDS_ACCELERATOR)
    computed: deque[tuple[Sequence[Piece], States]] = deque()
    for length, batch in fill_batches(pieces(), int(batch_seconds * SAMPLING_RATE)):
        rows = _pad(batch, length, int(batch_seconds * SAMPLING_RATE))
        computed.append((batch, _compute(params, *rows, model=model, every=wanted.state is None, pooled=pooled)))
        # The device has its next batch before the last one's results are waited for.
        if len(computed) > 1:
            take_back(*computed.popleft())
        while done:
            yield done.popleft()
    while computed:
        take_back(*computed.popleft())
    yield from done


def plan_windows(samples: int, architecture: Architecture, max_samples: int) -> list[Window]:
    """The windows of an utterance: itself if it is not longer than `max_samples`, else of equal length, spread evenly.

    Windows begin at multiples of the hop, so that their frames are the utterance's. Where two overlap, by two
    contexts or more, the frames of either half are taken from the window on their side. In all they give
    exactly the frames of the utterance, in order.
    """
    total, size = architecture.frames(samples), architecture.frames(max_samples)
    if samples <= max_samples or total <= size:
        return [Window(0, samples, 0, total)]
    hop = architecture.hop_length
    context = math.ceil(CONTEXT_SECONDS * SAMPLING_RATE / hop)
    number = -(-(total - 2 * context) // (size - 2 * context))
    begins = [i * (total - size) // (number - 1) for i in range(number)]
    seams = [left + size - (left + size - right) // 2 for left, right in pairwise(begins)]
    length = (size - 1) * hop + architecture.window
    return [
        Window(begin * hop, begin * hop + length, first - begin, last - begin)
        for begin, first, last in zip(begins, [0, *seams], [*seams, total], strict=True)
    ]


def padded_length(samples: int) -> int:
    """The length on the grid that audio of so many samples is padded to."""
    length = int(SHORTEST_SECONDS * SAMPLING_RATE)
    while length < samples:
        length = math.ceil(length * LENGTH_RATIO)
    return length


def fill_batches(pieces: Iterable[Piece], batch_samples: int) -> Iterator[tuple[int, list[Piece]]]:
    """Batches of one padded length each, full ones as soon as they are; what is left over in the end fills up
    batches of longer pieces."""
    waiting: dict[int, list[Piece]] = {}
    for piece in pieces:
        length = padded_length(len(piece.samples))
        waiting.setdefault(length, []).append(piece)
        if len(waiting[length]) == _rows(length, batch_samples):
            yield length, waiting.pop(length)
    rest = sorted((p for group in waiting.values() for p in group), key=lambda p: len(p.samples), reverse=True)
    while rest:
        length = padded_length(len(rest[0].samples))
        rows = _rows(length, batch_samples)
        yield length, rest[:rows]
        rest = rest[rows:]


def _rows(length: int, batch_samples: int) -> int:
    return max(1, batch_samples // length)


def _load(segment: Segment, *, speed: float, window: int, normalise: bool) -> Loaded | InputError:
    """An utterance as the model reads it: `normalise_waveform`, here over all of it, also where windows follow."""
    try:
        loaded = load_segment(segment, speed=speed, window=window)
    except InputError as error:
        return error
    if not normalise:
        return loaded
    samples = loaded.samples.astype(np.float64)
    samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return Loaded(samples.astype(np.float32), loaded.digest, loaded.note, loaded.seconds)


def _load_ahead(
    load: Callable[[Segment], Loaded | InputError], segments: Iterable[Segment], threads: int
) -> Iterator[Loaded | InputError]:
    """`load` of each, in order, some utterances before they are asked for."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Any] = deque()
        try:
            for segment in segments:
                pending.append(pool.submit(load, segment))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _up_to(wanted: Wanted, params: Mapping[str, Any]) -> tuple[SSLModel, dict[str, Any]]:
    """The model and its parameters through the layer whose output is wanted."""
    architecture, dtype = wanted.architecture, DTYPES[str(wanted.settings["dtype"])]
    if wanted.state in (None, architecture.layers):
        return SSLModel(architecture, dtype), dict(params)
    layers = jax.tree.map(lambda x: x[: wanted.state], params["layers"])
    return SSLModel(architecture, dtype, stop=2 + wanted.state), {**params, "layers": layers}


def _pad(
    batch: Sequence[Piece], length: int, batch_samples: int
) -> tuple[Float32[np.ndarray, "batch {length}"], Int32[np.ndarray, " batch"], Int32[np.ndarray, "batch 2"]]:
    """Waveforms, their lengths and the kept frames of each; rows beyond the batch are empty."""
    rows = _rows(length, batch_samples)
    waveforms = np.zeros((rows, length), np.float32)
    lengths, kept = np.zeros(rows, np.int32), np.zeros((rows, 2), np.int32)
    for row, piece in enumerate(batch):
        lengths[row] = len(piece.samples)
        waveforms[row, : lengths[row]] = piece.samples
        kept[row] = piece.first, piece.last
    return waveforms, lengths, kept


@partial(jax.jit, static_argnames=("model", "every", "pooled"))
def _compute(
    params: Mapping[str, Any],
    waveforms: Float32[Array, "batch samples"],
    lengths: Int32[Array, " batch"],
    kept: Int32[Array, "batch 2"],
    *,
    model: SSLModel,
    every: bool,
    pooled: bool,
) -> States:
    """Every hidden state of a batch, or the last that the model gives."""
    # What was asked for as float32 is not to be rounded to fewer bits by matrix units.
    precision = "float32" if model.dtype == jnp.float32 else "default"
    with jax.default_matmul_precision(precision):
        output: Any = model.apply({"params": params}, waveforms, lengths)
    hidden = output.hidden
    hidden = (hidden if every else hidden[-1:]).astype(jnp.float32)  # [state, batch, time, hidden]
    time = jnp.arange(hidden.shape[2], dtype=jnp.int32)[None]
    keep = ((time >= kept[:, :1]) & (time < kept[:, 1:]))[None, :, :, None]
    count = jnp.maximum(kept[:, 1] - kept[:, 0], 1).astype(jnp.float32)[None, :, None]
    zero = jnp.zeros((), jnp.float32)
    mean = jnp.where(keep, hidden, zero).sum(axis=2) / count
    variance = (jnp.where(keep, hidden - mean[:, :, None], zero) ** 2).sum(axis=2) / count
    size = jnp.where(keep, jnp.abs(hidden), zero)
    finite, clipped = jnp.isfinite(size).all(axis=(0, 2, 3)), (size > LARGEST).sum(axis=(0, 2, 3), dtype=jnp.int32)
    frames = None
    if not pooled:
        frames = jnp.clip(hidden, -LARGEST, LARGEST).astype(jnp.float16)
        frames = frames.transpose(1, 2, 0, 3).reshape(*frames.shape[1:3], -1)
    return States(frames, mean.transpose(1, 0, 2), variance.transpose(1, 0, 2), finite, clipped)


def _split(batch: Sequence[Piece], states: States) -> Iterator[Part]:
    """The rows of a batch, frames that are not kept left out."""
    for row, piece in enumerate(batch):
        yield Part(
            None if states.frames is None else np.array(states.frames[row, piece.first : piece.last]),
            piece.last - piece.first,
            np.asarray(states.mean[row]),
            np.asarray(states.variance[row]),
            bool(states.finite[row]),
            int(states.clipped[row]),
        )


def _assemble(utterance: Open, path: str, wanted: Wanted) -> Extraction:
    """An utterance from its windows."""
    loaded = utterance.loaded
    parts = [utterance.parts[i] for i in range(utterance.windows)]
    if not all(part.finite for part in parts):
        error = InputError(f"{path}: {wanted.settings['model']} gives hidden states of it that are not finite.")
        return bad_file(error, wanted.size, np.float16)
    frames = [part.frames for part in parts if part.frames is not None]
    statistics = _pool(parts)
    clipped = int((np.abs(statistics) > LARGEST).sum())
    if frames:
        clipped += sum(part.clipped for part in parts)
    notes = [loaded.note] if loaded.note else []
    if clipped:
        notes.append(f"{clipped} values of {wanted.settings['model']} clipped to the range of float16")
    return Extraction(
        frames=np.concatenate(frames) if frames else np.zeros((0, wanted.size), np.float16),
        statistics=np.clip(statistics, -LARGEST, LARGEST).astype(np.float16),
        digest=loaded.digest,
        error="",
        note="; ".join(notes),
        seconds=loaded.seconds,
    )


def _pool(parts: Sequence[Part]) -> Float64[np.ndarray, " statistic"]:
    """Mean and deviation over all windows, state by state."""
    weights = np.array([part.count for part in parts], np.float64)[:, None, None]
    weights /= weights.sum()
    means = np.stack([part.mean for part in parts]).astype(np.float64)
    mean = (weights * means).sum(axis=0)
    variance = (weights * (np.stack([part.variance for part in parts]) + (means - mean) ** 2)).sum(axis=0)
    return np.stack((mean, np.sqrt(variance)), axis=1).reshape(-1)
