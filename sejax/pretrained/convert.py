"""Loads checkpoints in Hugging Face's layout as a backbone and a tree of parameters, without PyTorch.

The family's `RULES` say where each array goes. Whatever of the encoder is missing, unexpected or of another shape is
named in one error. Arrays outside the encoder and an emotion head are left out, with a note.
"""

import contextlib
import hashlib
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from sejax.errors import InputError
from sejax.host.magic import FIRST_BYTES, describe_contents
from sejax.host.wording import count
from sejax.pretrained.base import STACKED, Backbone, Rule
from sejax.pretrained.hub import CONFIG, PREPROCESSORS, locate, preprocessor_files, read_json, weight_files
from sejax.pretrained.registry import BACKBONES

NAMED = 8  # the largest number of arrays that an error names
FEW = 3  # the largest number of arrays that are named where all have the same in common

OF_NO_EFFECT = {"feature_extractor_type", "padding_side", "padding_value", "processor_class", "return_attention_mask"}
"""Settings of feature extractors that change no number here."""

CONVERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x,
    "linear": lambda x: x.T,  # [out, in] -> [in, out]
    "conv": lambda x: x.transpose(2, 1, 0),  # [out, in, width] -> [width, in, out]
    "pointwise": lambda x: x.transpose(2, 1, 0)[0],  # of a convolution of width 1: [out, in, 1] -> [in, out]
    "flat": lambda x: x.reshape(-1),  # of weight norm's size [1, 1, width], and of [1, head, 1, 1]
}
"""How an array changes from PyTorch's layout to Flax's, by `Rule.convert`."""

HEAD_RULES = (
    Rule(r"classifier\.dense\.weight", "dense/kernel", "linear"),
    Rule(r"classifier\.dense\.bias", "dense/bias"),
    Rule(r"classifier\.(out_proj|output)\.weight", "output/kernel", "linear"),
    Rule(r"classifier\.(out_proj|output)\.bias", "output/bias"),
    Rule(r"projector\.weight", "projector/kernel", "linear"),
    Rule(r"projector\.bias", "projector/bias"),
    Rule(r"classifier\.weight", "output/kernel", "linear"),
    Rule(r"classifier\.bias", "output/bias"),
    Rule(r"layer_weights", "layer_weights"),
)
"""The arrays of transformers' emotion heads, alike in all families (`sejax.pretrained.heads.linear`)."""

_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


class Wrapped(NamedTuple):
    """The pretrained model inside a wrapper."""

    backbone: Backbone
    renames: tuple[tuple[str, str], ...]  # patterns and replacements that give the names of transformers


class Wrapper(NamedTuple):
    """A kind of checkpoint whose config.json names a pretrained model instead of describing it."""

    holds: Callable[[Mapping[str, Any]], bool]  # whether a config.json is of this kind
    read: Callable[[Mapping[str, Any], Path], Wrapped]  # of the content of config.json and its path
    rules: tuple[Rule, ...]  # where the arrays of its head go
    not_used: str = ""  # a pattern of names that are no loss


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
    folder = locate(source, revision, check=partial(_has_preprocessor, ()))
    return Pretrained(folder, read_backbone(folder), fingerprint(folder))


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model: its backbone, and its parameters as `Backbone.module` reads them (float32)."""

    folder: Path
    backbone: Backbone
    params: dict[str, Any]
    head: dict[str, Any]  # arrays of an emotion head, as its rules place them; empty if it has none
    others: str = ""  # the first of the arrays that are neither the encoder's nor an emotion head's

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what is left out."""
        note = f"{self.folder}: arrays outside the encoder and an emotion head are not used ({self.others})"
        return (note,) if self.others else ()


class _Layout(NamedTuple):
    """What a checkpoint's configuration says of its arrays."""

    backbone: Backbone
    renames: tuple[tuple[str, str], ...] = ()
    head_rules: tuple[Rule, ...] = HEAD_RULES
    not_used: str = ""

    def renamed(self, key: str) -> str:
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def bare(self, key: str) -> str:
        """Returns a name as the encoder's rules know it."""
        return re.sub(f"^(?:{self.backbone.PREFIX})", "", self.renamed(key))

    def is_left_out(self, key: str) -> bool:
        """Returns whether an array is known and of no use."""
        return any(re.fullmatch(pattern, self.renamed(key)) for pattern in (self.backbone.NOT_USED, self.not_used))


