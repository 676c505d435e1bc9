"""The parameters of the joint model as those of its Flax counterpart, `sejax.models.joint.JointModel`."""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.benchmarks.torch_joint.layers import Block, Projection, Recurrence
from tools.benchmarks.torch_joint.model import JointModel, pair_name

Part = tuple[Projection, int]
"""A projection, and which of the equal parts of its outputs holds the queries, the values or the keys."""


def flax_views(
    model: JointModel, of: Callable[[Tensor], Tensor] = lambda p: p.detach()
) -> dict[str, tuple[int, list[Tensor]]]:
    """Returns views by the paths of the Flax parameters, each with the axis on which they join to the Flax array.

    Args:
      of: maps a parameter to the tensor that is viewed: the parameter itself, its gradient or its average.
    """
    views: dict[str, tuple[int, list[Tensor]]] = {}

    def put(path: str, view: Tensor) -> None:
        views[path] = 0, [view]

    def norm(path: str, layer: nn.LayerNorm) -> None:
        put(f"{path}/scale", of(layer.weight))
        put(f"{path}/bias", of(layer.bias))

    def dense(path: str, layer: nn.Linear) -> None:
        put(f"{path}/kernel", of(layer.weight).T)
        if layer.bias is not None:
            put(f"{path}/bias", of(layer.bias))

    def attention(path: str, query: Part, value: Part, key: Part, outer: nn.Linear, heads: int) -> None:
        for name, (layer, part) in {"query": query, "value": value, "key": key}.items():
            rows = slice(part * outer.in_features, (part + 1) * outer.in_features)
            put(f"{path}/{name}/kernel", of(layer.weight)[rows].T.unflatten(1, (heads, -1)))
            if name != "key":
                put(f"{path}/{name}/bias", of(layer.bias)[rows].unflatten(0, (heads, -1)))
        put(f"{path}/out/kernel", of(outer.weight).T.unflatten(0, (heads, -1)))
        put(f"{path}/out/bias", of(outer.bias))

    def lstm(path: str, layer: Recurrence) -> None:
        input_kernels, recurrent_kernels, biases = (
            [of(getattr(layer, f"{name}_l0{suffix}")) for suffix in ("", "_reverse")]
            for name in ("weight_ih", "weight_hh", "bias_ih")
        )
        views[f"{path}/input_kernel"] = 1, [x[:, :-1].T for x in input_kernels]
        views[f"{path}/recurrent_kernel"] = 0, [x.T[None] for x in recurrent_kernels]
        views[f"{path}/bias"] = 0, [x[None] for x in biases]

    def block(path: str, layer: Block) -> None:
        norm(f"{path}/LayerNorm_0", layer.attention_norm)
        attention(f"{path}/attention", (layer.inner, 0), (layer.inner, 1), (layer.inner, 2), layer.outer, layer.heads)
        norm(f"{path}/LayerNorm_1", layer.norm)
        dense(f"{path}/Dense_0", layer.up)
        dense(f"{path}/Dense_1", layer.down)

    for name in model.names:
        encoder, path = model.encoders[name], f"trunk/{name}_encoder"
        dense(f"{path}/Dense_0", encoder.front)
        for i, layer in enumerate((*encoder.norms, encoder.norm)):
            norm(f"{path}/LayerNorm_{i}", layer)
        for i, layer in enumerate(encoder.layers):
            if isinstance(layer, Block):
                block(f"{path}/Block_{i}", layer)
            elif isinstance(layer, Recurrence):
                lstm(f"{path}/LSTM_{i}", layer)
            else:
                put(f"{path}/Conv_{i}/kernel", of(layer.weight).permute(2, 1, 0))
                put(f"{path}/Conv_{i}/bias", of(layer.bias))
        block(f"trunk/{name}_self", model.blocks[name])
        dense(f"trunk/{name}_pooling/Dense_0", model.pooling[name].score)
        dense(f"trunk/{name}_pooling/Dense_1", model.pooling[name].hidden)
        norm(f"trunk/{name}_pooled_norm", model.pooling[name].norm)
    for name, other in permutations(model.names, 2):
        query, value, key = (
            (model.inner[owner], model.slots(owner).index((part, seen)))
            for owner, part, seen in ((name, "q", other), (other, "v", name), (other, "k", name))
        )
        outer = model.outer[pair_name(name, other)]
        attention(f"trunk/{pair_name(name, other)}/attention", query, value, key, outer, model.heads)
    dense("trunk/fusion", model.fusion)
    dense("head/label", model.label)
    dense("head/vad", model.vad)
    return views


def load_flax_params(model: JointModel, params: Mapping[str, Any]) -> None:
    """Copies the parameters of a Flax model, nested mappings of arrays, into the model.

    Raises:
      ValueError: when the two models do not have the same arrays.
    """
    arrays, views = dict(_leaves(params)), flax_views(model)
    if arrays.keys() != views.keys():
        raise ValueError(
            f"only one of the two models has {sorted(arrays.keys() ^ views.keys())}, expected the same arrays"
        )
    for path, (axis, parts) in views.items():
        whole = torch.from_numpy(np.array(arrays[path]))
        for view, part in zip(parts, whole.split([view.shape[axis] for view in parts], dim=axis), strict=True):
            if view.shape != part.shape:
                raise ValueError(f"{path} has shape {tuple(whole.shape)}, expected a part of shape {tuple(view.shape)}")
            view.copy_(part)


def to_flax(model: JointModel, of: Callable[[Tensor], Tensor] = lambda p: p.detach()) -> dict[str, np.ndarray]:
    """Returns the arrays of `flax_views` by path, joined."""
    return {path: torch.cat(views, dim=axis).cpu().numpy() for path, (axis, views) in flax_views(model, of).items()}


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the arrays of nested mappings with their paths."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
