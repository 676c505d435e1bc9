"""Losses of both label kinds as pure functions, masked by weights.

A weight is 1 for a row (of a batch, of a dimension) that counts and 0 for one that does not: padding, or an
utterance that lacks the label. Fractions are allowed. A row of weight 0 has no influence on the value or the
gradient, whatever it holds, NaN included. Where nothing counts, a loss is 0 with a gradient of 0, never 0/0;
`dimensions_present` says which dimensions have a loss. NaN in a row that counts is not hidden.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sejax.errors import InputError

_SMALLEST_REST = 1e-6
"""The least 1 - p of a focal loss: powers below 1 have no finite slope at 0."""

# Below this, the spread of predictions and targets and the distance of their means are rounding errors.
_SMALLEST_CCC_DENOMINATOR = 1e-8


def cross_entropy(
    logits: Float[Array, "batch class"],
    target: Float[Array, "batch class"],
    weight: Float[Array, " batch"],
    *,
    label_smoothing: float | Float[Array, ""] = 0.0,
    class_weight: Float[Array, " class"] | None = None,
    focal_gamma: float | Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Returns the cross-entropy in nats, the weighted mean over the rows; or the focal loss.

    Args:
      logits: unnormalised log-probabilities.
      target: one-hot, or the raters' label distribution; rows sum to 1.
      weight: 0 for a row that does not count.
      label_smoothing: the share of the target that is spread evenly over all classes (Szegedy et al. 2016).
      class_weight: weight of each class. As in torch's `CrossEntropyLoss`, the sum of the weighted terms is
        divided by the sum of the class weights of the (unsmoothed) targets.
      focal_gamma: of the focal loss, `-sum_c q_c (1 - p_c)^gamma log p_c` with the target q, which for one class is
        that of Lin et al. (*Focal Loss for Dense Object Detection*, ICCV 2017): what the model is sure of counts less.
        0 is the cross-entropy, to the bit.

    Returns:
      The loss; 0 if no row counts.
    """
    counts = weight[:, None] > 0
    logits = jnp.where(counts, logits, 0)
    target = jnp.where(counts, target, 0)
    smoothed = (1 - label_smoothing) * target + label_smoothing / logits.shape[1]
    if class_weight is not None:
        smoothed = smoothed * class_weight[None, :]
        row_weight = weight * jnp.sum(target * class_weight[None, :], axis=1)
    else:
        row_weight = weight
    log_p = jax.nn.log_softmax(logits)
    if focal_gamma is not None:
        smoothed = smoothed * jnp.power(jnp.maximum(-jnp.expm1(log_p), _SMALLEST_REST), focal_gamma)
    per_row = -jnp.sum(smoothed * log_p, axis=1)
    return _divide(jnp.sum(weight * per_row), jnp.sum(row_weight))


def ccc_loss(
    pred: Float[Array, "batch dim"], target: Float[Array, "batch dim"], weight: Float[Array, "batch dim"]
) -> Float[Array, " dim"]:
    """Returns 1 - CCC over the batch, per dimension.

    The concordance correlation coefficient with population moments is
    `2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2)` (Lin, *A concordance correlation coefficient to evaluate
    reproducibility*, Biometrics 45, 1989). The moments are those of centred values: in float32 a mean far
    from 0 would otherwise cost the digits of the variance. Predictions and targets that are constant and
    equal have no CCC; their loss is 1, with a gradient of 0.

    Returns:
      The loss of each dimension, from 0 to 2; 0 for a dimension with fewer than two rows that count.
    """
    pred, target = jnp.where(weight > 0, pred, 0), jnp.where(weight > 0, target, 0)
    total = jnp.sum(weight, axis=0)
    mean_pred = _divide(jnp.sum(weight * pred, axis=0), total)
    mean_target = _divide(jnp.sum(weight * target, axis=0), total)
    pred, target = pred - mean_pred[None, :], target - mean_target[None, :]
    covariance = _divide(jnp.sum(weight * pred * target, axis=0), total)
    spread = _divide(jnp.sum(weight * (jnp.square(pred) + jnp.square(target)), axis=0), total)
    denominator = spread + jnp.square(mean_pred - mean_target)
    ccc = 2 * covariance / jnp.maximum(denominator, _SMALLEST_CCC_DENOMINATOR)
    return jnp.where(dimensions_present("ccc", weight), 1 - ccc, 0)


