"""Intervals around predicted dimensions, with a half width from the residuals of validation speakers.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018). Its promise is for exchangeable residuals. Those of a
validation speaker, on whom the epoch was chosen too, and of a test speaker are not quite: the coverage is measured.
"""

import math

import numpy as np
from jaxtyping import Float

LEVEL = 0.9
"""The promised share of truths inside the intervals."""


def half_width(residual: Float[np.ndarray, " row"], *, level: float = LEVEL) -> float | None:
    """Returns the ceil((n + 1) level)-th smallest of n absolute residuals; None if there are too few of them."""
    rank = math.ceil((len(residual) + 1) * level)
    return float(np.sort(np.abs(residual))[rank - 1]) if 0 < rank <= len(residual) else None