def load_checkpoint(source: str, *, revision: str = "main", wrappers: Sequence[Wrapper] = ()) -> Checkpoint:
    """Loads a checkpoint in Hugging Face's layout: a local folder, or a hub id.

    Args:
      source: the folder or the hub id.
      revision: branch, tag or commit on the hub.
      wrappers: kinds of checkpoints that are read beside those whose config.json describes a pretrained model.

    Raises:
      InputError: there is no checkpoint, it is of another kind, or the encoder's arrays are not those of its
        config.json; all that is wrong with them is in one sentence.
    """
    folder = locate(source, revision, check=partial(_has_preprocessor, wrappers))
    layout = _read_layout(folder, wrappers)
    with contextlib.ExitStack() as stack:
        files = _open_arrays(weight_files(folder), stack)
        names = _sort_names(list(files), layout, folder)
        encoder: Iterable[tuple[str, np.ndarray]] = ((name, _read_array(files[name], name)) for name in names.encoder)
        if layout.renames:
            encoder = _merge_adapters(dict(encoder)).items()
        params = _convert(encoder, layout, folder)
        head = _convert_head({name: _read_array(files[name], name) for name in names.head}, layout, folder)
    return Checkpoint(folder, layout.backbone, params, head, _few(names.others))


def _has_preprocessor(wrappers: Sequence[Wrapper], path: Path) -> bool:
    """Returns whether a config.json of a known kind needs the settings of a preprocessor beside it."""
    if _find_wrapper(read_json(path), wrappers):
        return False
    _check_model_type(path)
    return True


def _find_wrapper(config: Mapping[str, Any], wrappers: Sequence[Wrapper]) -> Wrapper | None:
    return next((wrapper for wrapper in wrappers if wrapper.holds(config)), None)


def _read_layout(folder: Path, wrappers: Sequence[Wrapper]) -> _Layout:
    path = folder / CONFIG
    config = read_json(path)
    if (wrapper := _find_wrapper(config, wrappers)) is None:
        return _Layout(read_backbone(folder))
    return _Layout(*wrapper.read(config, path), wrapper.rules, wrapper.not_used)


def _merge_adapters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with the low-rank adapters of loralib (of factor 1/rank) added to their weights.

    An adapter that does not fit stays, and is an unexpected array.
    """
    merged = dict(arrays)
    for key in arrays:
        layer = key.removesuffix(".lora_A")
        parts = [f"{layer}.{name}" for name in ("lora_A", "lora_B", "weight")]
        if layer == key or not all(name in arrays and arrays[name].dtype in _FLOATS for name in parts):
            continue
        down, up, weight = (arrays[name].astype(np.float32) for name in parts)
        if down.ndim == up.ndim == 2 and len(down) == up.shape[1] and weight.shape == (len(up), down.shape[1]):
            merged[parts[2]] = weight + up @ down / np.float32(len(down))
            del merged[parts[0]], merged[parts[1]]
    return merged


def _few(names: Sequence[str]) -> str:
    """Returns the first of some names, and how many there are if not all are among them."""
    return ", ".join(names[:FEW]) + (f", ... {len(names)} in all" if len(names) > FEW else "")


def read_backbone(folder: Path) -> Backbone:
    """Returns what the configuration files of a checkpoint describe.

    Raises:
      InputError: another kind of model, no settings of a preprocessor, or what `Backbone.read` refuses.
    """
    config = _check_model_type(folder / CONFIG)
    return BACKBONES[config["model_type"]].read(config, _read_preprocessor(folder), folder)


def _check_model_type(path: Path) -> dict[str, Any]:
    """Returns the content of a config.json of a known family."""
    config = read_json(path)
    family = config.get("model_type")
    if family not in tuple(BACKBONES):
        raise InputError(f"{path}: model_type is {reprlib.repr(family)}, expected one of {', '.join(BACKBONES)}")
    return config


def _read_preprocessor(folder: Path) -> dict[str, Any]:
    """Returns the settings of the feature extractor: a file of their own, or a part of processor_config.json.

    Raises:
      InputError: there are none, or two that differ.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in preprocessor_files(folder):
        content = read_json(path)
        if path.name == PREPROCESSORS[1]:
            content = content.get("feature_extractor", content.get("audio_processor", {}))
            if not isinstance(content, dict):
                raise InputError(f"{path}: feature_extractor is {reprlib.repr(content)}, expected a JSON object")
        if content:
            found[path.name] = content
    if not found:
        raise InputError(
            f"{folder}: has no settings of a feature extractor, expected them in {' or '.join(PREPROCESSORS)}"
        )
    one, *others = found.values()
    for other in others:
        for name in sorted((set(one) | set(other)) - OF_NO_EFFECT):
            if one.get(name) != other.get(name):
                raise InputError(
                    f"{folder}: {name} is {reprlib.repr(one.get(name))} in {PREPROCESSORS[0]} and "
                    f"{reprlib.repr(other.get(name))} in {PREPROCESSORS[1]}, expected the same in both"
                )
    return one


