"""Masked spans of frames and features in training (SpecAugment; Park et al., 2019), drawn as transformers does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from sejax.errors import Check, number
from sejax.pretrained.base import Noise
from sejax.pretrained.fields import read_fields, whole

FIELDS: dict[str, Check] = {
    "mask_time_prob": number(0, 1),
    "mask_time_length": whole(1, 1 << 16),
    "mask_time_min_masks": whole(0, 1 << 16),
    "mask_feature_prob": number(0, 1),
    "mask_feature_length": whole(1, 1 << 16),
    "mask_feature_min_masks": whole(0, 1 << 16),
}
"""The fields of config.json, alike in all families."""


def read_masking(config: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns the fields of `Noise` that say what is masked.

    Args:
      config: the content of config.json.
      defaults: of what it lacks.
      path: named in errors.

    Raises:
      InputError: values that make no sense.
    """
    c = read_fields(config, FIELDS, {"mask_feature_min_masks": 0, **defaults}, path)  # which WavLM's do not have
    return {
        "time_mask_prob": float(c["mask_time_prob"]),
        "time_mask_length": c["mask_time_length"],
        "time_mask_min": c["mask_time_min_masks"],
        "feature_mask_prob": float(c["mask_feature_prob"]),
        "feature_mask_length": c["mask_feature_length"],
        "feature_mask_min": c["mask_feature_min_masks"],
    }


def mask_spans(
    module: nn.Module,
    noise: Noise,
    x: Float[Array, "batch time feature"],
    mask: Bool[Array, "batch time"],
    filler: Float[Array, " feature"] | None = None,
) -> Float[Array, "batch time feature"]:
    """Replaces spans of frames by `filler`, then spans of features by zeros, for all frames of an utterance.

    Args:
      module: whose random stream "masking" is drawn from; without it nothing is masked.
      noise: how much is masked.
      x: the values.
      mask: the valid frames, in which spans lie.
      filler: None: zeros. It gets a gradient.
    """
    if not (noise.time_mask_prob or noise.feature_mask_prob) or not module.has_rng("masking"):
        return x
    key, dtype = module.make_rng("masking"), x.dtype
    if noise.time_mask_prob:
        spans = draw_spans(key, mask, noise.time_mask_prob, noise.time_mask_length, noise.time_mask_min)
        value = jnp.zeros((), jnp.float32) if filler is None else filler[None, None]
        # In float32, as `add_bias`: the filler's gradient is a sum over frames.
        x = jnp.where(spans[..., None], value, x.astype(jnp.float32)).astype(dtype)
    if noise.feature_mask_prob:
        every = jnp.ones((len(x), x.shape[-1]), bool)
        key = jax.random.fold_in(key, 1)
        spans = draw_spans(key, every, noise.feature_mask_prob, noise.feature_mask_length, noise.feature_mask_min)
        x = jnp.where(spans[:, None], jnp.zeros((), dtype), x)
    return x


def draw_spans(
    key: Key[Array, ""], mask: Bool[Array, "batch place"], prob: float, length: int, least: int
) -> Bool[Array, "batch place"]:
    """Returns True in random spans of `length` places, which may overlap, within each row's valid ones.

    As in transformers, a row has the number of spans that would cover a share `prob` of it if none overlapped, rounded
    up or down at random, and `least` of them at least; fewer where it is too short, none where it is shorter than a
    span.
    """
    places = mask.shape[1]
    rounding_key, begin_key = jax.random.split(key)
    valid = mask.sum(axis=1, dtype=jnp.float32)
    rounding = jax.random.uniform(rounding_key, valid.shape)
    wanted = jnp.maximum(jnp.floor(prob * valid / length + rounding), least)
    possible = jnp.maximum(valid - (length - 1), 0)
    spans = jnp.minimum(wanted, jnp.minimum(possible, valid // length)).astype(jnp.int32)
    # So many of the places at which a whole span can begin, without repetition: those with the smallest numbers.
    order = jax.random.uniform(begin_key, mask.shape)
    order = jnp.where(jnp.arange(places, dtype=jnp.float32)[None] < possible[:, None], order, 2.0)
    rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
    begun = jnp.cumsum((rank < spans[:, None]).astype(jnp.int32), axis=1)
    return begun > jnp.pad(begun, ((0, 0), (length, 0)))[:, :places]
