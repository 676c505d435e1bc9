"""Loads checkpoints in Hugging Face's layout as a backbone and a tree of parameters, without PyTorch.

The family's `RULES` say where each array goes. Whatever is missing, unexpected or of another shape is named in one
error.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from sejax.errors import InputError
from sejax.pretrained.base import STACKED, Backbone, Rule
from sejax.pretrained.hub import locate, read_json
from sejax.pretrained.registry import BACKBONES

NAMED = 8  # the largest number of arrays that an error names

CONVERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x,
    "linear": lambda x: x.T,  # [out, in] -> [in, out]
    "conv": lambda x: x.transpose(2, 1, 0),  # [out, in, width] -> [width, in, out]
    "flat": lambda x: x.reshape(-1),  # of weight norm's size [1, 1, width], and of [1, head, 1, 1]
}
"""How an array changes from PyTorch's layout to Flax's, by `Rule.convert`."""

HEAD_RULES = (
    Rule(r"classifier\.dense\.weight", "dense/kernel", "linear"),
    Rule(r"classifier\.dense\.bias", "dense/bias"),
    Rule(r"classifier\.out_proj\.weight", "output/kernel", "linear"),
    Rule(r"classifier\.out_proj\.bias", "output/bias"),
    Rule(r"projector\.weight", "projector/kernel", "linear"),
    Rule(r"projector\.bias", "projector/bias"),
    Rule(r"classifier\.weight", "output/kernel", "linear"),
    Rule(r"classifier\.bias", "output/bias"),
    Rule(r"layer_weights", "layer_weights"),
)
"""The arrays of emotion heads, alike in all families (`sejax.pretrained.heads`)."""

_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


class Pretrained(NamedTuple):
    """A checkpoint that was located; none of its weights is in memory yet."""

    folder: Path
    backbone: Backbone
    digest: str  # of its files (`fingerprint`)


def find_pretrained(source: str, *, revision: str = "main") -> Pretrained:
    """Locates a checkpoint, a local folder or a hub id (which may download it), and reads its configuration.

    Raises:
      InputError: there is no checkpoint, or it is of another kind.
    """
    folder = locate(source, revision)
    return Pretrained(folder, read_backbone(folder), fingerprint(folder))


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model: its backbone, and its parameters as `Backbone.module` reads them (float32)."""

    folder: Path
    backbone: Backbone
    params: dict[str, Any]
    head: dict[str, Any]  # of an emotion checkpoint; empty if it has none


def load_checkpoint(source: str, *, revision: str = "main") -> Checkpoint:
    """Loads a checkpoint in Hugging Face's layout: a local folder, or a hub id.

    Raises:
      InputError: there is no checkpoint, it is of another kind, or its arrays are not those of its config.json; all
        that is wrong with the arrays is in one sentence.
    """
    folder = locate(source, revision)
    backbone = read_backbone(folder)
    arrays = _read_arrays(folder)
    return Checkpoint(folder, backbone, _convert(arrays, backbone, folder), _convert_head(arrays, backbone))


def read_backbone(folder: Path) -> Backbone:
    """Returns what the configuration files of a checkpoint describe.

    Raises:
      InputError: another kind of model, or what `Backbone.read` refuses.
    """
    path = folder / "config.json"
    config = read_json(path)
    family = config.get("model_type")
    if family not in tuple(BACKBONES):
        raise InputError(f"{path}: model_type is {family!r}, expected one of {', '.join(BACKBONES)}")
    return BACKBONES[str(family)].read(config, read_json(folder / "preprocessor_config.json"), folder)


def read_labels(folder: Path) -> tuple[str, ...]:
    """Returns the names of a head's outputs (`id2label`), in order.

    Raises:
      InputError: the outputs are not numbered from 0 without a gap.
    """
    path = folder / "config.json"
    labels = read_json(path).get("id2label") or {}
    numbers = [str(i) for i in range(len(labels))]
    if not isinstance(labels, dict) or set(labels) != set(numbers):
        raise InputError(f"{path}: id2label is {labels!r}, expected names of the outputs by their numbers from 0")
    return tuple(labels[i] for i in numbers)