def fingerprint(folder: Path) -> str:
    """Returns the blake2b of a located checkpoint's configuration files and of all its weights."""
    paths = [folder / CONFIG, *preprocessor_files(folder)[:1], *weight_files(folder)]
    try:
        return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error}), expected a checkpoint") from error


@lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, size, _ in files:
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


class _File(NamedTuple):
    """An open safetensors file."""

    path: Path
    arrays: Any


def _open_arrays(paths: Sequence[Path], stack: contextlib.ExitStack) -> dict[str, _File]:
    """Opens the files of a checkpoint's weights and returns the file of each array, by name.

    Raises:
      InputError: a file is damaged or of another format, or an array is in two files.
    """
    from safetensors import safe_open

    files: dict[str, _File] = {}
    for path in paths:
        try:
            file = _File(path, stack.enter_context(safe_open(path, framework="numpy")))
            names = list(file.arrays.keys())
        except Exception as error:  # damaged headers fail in many ways
            raise _unreadable(path, error) from error
        if twice := sorted(set(names) & set(files)):
            raise InputError(f"{path}: has {twice[0]}, which {files[twice[0]].path.name} has too, expected it once")
        files |= dict.fromkeys(names, file)
    return files


def _read_array(file: _File, name: str) -> np.ndarray:
    """Returns an array of an open file.

    Raises:
      InputError: numpy has no such type, or the file is damaged.
    """
    try:
        return file.arrays.get_tensor(name)
    except Exception as error:  # of types that numpy lacks, and of memory
        described = _describe(file, name)
        raise InputError(
            f"{file.path}: {name} ({described}) cannot be read ({' '.join(str(error).split())}), expected floats of "
            "16, 32 or 64 bits"
        ) from error


def _describe(file: _File, name: str) -> str:
    part = file.arrays.get_slice(name)
    return f"{part.get_dtype()} {part.get_shape()}"


def _unreadable(path: Path, error: Exception) -> InputError:
    """Returns the error of a file that is no safetensors file, or a damaged one."""
    try:
        with path.open("rb") as file:
            contents = describe_contents(file.read(FIRST_BYTES))
    except OSError as unopened:
        return InputError(f"{path}: cannot be read ({unopened.strerror or unopened}), expected safetensors")
    if contents and contents != "a safetensors file":
        return InputError(f"{path}: is {contents}, expected safetensors")
    return InputError(
        f"{path}: cannot be read as safetensors ({' '.join(str(error).split())}), expected a whole file: it is damaged "
        "or was not copied to its end"
    )


class _Names(NamedTuple):
    """The names of a checkpoint's arrays by what they belong to."""

    encoder: list[str]
    head: list[str]  # of emotion heads, as HEAD_RULES know them
    others: list[str]


def _sort_names(keys: Sequence[str], layout: _Layout, folder: Path) -> _Names:
    """Returns which arrays are the encoder's: those below its prefix, or if there is none, those with names of its own.

    Raises:
      InputError: none is, because all have another prefix or are of another model.
    """
    placed = {key for key in keys if _place(layout.backbone.RULES, layout.bare(key))}
    if not placed:
        raise _not_an_encoder(keys, layout, folder)
    prefixed = {key for key in keys if layout.bare(key) != layout.renamed(key)}
    own = placed | prefixed
    if 2 * len(placed & prefixed) < len(placed):  # a bare encoder
        own |= {key for key in keys if re.fullmatch(layout.backbone.OWN, layout.renamed(key))}
    own = {key for key in own if key in placed or not _place(layout.head_rules, layout.bare(key))}
    head = [key for key in keys if key not in own and _place(layout.head_rules, layout.bare(key))]
    known = own | set(head) | {key for key in keys if layout.is_left_out(key)}
    return _Names([key for key in keys if key in own], head, [key for key in keys if key not in known])


