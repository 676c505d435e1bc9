"""Arrays that stay on disk until numpy asks for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num


@dataclass(frozen=True, eq=False)
class Stored:
    """An array of which only shape and type are in memory: each conversion to a numpy array reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], Num[np.ndarray, "..."]]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Num[np.ndarray, "..."]:
        return np.array(self.read(), dtype=dtype, copy=copy)
