"""A checkpoint inside the joint model: which part is frozen, and so shared by all runs, and which part each run trains.

The model is cut at a stage (`sejax.pretrained.base`). Everything below the cut is frozen: it is computed once per batch
for all runs together, and its arrays are stored on the device once. Above the cut, a run has low-rank adapters on
frozen layers ("lora"), layers of its own ("full"), or nothing ("frozen": the cut is at the top).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float, Int, Key, Num

from sejax.errors import InputError
from sejax.pretrained.base import NO_LORA, STACKED, Backbone, Lora, Output, Section, stage_behind

FULL_SCALE = 32768.0  # of the int16 samples of a raw stream


@dataclass(frozen=True)
class Tuning:
    """How a stream's checkpoint is part of the joint model; every field shapes the program."""

    backbone: Backbone
    mode: str  # one of `sejax.pretrained.MODES`
    layer: int | None = None  # the hidden state that is used; None: all of them, mixed by learned weights
    frozen_layers: int = 0  # lower Transformer layers that stay frozen, with everything below them
    lora: Lora = NO_LORA
    layer_drop: float = 0.0
    checkpointing: bool = False
    learning_rate: float = 1.0  # in units of the run's
    layer_decay: float = 1.0  # factor on the learning rate from each layer to the one below
    dtype: str = "float32"  # of the products

    def __post_init__(self) -> None:
        if self.mode != "frozen" and not 0 <= self.frozen_layers < self.top:
            raise InputError(
                f"config.finetune.frozen_layers is {self.frozen_layers}, expected fewer than the {self.top} layers "
                f"that are used of this {self.backbone.family} model: nothing would be trained"
            )

    @property
    def top(self) -> int:
        """The highest Transformer layer that is used."""
        return self.backbone.layers if self.layer is None else self.layer

    @property
    def cut(self) -> int:
        """The first stage that is not frozen and shared as a whole."""
        if self.mode == "frozen":
            return stage_behind(self.top)
        # Everything below a frozen layer is frozen too. Without one, "full" trains all stages but the first.
        return 1 if self.mode == "full" and not self.frozen_layers else stage_behind(self.frozen_layers)

    @property
    def states(self) -> int:
        """The number of hidden states that the stream passes on: all, or one."""
        return self.backbone.layers + 1 if self.layer is None else 1

    @property
    def joins_states(self) -> bool:
        """Whether the hidden states below the cut are passed on too."""
        return self.layer is None and self.cut >= stage_behind(0)

    @property
    def cut_size(self) -> int:
        """Features of the frames that the stage at the cut reads."""
        return self.backbone.hidden if self.cut >= stage_behind(0) else self.backbone.frame_size

    def lower(self) -> nn.Module:
        """Returns the module below the cut."""
        return self.backbone.module(Section(stop=self.cut, dtype=jnp.dtype(self.dtype)))

    def upper(self, name: str | None = None) -> nn.Module | None:
        """Returns the module above the cut, None if there is none."""
        stop = stage_behind(self.top)
        if self.cut == stop:
            return None
        section = Section(
            start=self.cut,
            stop=stop,
            dtype=jnp.dtype(self.dtype),
            lora=self.lora if self.mode == "lora" else NO_LORA,
            layer_drop=self.layer_drop,
            checkpointing=self.checkpointing,
        )
        return self.backbone.module(section, name)


class Parts(NamedTuple):
    """A checkpoint's parameters, divided at the cut."""

    lower: Any  # frozen, below the cut
    upper: Any  # frozen, above it: what adapters adapt
    start: Any  # the first values of each run's own copy ("full")


def divide(params: Mapping[str, Any], tuning: Tuning) -> Parts:
    """Divides a checkpoint's parameters (`convert.Checkpoint.params`) into frozen and trained parts."""
    stop = stage_behind(tuning.top)
    lower = tuning.backbone.select(params, 0, tuning.cut)
    upper = tuning.backbone.select(params, tuning.cut, stop) if tuning.cut < stop else {}
    fixed, start = _part_fixed(upper, tuning)
    return Parts(lower, fixed, start) if tuning.mode == "full" else Parts(lower, upper, {})


def frozen_forward(
    tuning: Tuning,
    lower: Any,
    samples: Num[Array, "batch samples 1"],
    lengths: Int[Array, " batch"],
    key: Key[Array, ""] | None,
) -> tuple[Float[Array, "batch time feature"], Int[Array, " batch"]]:
    """Runs the part below the cut on raw audio.

    Args:
      tuning: the stream's.
      lower: the parameters below the cut.
      samples: int16, as a raw stream is stored.
      lengths: valid samples.
      key: of masked spans, and of dropout below the layers that are trained; None: there are none.

    Returns:
      The frames that the part above the cut reads and their valid numbers. If all hidden states are mixed, a frame has
      all those of this part, side by side.
    """
    waveform = tuning.backbone.prepare(samples[..., 0].astype(jnp.float32) / FULL_SCALE, lengths)
    rngs = {}
    if key is not None:
        # A model that is frozen as a whole has no dropout: nothing in it could learn to do without a value.
        rngs = {"masking": key} | ({} if tuning.mode == "frozen" else {"dropout": jax.random.fold_in(key, 1)})
    output: Any = tuning.lower().apply({"params": lower}, waveform, lengths, rngs=rngs)
    frames = jnp.maximum(tuning.backbone.frames(lengths), 0)
    return side_by_side(output, tuning).astype(jnp.float32), frames


def side_by_side(output: Output, tuning: Tuning) -> Float[Array, "batch time feature"]:
    """Returns the hidden states that are passed on as the features of each frame, the lowest first."""
    hidden = output.hidden if tuning.layer is None else output.hidden[-1:]
    batch, time = hidden.shape[1:3]
    return jnp.moveaxis(hidden, 0, 2).reshape(batch, time, -1)


def trained(params: Mapping[str, Any], tuning: Tuning) -> dict[str, Any]:
    """Returns those parameters of an upper section that a run trains: all ("full") or the adapters."""
    if tuning.mode == "full":
        return _part_fixed(params, tuning)[1]
    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({path: x for path, x in flat.items() if path[-1].startswith("lora_")})


def _part_fixed(params: Mapping[str, Any], tuning: Tuning) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parts of an upper section that are never trained, and the others."""
    fixed = {part: params[part] for part in params if part in tuning.backbone.FIXED}
    return fixed, {part: x for part, x in params.items() if part not in fixed}


def merge(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the union of two nested dictionaries, with the leaf of `other` where both have one."""
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(tree) | traverse_util.flatten_dict(other))


def learning_rates(params: Mapping[str, Any], tuning: Tuning) -> Any:
    """Returns the factor on the learning rate of each array of an upper section, one per layer for stacked arrays.

    The top layer has `learning_rate`, each one below it `layer_decay` times that of the one above (Howard & Ruder,
    2018). Parts outside the layers count as `Backbone.depth` says.
    """
    rate, decay, top = tuning.learning_rate, tuning.layer_decay, tuning.top

    def factor(path: tuple[Any, ...], x: Any) -> Array:
        if path[0] == STACKED:
            layer = top - x.shape[0] + 1 + jnp.arange(x.shape[0], dtype=jnp.float32)
            return (rate * decay ** (top - layer)).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.asarray(rate * decay ** (top - tuning.backbone.depth(path[0])), jnp.float32)

    return traverse_util.path_aware_map(factor, params)