def _not_an_encoder(keys: Sequence[str], layout: _Layout, folder: Path) -> InputError:
    """Returns the error of arrays none of which is called as the encoder's are; it names a prefix that they share."""
    backbone = layout.backbone
    prefixes: Counter[str] = Counter()
    for key in keys:
        ends = [match.end() for match in re.finditer(r"\.", key)]
        if end := next((end for end in ends if _place(backbone.RULES, layout.bare(key[end:]))), None):
            prefixes[key[:end]] += 1
    if prefixes:
        ((prefix, times),) = prefixes.most_common(1)
        return InputError(
            f"{folder}: the names of {count(times, 'array')} of its encoder begin with {prefix!r}, expected "
            f"{backbone.family + '.'!r} or nothing before them: drop {prefix!r} from the names in it"
        )
    return InputError(
        f"{folder}: holds {_few(keys) or 'no arrays'}, expected the arrays of a {backbone.family} encoder: they are of "
        "another model"
    )


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


def _convert(arrays: Iterable[tuple[str, np.ndarray]], layout: _Layout, folder: Path) -> dict[str, Any]:
    """Returns the tree of the whole model, checked against the module's shapes; it reads each array once."""
    backbone = layout.backbone
    expected = _expected_shapes(backbone)
    placed: dict[str, dict[int, np.ndarray]] = {}  # by path and layer; those of stacked layers are parts of one array
    stacks: dict[str, np.ndarray] = {}
    refused: dict[str, set[int]] = {}  # the layers of arrays that exist, but not as expected
    wrong, infinite = [], []
    for key, x in arrays:
        place = _place(backbone.RULES, layout.bare(key))
        if place is None or place.path not in expected:
            wrong.append(f"{key} is unexpected")
            continue
        path, layer, convert = place
        try:
            converted = convert(x)
        except ValueError:  # another number of axes
            converted = x
        shape = expected[path][1:] if _is_stacked(path) else expected[path]
        if x.dtype in _FLOATS and converted.shape == shape:
            layers = placed.setdefault(path, {})
            converted = _as_float32(converted)
            if layer in layers and not np.array_equal(layers[layer], converted, equal_nan=True):
                wrong.append(f"{key} is there under another name too, with other values")
            if not np.isfinite(converted).all():
                infinite.append(key)
            if _is_stacked(path) and layer < expected[path][0]:
                # A copy of all layers would be another copy of the model.
                if path not in stacks:
                    stacks[path] = np.empty(expected[path], np.float32)
                stacks[path][layer] = converted
                converted = stacks[path][layer]
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
            tree[path] = stacks[path] if _is_stacked(path) else np.ascontiguousarray(layers[0])
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise InputError(
            f"{folder}: its arrays differ from those expected by its config.json ({backbone.family}, {backbone.layers} "
            f"layers of {backbone.hidden}): {'; '.join(wrong[:NAMED])}{more}"
        )
    if infinite:
        raise not_finite(infinite, folder)
    return traverse_util.unflatten_dict(tree, sep="/")


def not_finite(keys: Sequence[str], folder: Path) -> InputError:
    """Returns the error of arrays that hold NaN or infinite values."""
    hold = "holds" if len(keys) == 1 else "hold"
    return InputError(
        f"{folder}: {count(len(keys), 'array')} {hold} values that are NaN or infinite in float32 ({_few(keys)}), "
        "expected finite weights: its training diverged or the file is damaged"
    )


def _as_float32(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite, which is an error of its own
        return x.astype(np.float32)


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


def _convert_head(arrays: Mapping[str, np.ndarray], layout: _Layout, folder: Path) -> dict[str, Any]:
    """Returns the arrays of an emotion head; those that are no floats unchanged, for `heads` to refuse."""
    tree: dict[str, np.ndarray] = {}
    for key, x in arrays.items():
        if (place := _place(layout.head_rules, layout.bare(key))) is None:
            continue
        if place.path in tree:
            raise InputError(f"{folder}: {key} and another array are both {place.path} of the head, expected one")
        try:
            converted = np.ascontiguousarray(place.convert(x))
        except ValueError:  # another number of axes
            converted = x
        tree[place.path] = _as_float32(converted) if x.dtype in _FLOATS else converted
    return traverse_util.unflatten_dict(tree, sep="/")


def _expected_shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of the whole model, by path."""
    samples = jax.ShapeDtypeStruct((1, backbone.window), np.float32)
    lengths = jax.ShapeDtypeStruct((1,), np.int32)
    variables: Any = jax.eval_shape(backbone.module().init, jax.random.key(0), samples, lengths)
    return {path: x.shape for path, x in traverse_util.flatten_dict(variables["params"], sep="/").items()}
