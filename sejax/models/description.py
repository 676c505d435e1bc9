"""A model as plain JSON values, and back: what a file of trained parameters says that they are of."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax.numpy as jnp

from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk
from sejax.pretrained.base import Backbone, Lora
from sejax.pretrained.finetune import Tuning

_OF_FLAX = ("parent", "name", "streams", "dtype")  # fields of a module that are no option, or are written below


def describe_model(model: JointModel) -> dict[str, Any]:
    """Returns a model as JSON values; of a tuned stream without its backbone, which its checkpoint describes."""
    trunk = model.trunk
    return {
        "streams": [_describe_stream(stream) for stream in trunk.streams],
        "trunk": {f.name: getattr(trunk, f.name) for f in fields(trunk) if f.name not in _OF_FLAX},
        "dtype": jnp.dtype(trunk.dtype).name,
        "head": {"classes": model.head.classes, "dimensions": model.head.dimensions},
    }


def read_model(tree: Mapping[str, Any], backbones: Mapping[str, Backbone]) -> JointModel:
    """Returns the model that `describe_model` described.

    Args:
      tree: what it returned.
      backbones: of the tuned streams, by stream.

    Raises:
      KeyError, TypeError, ValueError: the tree is another one.
    """
    trunk = Trunk(
        streams=tuple(_read_stream(stream, backbones) for stream in tree["streams"]),
        dtype=jnp.dtype(tree["dtype"]),
        **tree["trunk"],
    )
    return JointModel(trunk, Heads(**tree["head"]))


def _describe_stream(stream: StreamSpec) -> dict[str, Any]:
    described = stream._asdict()
    if (tuning := described.pop("tuning")) is not None:
        described["tuning"] = {f.name: getattr(tuning, f.name) for f in fields(tuning) if f.name != "backbone"}
        described["tuning"]["lora"] = tuning.lora._asdict()
    return described


def _read_stream(tree: Mapping[str, Any], backbones: Mapping[str, Backbone]) -> StreamSpec:
    options = dict(tree)
    if tuning := options.pop("tuning", None):
        lora = Lora(**{**tuning["lora"], "targets": tuple(tuning["lora"]["targets"])})
        options["tuning"] = Tuning(**{**tuning, "backbone": backbones[options["name"]], "lora": lora})
    return StreamSpec(**options)
