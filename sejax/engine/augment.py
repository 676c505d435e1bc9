"""Augmentation of a batch, on the device."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num

from sejax.data.types import Batch
from sejax.models.joint import JointModel


@dataclass(frozen=True)
class Augment:
    """How SpecAugment masks acoustic frames; equal for all runs of a program."""

    time_masks: int
    time_mask_frames: int  # widest time mask
    feature_masks: int
    feature_mask_share: float  # widest feature mask, as a share of a stream's features

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Augment":
        """Returns what the options `config.augment` say, some of which are not of a program but of its runs."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})


def spec_augment(
    model: JointModel, batch: Batch, augment: Augment, key: Key[Array, ""]
) -> dict[str, Num[Array, "batch _time _feature"]]:
    """Marks random bands of time and of features as unseen (NaN); `visible_inputs` turns them into the mean, 0.

    SpecAugment (Park et al., 2019) without warping. The masks depend on batch and key alone, so that runs of
    one seed share them. Hidden states that are mixed lose the same features in every layer; raw audio is not masked
    here (a tuned model masks its own frames).
    """
    mixed = {stream.name: stream.mixed for stream in model.streams if stream.tuning is None}

    def bands(key, n, size, widest, rows):
        """Returns True outside `n` bands per row, each up to `widest` wide, on an axis of `size`."""
        start_key, width_key = jax.random.split(key)
        start = jax.random.uniform(start_key, (rows, n, 1)) * size
        width = jax.random.uniform(width_key, (rows, n, 1)) * widest
        position = jnp.arange(size, dtype=jnp.float32)[None, None] + 0.5  # else the first one is never hidden
        return ~((position >= start) & (position < start + width)).any(axis=1)

    seen = dict(batch.frames)
    for i, (name, x) in enumerate(sorted(batch.frames.items())):
        if name not in mixed:
            continue
        time_key, feature_key = jax.random.split(jax.random.fold_in(key, i))
        rows, time, feature = x.shape
        keep = jnp.ones((rows, time, feature), bool)
        if augment.time_masks:
            mask = bands(time_key, augment.time_masks, time, augment.time_mask_frames, rows)
            keep &= mask[:, :, None]
        if augment.feature_masks:
            size = feature // mixed[name]
            band = bands(feature_key, augment.feature_masks, size, augment.feature_mask_share * size, rows)
            keep &= jnp.tile(band, (1, mixed[name]))[:, None, :]
        if augment.time_masks or augment.feature_masks:
            seen[name] = jnp.where(keep, x, jnp.asarray(jnp.nan, x.dtype))
    return seen