def fingerprint(folder: Path) -> str:
    """Returns the blake2b of a checkpoint's configuration files and of all its weights."""
    paths = [folder / "config.json", folder / "preprocessor_config.json", *sorted(folder.glob("*.safetensors"))]
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, size, _ in files:
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a checkpoint, by name.

    They are in model.safetensors if that exists (as transformers decides it), else in the files that the index names,
    else in all files.
    """
    index = folder / "model.safetensors.index.json"
    names = [path.name for path in sorted(folder.glob("*.safetensors"))]
    if "model.safetensors" in names:
        names = ["model.safetensors"]
    elif index.is_file():
        files = read_json(index).get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
            raise InputError(f"{index}: has no weight_map of arrays to files")
        names = sorted(set(files.values()))
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing, which {index.name} names")
        arrays.update(_read_safetensors(folder / name))
    return arrays


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error


class _Place(NamedTuple):
    """Where an array goes."""

    path: str
    layer: int  # counted from 0; 0 for arrays outside STACKED too
    convert: Callable[[np.ndarray], np.ndarray]


def _place(rules: Sequence[Rule], name: str) -> _Place | None:
    """Returns the place of an array by the first rule that matches, None if there is none."""
    for rule in rules:
        if match := re.fullmatch(rule.pattern, name):
            groups = match.groupdict()
            layer = int(groups["layer"]) if _is_stacked(rule.path) else 0
            return _Place(rule.path.format(**groups), layer, CONVERSIONS[rule.convert])
    return None


def _is_stacked(path: str) -> bool:
    return path.startswith(f"{STACKED}/")


def _convert(arrays: Mapping[str, np.ndarray], backbone: Backbone, folder: Path) -> dict[str, Any]:
    """Returns the tree of the whole model, checked against the shapes of the module itself."""
    expected = _expected_shapes(backbone)
    placed: dict[str, dict[int, np.ndarray]] = {}  # by path and layer
    refused: dict[str, set[int]] = {}  # the layers of arrays that exist, but not as expected
    wrong = []
    for key, x in arrays.items():
        name = _without_prefix(key, backbone)
        place = _place(backbone.RULES, name)
        if place is None:
            if _place(HEAD_RULES, name):
                if x.dtype not in _FLOATS:
                    wrong.append(f"{key} holds {x.dtype}, expected floats")
            elif not re.fullmatch(backbone.LEFT_OUT, name):
                wrong.append(f"{key} is unexpected")
            continue
        path, layer, convert = place
        if path not in expected:
            wrong.append(f"{key} is unexpected")
            continue
        try:
            converted = convert(x)
        except ValueError:  # another number of axes
            converted = x
        shape = expected[path][1:] if _is_stacked(path) else expected[path]
        if x.dtype in _FLOATS and converted.shape == shape:
            layers = placed.setdefault(path, {})
            converted = converted.astype(np.float32)
            if layer in layers and not np.array_equal(layers[layer], converted, equal_nan=True):
                wrong.append(f"{key} is there under another name too, with other values")
            layers[layer] = converted
        else:
            refused.setdefault(path, set()).add(layer)
            wrong.append(
                f"{key} is {list(x.shape)}, which gives {list(converted.shape)}, expected {list(shape)}"
                if x.dtype in _FLOATS
                else f"{key} holds {x.dtype}, expected floats"
            )
    for path in backbone.OPTIONAL:
        placed.setdefault(path, {0: np.zeros(expected[path], np.float32)})
    tree: dict[str, np.ndarray] = {}
    for path, shape in expected.items():
        layers = placed.get(path, {})
        numbers = range(shape[0]) if _is_stacked(path) else range(1)
        if missing := [i for i in numbers if i not in layers and i not in refused.get(path, ())]:
            wrong.append(f"{_name_layers(path, missing)} is missing")
        wrong += [f"{path} has a layer {i}, expected {len(numbers)} layers" for i in layers if i not in numbers]
        if not wrong:
            x = np.stack([layers[i] for i in numbers]) if _is_stacked(path) else layers[0]
            tree[path] = np.ascontiguousarray(x)
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise InputError(
            f"{folder}: its arrays are not those of its config.json ({backbone.family}, {backbone.layers} "
            f"layers of {backbone.hidden}): {'; '.join(wrong[:NAMED])}{more}"
        )
    return traverse_util.unflatten_dict(tree, sep="/")


def _name_layers(path: str, layers: Sequence[int]) -> str:
    """Returns a path as an error names it: of some layers, their numbers first."""
    if not _is_stacked(path):
        return path
    if len(layers) == 1:
        numbers = f"layer {layers[0]}"
    elif layers[-1] - layers[0] == len(layers) - 1:
        numbers = f"layers {layers[0]}-{layers[-1]}"
    else:
        numbers = f"layers {' and '.join(map(str, layers))}"
    return f"{numbers}, {path.removeprefix(f'{STACKED}/')}"


def _convert_head(arrays: Mapping[str, np.ndarray], backbone: Backbone) -> dict[str, Any]:
    """Returns the arrays of an emotion head, as `HEAD_RULES` place them."""
    tree: dict[str, np.ndarray] = {}
    for key, x in arrays.items():
        if place := _place(HEAD_RULES, _without_prefix(key, backbone)):
            tree[place.path] = np.ascontiguousarray(place.convert(x).astype(np.float32))
    return traverse_util.unflatten_dict(tree, sep="/")


def _without_prefix(key: str, backbone: Backbone) -> str:
    return re.sub(f"^(?:{backbone.PREFIX})", "", key)


def _expected_shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of the whole model, by path."""
    samples = jax.ShapeDtypeStruct((1, backbone.window), np.float32)
    lengths = jax.ShapeDtypeStruct((1,), np.int32)
    variables: Any = jax.eval_shape(backbone.module().init, jax.random.key(0), samples, lengths)
    return {path: x.shape for path, x in traverse_util.flatten_dict(variables["params"], sep="/").items()}
