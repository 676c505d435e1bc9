"""Multi-task weighting as optax transforms: from one gradient per task to one gradient.

`updates` is a pytree whose leaves have a leading task axis, `[task, ...]`: the gradient of each task's loss with
respect to that leaf (in sejax, to the fused representation, so that the trunk needs one backward pass, not one per
task). The update is the same pytree without that axis, `sum_k w_k g_k`. The loss of each task is an extra argument:

    update(updates, state, params=None, *, losses, present=None) -> (combined, state)

All schemes share the following, for K tasks and a prior `a_k >= 0` (scaled here to sum to 1):

- `sum_k w_k = K`, and a task whose prior is 0 has a weight of exactly 0. A task that alone has a prior has exactly K.
- A task is absent from a step if `present` says so or if its loss is not finite. Its weight is then 0, its gradient
  (perhaps NaN) does not enter the sum (`combine`), its moving averages do not change, and the rule is applied to the
  other tasks alone, whose weights sum to their number. If no task that is present has a prior above 0, every weight
  is 0.
- Moving averages start at their first value.
- Every state has `weights` and `head_weights`, those of the last update, and 0 before the first. A head belongs to
  one task. Its gradient is that of its task times `head_weights[k]`: `w_k` in the schemes that weight losses, and 1
  (0 for a task that is absent or without prior) in those that weight gradients at the shared representation.

Prior and hyperparameters may be traced, so that runs of different settings stack under `jax.vmap`.

A scheme is a rule; `core.transform` and `core.gradient_transform` make the transform around it. Adding a scheme is a
function that returns such a transform, and a row of `SCHEMES`. The schemes that need only losses have known weights
before any backward pass, as the sum of the rows of an identity. One backward pass, of the weighted sum of losses, is
then enough:

>>> scheme = SCHEMES["dynamic"].make(pair(0.5))
>>> state = scheme.init(None)
>>> losses, pull_back = jax.vjp(lambda x: jnp.stack([x**2, 3 * x]), jnp.array(1.0))
>>> weights, state = scheme.update(jnp.eye(2), state, losses=losses)
>>> print(weights, pull_back(weights)[0])
[1. 1.] 5.0
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import optax

from sejax.weighting import gradient_based, gram_based, learned, loss_based
from sejax.weighting.core import combine, pair
from sejax.weighting.selection import select

__all__ = ["SCHEMES", "Scheme", "combine", "pair", "select"]


@dataclass(frozen=True)
class Scheme:
    """A weighting scheme of the registry.

    Attributes:
      make: `make(prior, **hyperparameters)`, which returns the transform.
      needs: whether the rule needs only the losses, or also each task's gradient at the shared representation.
      takes: names of the hyperparameters that a training run sets: an option of that name (`tau`), `period` (the steps
        of an epoch) or `seed`. The others keep their defaults.
    """

    make: Callable[..., optax.GradientTransformationExtraArgs]
    needs: Literal["losses", "gradients"]
    takes: tuple[str, ...] = ()


SCHEMES: Mapping[str, Scheme] = {
    "static": Scheme(loss_based.static, "losses"),
    "dynamic": Scheme(loss_based.dynamic, "losses", takes=("tau",)),
    "uncertainty": Scheme(learned.uncertainty, "losses"),
    "dwa": Scheme(loss_based.dwa, "losses", takes=("tau", "period")),
    "rlw": Scheme(loss_based.rlw, "losses", takes=("seed",)),
    "geometric": Scheme(loss_based.geometric, "losses"),
    "imtl_l": Scheme(learned.imtl_l, "losses"),
    "famo": Scheme(learned.famo, "losses"),
    "stch": Scheme(loss_based.stch, "losses"),
    "joint": Scheme(gradient_based.joint, "gradients"),
    "gradnorm": Scheme(gradient_based.gradnorm, "gradients"),
    "pcgrad": Scheme(gram_based.pcgrad, "gradients", takes=("seed",)),
    "cagrad": Scheme(gram_based.cagrad, "gradients"),
    "imtl_g": Scheme(gram_based.imtl_g, "gradients"),
    "mgda": Scheme(gram_based.mgda, "gradients"),
    "aligned_mtl": Scheme(gram_based.aligned_mtl, "gradients"),
    "nash_mtl": Scheme(gram_based.nash_mtl, "gradients"),
    "upgrad": Scheme(gram_based.upgrad, "gradients"),
}
