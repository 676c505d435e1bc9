"""A checkpoint inside the joint model: what of it is frozen, and so shared by all runs, and what each run trains.

The model is cut at a stage. Below the cut everything is frozen: it is computed once per batch, for all runs
together, and its arrays lie on the device once. Above the cut a run has low-rank adapters on frozen layers
("lora"), layers of its own ("full"), or nothing ("frozen": the cut is at the top).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num

from sejax.errors import InputError
from sejax.pretrained.wav2vec2 import NO_LORA, Architecture, Lora, Output, SSLModel, normalise_waveform

FULL_SCALE = 32768.0  # of the int16 samples of a raw stream


@dataclass(frozen=True)
class Tuning:
    """How a stream's checkpoint is part of the joint model; all of it shapes the program."""

    architecture: Architecture
    normalise: bool  # the checkpoint wants waveforms of zero mean and unit variance
    mode: str  # one of `sejax.pretrained.MODES`
    layer: int | None = None  # the hidden state that is used; None: all of them, mixed by learned weights
    frozen_layers: int = 0  # lower Transformer layers that stay as they are, with all below them
    lora: Lora = NO_LORA
    layer_drop: float = 0.0
    time_mask_prob: float = 0.0
    time_mask_length: int = 10
    checkpointing: bool = False
    learning_rate: float = 1.0  # in units of the run's
    layer_decay: float = 1.0  # of the learning rate, from each layer to the one below
    dtype: str = "float32"  # computed in

    def __post_init__(self) -> None:
        if self.mode != "frozen" and not 0 <= self.frozen_layers < self.top:
            raise InputError(
                f"config.finetune.frozen_layers is {self.frozen_layers}, expected fewer than the {self.top} layers "
                f"that are used of this {self.architecture.family} model: nothing would be trained"
            )

    @property
    def top(self) -> int:
        """The last Transformer layer that is needed."""
        return self.architecture.layers if self.layer is None else self.layer

    @property
    def cut(self) -> int:
        """The first stage that is not wholly frozen and shared (stages as `SSLModel` counts them)."""
        if self.mode == "frozen":
            return self.top + 2
        # What lies below a frozen layer is frozen too; with none, "full" trains all above the convolutions.
        return 1 if self.mode == "full" and not self.frozen_layers else self.frozen_layers + 2

    @property
    def states(self) -> int:
        """How many hidden states the stream hands on: all, or one."""
        return self.architecture.layers + 1 if self.layer is None else 1

    def lower(self) -> SSLModel:
        """The section below the cut."""
        return SSLModel(
            self.architecture,
            jnp.dtype(self.dtype),
            stop=self.cut,
            time_mask_prob=self.time_mask_prob,
            time_mask_length=self.time_mask_length,
        )

    def upper(self, name: str | None = None) -> SSLModel | None:
        """The section above the cut, None where there is nothing."""
        if self.cut == self.top + 2:
            return None
        return SSLModel(
            self.architecture,
            jnp.dtype(self.dtype),
            start=self.cut,
            stop=self.top + 2,
            lora=self.lora if self.mode == "lora" else NO_LORA,
            layer_drop=self.layer_drop,
            time_mask_prob=self.time_mask_prob,
            time_mask_length=self.time_mask_length,
            checkpointing=self.checkpointing,
            name=name,
        )


class Parts(NamedTuple):
    """A checkpoint's parameters, divided."""

    lower: Any  # frozen, below the cut
    upper: Any  # frozen, above it: what adapters adapt
    start: Any  # where each run's own copy starts ("full")


def divide(params: Mapping[str, Any], tuning: Tuning) -> Parts:
    """Cuts a checkpoint's tree (`convert.Checkpoint.params`) in two and says what of it is trained."""
    lower = _of_stages(params, tuning, 0, tuning.cut)
    upper = _of_stages(params, tuning, tuning.cut, tuning.top + 2) if tuning.upper() else {}
    return Parts(lower, {}, upper) if tuning.mode == "full" else Parts(lower, upper, {})