def mse_loss(
    pred: Float[Array, "batch dim"], target: Float[Array, "batch dim"], weight: Float[Array, "batch dim"]
) -> Float[Array, " dim"]:
    """Returns the squared error per dimension, the weighted mean over the rows; 0 for a dimension without any."""
    error = jnp.where(weight > 0, pred - jnp.where(weight > 0, target, 0), 0)
    return _divide(jnp.sum(weight * jnp.square(error), axis=0), jnp.sum(weight, axis=0))


def mae_loss(
    pred: Float[Array, "batch dim"], target: Float[Array, "batch dim"], weight: Float[Array, "batch dim"]
) -> Float[Array, " dim"]:
    """Returns the absolute error per dimension, the weighted mean over the rows; 0 for a dimension without any."""
    error = jnp.where(weight > 0, pred - jnp.where(weight > 0, target, 0), 0)
    return _divide(jnp.sum(weight * jnp.abs(error), axis=0), jnp.sum(weight, axis=0))


class VadLoss(NamedTuple):
    """A loss of valence, arousal and dominance."""

    function: Callable[..., Float[Array, " dim"]]  # (pred, target, weight) -> loss of each dimension
    title: str  # for people
    least_rows: int  # that a dimension needs to have a loss
    on_host: Callable[[Float[np.ndarray, " row"], float], float]  # (pred - target, CCC) of one dimension -> loss


VAD_LOSSES: Mapping[str, VadLoss] = {
    "ccc": VadLoss(ccc_loss, "1-CCC", 2, lambda error, ccc: 1 - ccc),
    "mse": VadLoss(mse_loss, "MSE", 1, lambda error, ccc: float((error**2).mean())),
    "mae": VadLoss(mae_loss, "MAE", 1, lambda error, ccc: float(np.abs(error).mean())),
}
"""The losses that `config.loss.vad` may name."""


def dimension_losses(
    kind: str,
    pred: Float[Array, "batch dim"],
    target: Float[Array, "batch dim"],
    weight: Float[Array, "batch dim"],
) -> Float[Array, " dim"]:
    """Returns the loss of each dimension.

    Raises:
      InputError: `kind` is not a key of `VAD_LOSSES`.
    """
    if kind not in VAD_LOSSES:
        raise InputError(f"config.loss.vad is {kind!r}, expected one of {', '.join(VAD_LOSSES)}")
    return VAD_LOSSES[kind].function(pred, target, weight)


def dimensions_present(kind: str, weight: Float[Array, "batch dim"]) -> Bool[Array, " dim"]:
    """Returns whether each dimension has the rows that its loss needs: two for "ccc", one for the others."""
    return jnp.sum(weight > 0, axis=0) >= VAD_LOSSES[kind].least_rows


def vad_loss(
    kind: str,
    pred: Float[Array, "batch dim"],
    target: Float[Array, "batch dim"],
    weight: Float[Array, "batch dim"],
) -> Float[Array, ""]:
    """Returns the mean of `dimension_losses` over the dimensions present in the batch; 0 if there is none."""
    losses = dimension_losses(kind, pred, target, weight)
    present = dimensions_present(kind, weight).astype(losses.dtype)
    return _divide(jnp.sum(present * losses), jnp.sum(present))


def _divide(total: Float[Array, "*shape"], weight: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns `total / weight`, 0 where the weight is 0. The inner `where` keeps 0/0 out of the gradient."""
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)
