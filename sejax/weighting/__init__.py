"""Multi-task weighting as optax transforms: from the gradients of the tasks to one gradient.

`updates` is a pytree whose leaves have a leading task axis, `[task, ...]`: the gradient of each task's loss
with respect to that leaf (in sejax, to the fused representation, so that the trunk is walked back once, not
once per task). The update is the same pytree without that axis, `sum_k w_k g_k`. The loss of each task is an
extra argument:

    update(updates, state, params=None, *, losses, present=None) -> (combined, state)

What all schemes share, for K tasks and a prior `a_k >= 0` (scaled here to sum to 1):

- `sum_k w_k = K`, and a task whose prior is 0 has a weight of exactly 0.
- A task is absent from a step if `present` says so or if its loss is not finite. It then has a weight of 0,
  its gradient (NaN, maybe) does not enter the sum (`combine`), its moving averages stand still, and the rule
  is applied to the other tasks alone, whose weights sum to their number. If the tasks present have no prior
  between them, as when all are absent, every weight is 0.
- Moving averages start at the first value seen.
- Every state has `weights` and `head_weights`. A head belongs to one task, and its gradient is its own task's
  times `head_weights[k]`: `w_k` where the scheme weights losses, 1 (0 for a task that is absent or without
  prior) where it weights gradients at the shared representation only.

Prior and hyperparameters may be traced, so that runs of different settings stack under `jax.vmap`.

There are two kinds. Those of `GRADIENT_BASED` look at the gradients. Those of `LOSS_BASED` look at the losses alone, so
that their weights are known before anything is walked back, as the sum of the rows of an identity; one backward
pass, of the weighted sum of losses, is then enough:

>>> scheme = dynamic(pair(0.5))
>>> state = scheme.init(None)
>>> losses, walk_back = jax.vjp(lambda x: jnp.stack([x**2, 3 * x]), jnp.array(1.0))
>>> weights, state = scheme.update(jnp.eye(2), state, losses=losses)
>>> print(weights, walk_back(weights)[0])
[1. 1.] 5.0
"""

from collections.abc import Callable, Mapping

import optax

from sejax.weighting.core import Scalar, combine, pair
from sejax.weighting.gradient_based import GradNormState, JointState, gradnorm, joint
from sejax.weighting.gram_based import (
    GramState,
    PCGradState,
    aligned_mtl,
    cagrad,
    imtl_g,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)
from sejax.weighting.learned import FamoState, ImtlLState, UncertaintyState, famo, imtl_l, uncertainty
from sejax.weighting.loss_based import (
    DwaState,
    DynamicState,
    GeometricState,
    RlwState,
    StaticState,
    StchState,
    dwa,
    dynamic,
    geometric,
    rlw,
    static,
    stch,
)
from sejax.weighting.selection import SelectState, select

Scheme = Callable[..., optax.GradientTransformationExtraArgs]
"""`scheme(prior, **hyperparameters)`."""

LOSS_BASED: Mapping[str, Scheme] = {
    "static": static,
    "dynamic": dynamic,
    "uncertainty": uncertainty,
    "dwa": dwa,
    "rlw": rlw,
    "geometric": geometric,
    "imtl_l": imtl_l,
    "famo": famo,
    "stch": stch,
}
"""Need only the losses."""

GRADIENT_BASED: Mapping[str, Scheme] = {
    "joint": joint,
    "gradnorm": gradnorm,
    "pcgrad": pcgrad,
    "cagrad": cagrad,
    "imtl_g": imtl_g,
    "mgda": mgda,
    "aligned_mtl": aligned_mtl,
    "nash_mtl": nash_mtl,
    "upgrad": upgrad,
}
"""Need each task's gradient at the shared representation."""

SCHEMES: Mapping[str, Scheme] = {**LOSS_BASED, **GRADIENT_BASED}

__all__ = [
    "GRADIENT_BASED",
    "LOSS_BASED",
    "SCHEMES",
    "DwaState",
    "DynamicState",
    "FamoState",
    "GeometricState",
    "GradNormState",
    "GramState",
    "ImtlLState",
    "JointState",
    "PCGradState",
    "RlwState",
    "Scalar",
    "Scheme",
    "SelectState",
    "StaticState",
    "StchState",
    "UncertaintyState",
    "aligned_mtl",
    "cagrad",
    "combine",
    "dwa",
    "dynamic",
    "famo",
    "geometric",
    "gradnorm",
    "imtl_g",
    "imtl_l",
    "joint",
    "mgda",
    "nash_mtl",
    "pair",
    "pcgrad",
    "rlw",
    "select",
    "static",
    "stch",
    "uncertainty",
    "upgrad",
]
