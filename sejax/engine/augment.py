"""Augmentation of a batch, on the device.

SpecAugment is equal for all runs of a program. Noise, gain and mixup are of each run; what no run of a program uses is
no part of it (`Augment.used`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from sejax.data.types import Batch
from sejax.errors import SHARE, Check, is_number, number, whole
from sejax.models.joint import JointModel
from sejax.nn.layers import valid_frames

LARGEST_SAMPLE = 32767.0  # of int16


RATES = ("noise", "gain", "mixup")
"""The options of `config.augment` in which stacked runs may differ; 0 is off."""


_LEVEL = number(-30, 60)  # dB
AUGMENTATIONS: Mapping[str, Check] = {
    "time_masks": whole(0, 100),
    "time_mask_frames": whole(0, 10_000),
    "feature_masks": whole(0, 100),
    "feature_mask_share": SHARE,
    "noise": SHARE,
    "noise_snr": Check(
        lambda levels: (
            isinstance(levels, tuple) and len(levels) == 2 and all(map(_LEVEL.holds, levels)) and levels[0] <= levels[1]
        ),
        f"a tuple of the lowest and the highest level, each {_LEVEL.expected}",
    ),
    "gain": number(0, 60),
    "mixup": Check(
        lambda alpha: is_number(alpha) and (alpha == 0 or 0.01 <= alpha <= 100), "0 (off) or a number from 0.01 to 100"
    ),
}
"""What each option of `config.augment` that is applied here may be."""


@dataclass(frozen=True)
class Augment:
    """What is equal for all runs of a program: how SpecAugment masks acoustic frames, and what else its runs use."""

    time_masks: int
    time_mask_frames: int  # widest time mask
    feature_masks: int
    feature_mask_share: float  # widest feature mask, as a share of a stream's features
    noise_snr: tuple[float, float] = (5.0, 20.0)  # the range of signal-to-noise ratios, in dB
    used: tuple[str, ...] = ()  # those of `RATES` that are not 0 in all runs

    @classmethod
    def of(cls, options: Mapping[str, Any], used: tuple[str, ...] = ()) -> "Augment":
        """Returns what the options `config.augment` say, some of which are not of a program but of its runs."""
        own = {field.name: options[field.name] for field in fields(cls) if field.name != "used"}
        return cls(**{**own, "noise_snr": tuple(own["noise_snr"])}, used=used)  # lists do not hash


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


def corrupt_audio(
    batch: Batch, augment: Augment, noise: Float[Array, ""], gain: Float[Array, ""], key: Key[Array, ""]
) -> dict[str, Num[Array, "batch _time _feature"]]:
    """Adds white noise to raw audio and changes its level; both round to 16 bits and clip at full scale.

    An utterance sounds alike in every stream. Its noise is that of `sejax.features.corrupt.add_noise`: as far below
    the variance of the whole utterance as its signal-to-noise ratio says, which is drawn from `augment.noise_snr`.

    Args:
      noise: share of the utterances that get noise.
      gain: the largest change of the level, in dB; each is drawn between its negative and itself.
    """
    who_key, snr_key, noise_key, gain_key = jax.random.split(key, 4)
    rows = batch.utterance.shape
    heard = dict(batch.frames)
    for name in (name for name, x in heard.items() if jnp.issubdtype(x.dtype, jnp.integer)):
        x = batch.frames[name][..., 0].astype(jnp.float32)
        valid = valid_frames(batch.lengths[name], x.shape[1])
        if "noise" in augment.used:
            low, high = augment.noise_snr
            snr = jax.random.uniform(snr_key, rows, minval=low, maxval=high)
            level = jnp.std(x, axis=1, where=valid) * 10 ** (-snr / 20)
            level = jnp.where(jax.random.uniform(who_key, rows) < noise, level, 0.0)
            x = x + jnp.where(valid, level[:, None] * jax.random.normal(noise_key, x.shape), 0.0)
        if "gain" in augment.used:
            decibels = gain * jax.random.uniform(gain_key, rows, minval=-1.0, maxval=1.0)
            x = x * (10 ** (decibels / 20))[:, None]
        x = jnp.clip(jnp.rint(x), -LARGEST_SAMPLE - 1, LARGEST_SAMPLE)
        heard[name] = x.astype(batch.frames[name].dtype)[..., None]
    return heard


class Seen(NamedTuple):
    """What a run sees of a batch, and what it learns from it."""

    frames: dict[str, Float[Array, "batch _time _feature"]]
    masks: dict[str, Bool[Array, "batch _time"]]  # valid frames
    statistics: dict[str, Float[Array, "batch _statistic"]]
    target: Float[Array, "batch class"]
    vad: Float[Array, "batch dim"]


def mixup(seen: Seen, visible: Bool[Array, " batch"], alpha: Float[Array, ""], key: Key[Array, ""]) -> Seen:
    """Mixes each visible utterance with another one of the run: its features, its class target and its dimensions.

    `x = w x_i + (1 - w) x_j` with a w of its own from Beta(alpha, alpha) (Zhang et al., mixup: Beyond Empirical Risk
    Minimization, ICLR 2018). The larger one of w and 1 - w is that of the utterance itself, whose length stays: frames
    are mixed where both have some. A mixture has a class if both have one, and a dimension if both have it.

    Args:
      seen: The batch as the run sees it.
      visible: Utterances that the run is trained on: it takes no others as partners.
      alpha: 0 mixes nothing.
    """
    partner_key, share_key = jax.random.split(key)
    partner = mixing_partners(visible, partner_key)
    mixes = alpha > 0
    defined = jnp.where(mixes, alpha, 1.0)
    share = jax.random.beta(share_key, defined, defined, visible.shape)
    share = jnp.maximum(share, 1 - share)

    def mix(x, allowed):
        own = share.reshape(-1, *[1] * (x.ndim - 1))
        # Mixed or not, not mixed with a share of 0: a NaN would stay NaN.
        return jnp.where(mixes & allowed, own * x + (1 - own) * x[partner], x)

    both = {name: mask & mask[partner] for name, mask in seen.masks.items()}
    labelled = seen.target.sum(axis=-1, keepdims=True) > 0
    has_class = labelled & labelled[partner]
    return Seen(
        {name: mix(x, both[name][..., None]) for name, x in seen.frames.items()},
        seen.masks,
        {name: mix(x, jnp.asarray(True)) for name, x in seen.statistics.items()},
        jnp.where(mixes & ~has_class, 0.0, mix(seen.target, has_class)),
        mix(seen.vad, jnp.asarray(True)),
    )


def mixing_partners(visible: Bool[Array, " batch"], key: Key[Array, ""]) -> Int[Array, " batch"]:
    """Returns for each visible row another visible one, the next in a random circle of them; others are their own."""
    n = visible.sum()
    circle = jnp.argsort(jnp.where(visible, jax.random.uniform(key, visible.shape), jnp.inf))
    place = jnp.argsort(circle)  # of each row in the circle
    following = circle[jnp.where(place + 1 < n, place + 1, 0)]
    return jnp.where(visible, following, jnp.arange(len(visible), dtype=following.dtype))