def _of_stages(params: Mapping[str, Any], tuning: Tuning, start: int, stop: int) -> dict[str, Any]:
    """The arrays that `SSLModel(start, stop)` reads."""
    whole = tuning.architecture.layers + 2
    wanted = []
    if start == 0:
        wanted += ["feature_encoder"]
    if start <= 1 < stop:
        wanted += ["feature_projection", "mask_embedding", "position"]
    first, last = max(start - 2, 0), stop - 2
    if first < last:
        wanted += ["layers", *(["relative_position"] if tuning.architecture.buckets else [])]
    if stop == whole if tuning.architecture.pre_norm else start <= 1 < stop:
        wanted += ["encoder_norm"]
    own = {name: params[name] for name in wanted}
    if "layers" in own:
        own["layers"] = jax.tree.map(lambda x: x[first:last], own["layers"])
    return own


def listen(
    tuning: Tuning,
    lower: Any,
    samples: Num[Array, "batch samples 1"],
    lengths: Int[Array, " batch"],
    key: Key[Array, ""] | None,
) -> tuple[Float[Array, "batch time feature"], Int[Array, " batch"]]:
    """What the frozen part makes of raw audio, and how many frames of it are valid.

    Where all hidden states are mixed these are all that the part has, side by side, else the last one.

    Args:
      samples: int16, as a raw stream is stored.
      key: of the time masking; None for none.
    """
    waveform = samples[..., 0].astype(jnp.float32) / FULL_SCALE
    if tuning.normalise:
        waveform = normalise_waveform(waveform, lengths)
    rngs = None if key is None else {"masking": key}
    found: Any = tuning.lower().apply({"params": lower}, waveform, lengths, rngs=rngs)
    frames = jnp.maximum(tuning.architecture.frames(lengths), 0)
    return side_by_side(found, tuning).astype(jnp.float32), frames


def side_by_side(output: Output, tuning: Tuning) -> Float[Array, "batch time feature"]:
    """The hidden states that are handed on as the features of a frame, the lowest first."""
    hidden = output.hidden if tuning.layer is None else output.hidden[-1:]
    batch, time = hidden.shape[1:3]
    return jnp.moveaxis(hidden, 0, 2).reshape(batch, time, -1)


def trained(params: Mapping[str, Any], tuning: Tuning) -> dict[str, Any]:
    """Those of an upper section's parameters that a run trains: all ("full") or the adapters."""
    return dict(params) if tuning.mode == "full" else pick(params, lambda name: name.startswith("lora_"))


def pick(tree: Mapping[str, Any], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The leaves of a nested dictionary whose own name is wanted."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            if inner := pick(value, wanted):
                found[name] = inner
        elif wanted(name):
            found[name] = value
    return found


def merge(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one; where both have a leaf, the other's."""
    merged = dict(tree)
    for name, value in other.items():
        mine = merged.get(name)
        merged[name] = merge(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def learning_rates(params: Mapping[str, Any], tuning: Tuning) -> Any:
    """The factor on the learning rate of each array of an upper section, per layer where they are stacked.

    The top layer has `learning_rate`, each one below it `layer_decay` times that of the one above (Howard &
    Ruder, 2018); projection and positions count as the layer below the first.
    """
    rate, decay, top = tuning.learning_rate, tuning.layer_decay, tuning.top

    def factor(path, x):
        part = path[0].key
        if part == "layers":
            layer = top - x.shape[0] + 1 + jnp.arange(x.shape[0], dtype=jnp.float32)
            return (rate * decay ** (top - layer)).reshape(-1, *[1] * (x.ndim - 1))
        below = {"encoder_norm": 0 if tuning.architecture.pre_norm else top, "relative_position": top - 1}
        return jnp.asarray(rate * decay ** below.get(part, top), jnp.float32)

    return jax.tree_util.tree_map_with_path(factor, params)
