"""Hidden states of a pretrained model as features: an utterance's frames, and their mean and deviation.

Whole utterances pass through the model in batches of similar length. The other rows of a batch change nothing but
rounding. Audio longer than `max_seconds` is cut into overlapping windows. Each frame is taken from a window in which it
has a second or more of context on either side (less only at the utterance's ends). Attention then sees that window
alone. Models whose first convolution is group-normalised (base models) also normalise by the statistics of the window
instead of those of the utterance.
"""

import math
import sys
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
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
from sejax.features.extract import Extraction, Loaded, bad_file
from sejax.features.settings import Setting, complete_settings
from sejax.pretrained.base import Backbone, Section, stage_behind
from sejax.pretrained.convert import find_pretrained, load_checkpoint

DEFAULTS: Mapping[str, Setting] = {
    "model": "",  # a folder or a hub id
    "revision": "main",
    "layers": "all",  # or "last", or the number of a hidden state
    "context": "utterance",  # or another one of the family's: what a frame may see
    "pooled": False,  # True keeps the statistics alone
    "max_seconds": 30.0,  # longer audio is cut into windows
    "dtype": "float32",  # of the computation; or "bfloat16"
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
CONTEXT_SECONDS = 1.0  # on either side of the kept frames of a window
LEAST_MAX_SECONDS = 3.0  # a shorter window would be little more than its context
# The lengths that audio is padded to, the same for every corpus: each compiles one program. The nineteenth is 30 s.
SHORTEST_SECONDS = 0.541
LENGTH_RATIO = 1.25
# Seconds of audio in a batch, padding included, by backend.
BATCH_SECONDS = {"cpu": 16.0}
BATCH_SECONDS_ACCELERATOR = 240.0
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Wanted:
    """The requested hidden states of a checkpoint, and how they are computed."""

    folder: Path
    fingerprint: str
    backbone: Backbone
    state: int | None  # None: all hidden states
    settings: dict[str, Setting]  # complete

    @property
    def size(self) -> int:
        """Values of a frame: the features of each requested state, state 0 first."""
        return self.backbone.hidden * (self.backbone.layers + 1 if self.state is None else 1)

    @property
    def content(self) -> dict[str, Setting]:
        """Everything that changes the numbers: the contents of the checkpoint, not its path."""
        return {
            "fingerprint": self.fingerprint,
            "layers": "all" if self.state is None else self.state,
            **{name: self.settings[name] for name in ("context", "pooled", "max_seconds", "dtype")},
        }


class Window(NamedTuple):
    """A stretch of an utterance's samples, and the range of its frames that is kept."""

    start: int
    stop: int
    first: int
    last: int  # the one after the last kept frame


class Piece(NamedTuple):
    """One row of a batch: a window's samples before the model."""

    utterance: Hashable
    window: int
    samples: Float32[np.ndarray, " samples"]
    first: int
    last: int


class States(NamedTuple):
    """The device's results for a batch. Moments are over the kept frames, from float32."""

    frames: Float16[Array, "batch time feature"] | None
    mean: Float32[Array, "batch state hidden"]
    variance: Float32[Array, "batch state hidden"]
    finite: Bool[Array, " batch"]
    clipped: Int32[Array, " batch"]  # values of the kept frames beyond the range of float16


@dataclass(frozen=True)
class Part:
    """The results of one window."""

    frames: Float16[np.ndarray, "time feature"] | None
    count: int
    mean: Float32[np.ndarray, "state hidden"]
    variance: Float32[np.ndarray, "state hidden"]
    finite: bool
    clipped: int


@dataclass
class Open:
    """An utterance some of whose windows are not computed yet."""

    loaded: Loaded
    windows: int
    parts: dict[int, Part] = field(default_factory=dict)


def read_settings(settings: Mapping[str, Setting]) -> Wanted:
    """Returns the request that settings of the feature "ssl" (see `DEFAULTS`) make. No weights are loaded.

    Raises:
      InputError: an unknown setting or value, no such checkpoint, or a layer that it does not have.
    """
    full = complete_settings("ssl", settings, DEFAULTS)
    if full["dtype"] not in DTYPES:
        raise InputError(f"dtype of {full['model']} is {full['dtype']!r}, expected one of {', '.join(DTYPES)}")
    if not LEAST_MAX_SECONDS <= float(full["max_seconds"]) < math.inf:  # also false for NaN
        raise InputError(
            f"max_seconds of {full['model']} is {full['max_seconds']:g}, expected "
            f"{LEAST_MAX_SECONDS:g} or more: windows have {CONTEXT_SECONDS:g} s of context on either side"
        )
    found = find_pretrained(str(full["model"]), revision=str(full["revision"]))
    backbone = found.backbone.in_context(str(full["context"]))
    longest = backbone.longest
    if longest is not None and float(full["max_seconds"]) * SAMPLING_RATE > longest:
        raise InputError(
            f"max_seconds of {full['model']} is {full['max_seconds']:g}, expected {longest / SAMPLING_RATE:g} or less: "
            f"a {backbone.family} model has no longer input"
        )
    return Wanted(found.folder, found.digest, backbone, backbone.state(str(full["layers"])), full)


def load_wanted(wanted: Wanted) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads the parameters of the requested hidden states; returns them, and the keywords of `hidden_states`.

    Raises:
      InputError: the checkpoint cannot be loaded.
    """
    checkpoint, backbone = load_checkpoint(str(wanted.folder)), wanted.backbone
    for note in checkpoint.notes:
        print(f"note: {note}", file=sys.stderr)
    stop = stage_behind(backbone.layers if wanted.state is None else wanted.state)
    return backbone.select(checkpoint.params, 0, stop), {
        "backbone": backbone,
        "section": Section(stop=stop, dtype=DTYPES[str(wanted.settings["dtype"])]),
        "every": wanted.state is None,
        "pooled": bool(wanted.settings["pooled"]),
    }


class HiddenStates:
    """Computes the features of utterances, in the order in which batches fill: a `Collector`.

    Frames are float16 `[time, state * hidden]` (pooled, `[0, state * hidden]`), state 0's values first. They are
    clipped to the range of float16, which the note says. Statistics are float16 `[state * 2 * hidden]`: per state the
    mean over the utterance's frames, then the deviation. A bad file is a result, not an exception.
    """

    def __init__(self, wanted: Wanted) -> None:
        """Loads the checkpoint.

        Args:
          wanted: the requested hidden states.

        Raises:
          InputError: the checkpoint cannot be loaded.
        """
        params, options = load_wanted(wanted)
        self._wanted, backbone = wanted, wanted.backbone
        self._compute = partial(_compute, jax.device_put(params), **options)
        self._max_samples = int(float(wanted.settings["max_seconds"]) * SAMPLING_RATE)
        seconds = BATCH_SECONDS.get(jax.default_backend(), BATCH_SECONDS_ACCELERATOR)
        self._batches = Batches(int(seconds * SAMPLING_RATE), least=backbone.least)
        self._opened: dict[Hashable, Open] = {}
        self._computed: deque[tuple[Sequence[Piece], States]] = deque()

    def add(self, key: Hashable, loaded: Loaded) -> Iterator[tuple[Hashable, Extraction]]:
        """Takes an utterance, and yields the features of those that are done, with the key that each was given."""
        samples = self._wanted.backbone.prepare_utterance(loaded.samples)
        windows = plan_windows(len(samples), self._wanted.backbone, self._max_samples)
        self._opened[key] = Open(loaded, len(windows))
        for i, (start, stop, first, last) in enumerate(windows):
            if batch := self._batches.add(Piece(key, i, samples[start:stop], first, last)):
                yield from self._start(*batch)

    def close(self) -> Iterator[tuple[Hashable, Extraction]]:
        """Yields the features of all others."""
        for batch in self._batches.rest():
            yield from self._start(*batch)
        while self._computed:
            yield from self._take_back(*self._computed.popleft())

    def _start(self, length: int, batch: Sequence[Piece]) -> Iterator[tuple[Hashable, Extraction]]:
        """Gives the device a batch before the host waits for the results of the last one."""
        self._computed.append((batch, self._compute(*_pad(batch, length, self._batches.samples))))
        if len(self._computed) > 1:
            yield from self._take_back(*self._computed.popleft())

    def _take_back(self, batch: Sequence[Piece], states: States) -> Iterator[tuple[Hashable, Extraction]]:
        for piece, part in zip(batch, _split(batch, jax.device_get(states)), strict=False):
            utterance = self._opened[piece.utterance]
            utterance.parts[piece.window] = part
            if len(utterance.parts) == utterance.windows:
                del self._opened[piece.utterance]
                yield piece.utterance, _assemble(utterance, self._wanted)


def plan_windows(samples: int, backbone: Backbone, max_samples: int) -> list[Window]:
    """Returns the windows of an utterance: one if it is not longer than `max_samples`, else several of equal length.

    Windows are spread evenly and begin at multiples of the hop, so that their frames are the utterance's. Two
    neighbours overlap by two contexts or more, and each half of the overlap is taken from the window on its side.
    Together the windows give exactly the frames of the utterance, in order.
    """
    total, size = backbone.frames(samples), backbone.frames(max_samples)
    if samples <= max_samples or total <= size:
        return [Window(0, samples, 0, total)]
    hop = backbone.hop_length
    context = math.ceil(CONTEXT_SECONDS * SAMPLING_RATE / hop)
    number = -(-(total - 2 * context) // (size - 2 * context))
    begins = [i * (total - size) // (number - 1) for i in range(number)]
    seams = [left + size - (left + size - right) // 2 for left, right in pairwise(begins)]
    length = (size - 1) * hop + backbone.window
    return [
        Window(begin * hop, begin * hop + length, first - begin, last - begin)
        for begin, first, last in zip(begins, [0, *seams], [*seams, total], strict=True)
    ]


def padded_length(samples: int) -> int:
    """Returns the length on the grid that audio of so many samples is padded to."""
    length = int(SHORTEST_SECONDS * SAMPLING_RATE)
    while length < samples:
        length = math.ceil(length * LENGTH_RATIO)
    return length


class Batches:
    """Puts pieces into batches of one padded length each; a batch is given out as soon as it is full.

    The pieces left over in the end are batched together, padded to the longest.
    """

    def __init__(self, samples: int, *, least: int = 0) -> None:
        """Args: `samples` in a batch, padding included, and the `least` length of a row."""
        self.samples, self._least = samples, least
        self._waiting: dict[int, list[Piece]] = {}

    def add(self, piece: Piece) -> tuple[int, list[Piece]] | None:
        """Takes a piece, and returns the batch that it fills with its padded length, None if it fills none."""
        length = self._length(piece)
        self._waiting.setdefault(length, []).append(piece)
        if len(self._waiting[length]) == _rows(length, self.samples):
            return length, self._waiting.pop(length)
        return None

    def rest(self) -> Iterator[tuple[int, list[Piece]]]:
        """Yields batches of all pieces that wait."""
        rest = sorted(
            (p for group in self._waiting.values() for p in group), key=lambda p: len(p.samples), reverse=True
        )
        self._waiting = {}
        while rest:
            length = self._length(rest[0])
            rows = _rows(length, self.samples)
            yield length, rest[:rows]
            rest = rest[rows:]

    def _length(self, piece: Piece) -> int:
        return padded_length(max(len(piece.samples), self._least))


def _rows(length: int, batch_samples: int) -> int:
    return max(1, batch_samples // length)


def _pad(
    batch: Sequence[Piece], length: int, batch_samples: int
) -> tuple[Float32[np.ndarray, "batch {length}"], Int32[np.ndarray, " batch"], Int32[np.ndarray, "batch 2"]]:
    """Returns padded waveforms, their lengths and the kept frames of each; rows beyond the batch are empty.

    A piece alone, as a stream's window is, needs no empty rows.
    """
    rows = 1 if len(batch) == 1 else _rows(length, batch_samples)
    waveforms = np.zeros((rows, length), np.float32)
    lengths, kept = np.zeros(rows, np.int32), np.zeros((rows, 2), np.int32)
    for row, piece in enumerate(batch):
        lengths[row] = len(piece.samples)
        waveforms[row, : lengths[row]] = piece.samples
        kept[row] = piece.first, piece.last
    return waveforms, lengths, kept


def hidden_states(
    params: Mapping[str, Any],
    waveforms: Float32[Array, "batch samples"],
    lengths: Int32[Array, " batch"],
    kept: Int32[Array, "batch 2"],
    *,
    backbone: Backbone,
    section: Section,
    every: bool,
    pooled: bool,
) -> States:
    """Returns every hidden state of a batch, or the section's last one.

    Args:
      params: of the section, see `load_wanted`.
      waveforms: as `Backbone.prepare` makes them, with zeros behind the end.
      lengths: valid samples.
      kept: the first frame that is kept, and the one after the last.
      backbone, section: what the module is.
      every: every hidden state, not the last one alone.
      pooled: moments alone.
    """
    # Matrix units would round the inputs of float32 products to fewer bits.
    precision = "float32" if section.dtype == jnp.float32 else "default"
    with jax.default_matmul_precision(precision):
        output: Any = backbone.module(section).apply({"params": params}, waveforms, lengths)
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


_compute = jax.jit(hidden_states, static_argnames=("backbone", "section", "every", "pooled"))


def _split(batch: Sequence[Piece], states: States) -> Iterator[Part]:
    """Yields the results of each row of a batch, with the kept frames alone."""
    for row, piece in enumerate(batch):
        yield Part(
            None if states.frames is None else np.array(states.frames[row, piece.first : piece.last]),
            piece.last - piece.first,
            np.asarray(states.mean[row]),
            np.asarray(states.variance[row]),
            bool(states.finite[row]),
            int(states.clipped[row]),
        )


def _assemble(utterance: Open, wanted: Wanted) -> Extraction:
    """Joins the windows of an utterance."""
    loaded = utterance.loaded
    parts = [utterance.parts[i] for i in range(utterance.windows)]
    if not all(part.finite for part in parts):
        error = InputError(f"{loaded.path}: {wanted.settings['model']} gives hidden states of it that are not finite")
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
    """Returns mean and deviation over all windows, state by state."""
    weights = np.array([part.count for part in parts], np.float64)[:, None, None]
    weights /= weights.sum()
    means = np.stack([part.mean for part in parts]).astype(np.float64)
    mean = (weights * means).sum(axis=0)
    variance = (weights * (np.stack([part.variance for part in parts]) + (means - mean) ** 2)).sum(axis=0)
    return np.stack((mean, np.sqrt(variance)), axis=1).reshape(-1)
