"""The arrays of all parameters side by side in one vector.

An optimizer does the same to each parameter. On a vector it is a few operations, which compile once and pass over the
memory once; on a hundred arrays, a hundred times as many.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.data.types import AnyArray
from sejax.engine.optimizer import is_kernel


@dataclass(frozen=True)
class Leaves:
    """Where each array of a tree of parameters lies in their vector: kernels first, each group in the tree's order."""

    structure: Any  # of the tree
    shapes: tuple[tuple[int, ...], ...]  # in the tree's order
    turn: tuple[int, ...]  # the arrays in the vector's order
    kernels: int  # how many values belong to kernels

    @classmethod
    def of(cls, params: Any) -> "Leaves":
        """Returns the places of parameters, of which only shapes are read.

        Raises:
          TypeError: some are not float32.
        """
        arrays, structure = jax.tree.flatten(params)
        if wrong := {str(x.dtype) for x in arrays if x.dtype != jnp.float32}:
            raise TypeError(f"parameters are float32, not {', '.join(sorted(wrong))}")
        decays = jax.tree.leaves(is_kernel(params))
        shapes = tuple(x.shape for x in arrays)
        turn = tuple(sorted(range(len(arrays)), key=lambda n: not decays[n]))
        return cls(structure, shapes, turn, sum(math.prod(shapes[n]) for n in turn if decays[n]))

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(map(math.prod, self.shapes))

    @property
    def decaying(self) -> Bool[Array, " parameter"]:
        """Which parameters belong to kernels."""
        return jnp.arange(self.size) < self.kernels

    @property
    def tree(self) -> Any:
        """The tree of the arrays' shapes."""
        return self.structure.unflatten([jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.shapes])

    def join(self, tree: Any) -> Float[Array, "*run parameter"]:
        """Returns the vector of a tree of arrays `[*run, ...]`, or one for each run."""
        arrays = self.structure.flatten_up_to(tree)
        runs = arrays[0].shape[: arrays[0].ndim - len(self.shapes[0])]
        return jnp.concatenate([arrays[n].reshape(*runs, -1) for n in self.turn], axis=-1)

    def split(self, vector: Float[AnyArray, "*run parameter"]) -> Any:
        """Returns the tree of arrays `[*run, ...]` of a vector, or of one for each run."""
        arrays: list[Any] = [None] * len(self.shapes)
        start = 0
        for n in self.turn:
            end = start + math.prod(self.shapes[n])
            arrays[n] = vector[..., start:end].reshape(*vector.shape[:-1], *self.shapes[n])
            start = end
        return self.structure.unflatten(arrays)
