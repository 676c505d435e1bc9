"""From a Hugging Face checkpoint on disk to an architecture and a tree of parameters, without PyTorch.

`RULES` says where each array goes; whatever is missing, unexpected or of another shape is named in one error.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.pretrained.hub import locate, without_warnings
from sejax.pretrained.wav2vec2 import ACTIVATIONS, Architecture, SSLModel

NAMED = 8  # arrays that an error names
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)
RELATIVE_SIZES = ("num_buckets", "max_bucket_distance")  # of WavLM
CONVOLUTIONS = ("conv_dim", "conv_kernel", "conv_stride")


class Rule(NamedTuple):
    """Keys that match `pattern` (`*` for the number of a layer) go to `path`, of which its groups are part."""

    pattern: str
    path: str
    convert: str = "same"  # a key of CONVERSIONS


CONVERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x,
    "linear": lambda x: x.T,  # [out, in] -> [in, out]
    "conv": lambda x: x.transpose(2, 1, 0),  # [out, in, width] -> [width, in, out]
    "flat": lambda x: x.reshape(-1),  # of weight norm's size [1, 1, width], and of [1, head, 1, 1]
}
_LAYER = r"encoder\.layers\.\*\."
_ATTENTION = _LAYER + r"attention\."

RULES = (
    Rule(r"feature_extractor\.conv_layers\.(\d+)\.conv\.weight", "feature_encoder/conv_{0}/kernel", "conv"),
    Rule(r"feature_extractor\.conv_layers\.(\d+)\.conv\.bias", "feature_encoder/conv_{0}/bias"),
    Rule(r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.weight", "feature_encoder/norm_{0}/scale"),
    Rule(r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.bias", "feature_encoder/norm_{0}/bias"),
    Rule(r"feature_projection\.layer_norm\.weight", "feature_projection/norm/scale"),
    Rule(r"feature_projection\.layer_norm\.bias", "feature_projection/norm/bias"),
    Rule(r"feature_projection\.projection\.weight", "feature_projection/projection/kernel", "linear"),
    Rule(r"feature_projection\.projection\.bias", "feature_projection/projection/bias"),
    Rule(r"masked_spec_embed", "mask_embedding"),
    # Weight norm, as PyTorch spells it since 2.1 and as it did before.
    Rule(r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "position/weight_g", "flat"),
    Rule(r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "position/weight_v", "conv"),
    Rule(r"encoder\.pos_conv_embed\.conv\.weight_g", "position/weight_g", "flat"),
    Rule(r"encoder\.pos_conv_embed\.conv\.weight_v", "position/weight_v", "conv"),
    Rule(r"encoder\.pos_conv_embed\.conv\.bias", "position/bias"),
    Rule(r"encoder\.layer_norm\.weight", "encoder_norm/scale"),
    Rule(r"encoder\.layer_norm\.bias", "encoder_norm/bias"),
    # WavLM keeps the buckets of all layers in its first one.
    Rule(_ATTENTION + r"rel_attn_embed\.weight", "relative_position/embedding"),
    Rule(_ATTENTION + r"([qkv]|out)_proj\.weight", "layers/attention/{0}_proj/kernel", "linear"),
    Rule(_ATTENTION + r"([qkv]|out)_proj\.bias", "layers/attention/{0}_proj/bias"),
    Rule(_ATTENTION + r"gru_rel_pos_linear\.weight", "layers/attention/gate/kernel", "linear"),
    Rule(_ATTENTION + r"gru_rel_pos_linear\.bias", "layers/attention/gate/bias"),
    Rule(_ATTENTION + r"gru_rel_pos_const", "layers/attention/gate_constant", "flat"),
    Rule(_LAYER + r"layer_norm\.weight", "layers/attention_norm/scale"),
    Rule(_LAYER + r"layer_norm\.bias", "layers/attention_norm/bias"),
    Rule(_LAYER + r"feed_forward\.(intermediate|output)_dense\.weight", "layers/feed_forward/{0}/kernel", "linear"),
    Rule(_LAYER + r"feed_forward\.(intermediate|output)_dense\.bias", "layers/feed_forward/{0}/bias"),
    Rule(_LAYER + r"final_layer_norm\.weight", "layers/final_norm/scale"),
    Rule(_LAYER + r"final_layer_norm\.bias", "layers/final_norm/bias"),
)
"""Where each array of an encoder goes. Arrays of numbered layers are stacked on a leading axis."""

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
"""The heads of emotion checkpoints (`sejax.pretrained.heads`)."""

LEFT_OUT = r"(quantizer|project_q|project_hid|lm_head|final_proj|label_embs_concat|ctc_proj|dropout_features)\b.*"
"""Heads of pre-training and of speech recognition."""

_PREFIX = re.compile(r"^(wav2vec2|hubert|wavlm)\.")
_NUMBER = re.compile(r"^(encoder\.layers\.)(\d+)(?=\.)")
_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


class Pretrained(NamedTuple):
    """A checkpoint that was found; none of its weights is in memory yet."""

    folder: Path
    architecture: Architecture
    normalise: bool  # it wants waveforms of zero mean and unit variance
    digest: str  # changes with what it computes


def find_pretrained(source: str, *, revision: str = "main") -> Pretrained:
    """Looks a checkpoint up, a local folder or a hub id (which may download it); raises as `load_checkpoint`."""
    folder = locate(source, revision)
    return Pretrained(folder, read_architecture(folder), reads_normalised(folder), fingerprint(folder))


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained model: what it is, and its parameters as `SSLModel` reads them (float32)."""

    folder: Path
    architecture: Architecture
    params: dict[str, Any]
    normalise: bool  # it wants waveforms of zero mean and unit variance
    head: dict[str, Any]  # of an emotion checkpoint; empty where it has none


def load_checkpoint(source: str, *, revision: str = "main") -> Checkpoint:
    """Reads a checkpoint in Hugging Face's layout: a local folder, or a hub id.

    Raises:
      InputError: it is not there, is of another kind, or its arrays are not those of its config.json; all that
        is wrong with the arrays in one sentence.
    """
    folder = locate(source, revision)
    architecture = read_architecture(folder)
    arrays = _read_arrays(folder)
    return Checkpoint(
        folder, architecture, _convert(arrays, architecture, folder), reads_normalised(folder), _convert_head(arrays)
    )


def read_architecture(folder: Path) -> Architecture:
    """What `config.json` describes, read by transformers' own class.

    Raises:
      InputError: another kind of model, or parts that are not supported, all of them named.
    """
    path = folder / "config.json"
    raw = _read_json(path)
    with without_warnings():
        from huggingface_hub.errors import StrictDataclassError
        from transformers import HubertConfig, Wav2Vec2Config, WavLMConfig

        classes: dict[Any, Any] = {"wav2vec2": Wav2Vec2Config, "hubert": HubertConfig, "wavlm": WavLMConfig}
        family: Any = raw.get("model_type")
        if family not in tuple(classes):
            raise InputError(f"{path}: model_type is {family!r}, expected one of {', '.join(classes)}.")
        try:
            c: Any = classes[family].from_dict(raw)
        except (AttributeError, TypeError, ValueError, StrictDataclassError) as error:
            raise InputError(f"{path}: transformers cannot read it ({' '.join(str(error).split())}).") from error
    wavlm = family == "wavlm"
    sizes = {name: getattr(c, name) for name in (*SIZES, *(RELATIVE_SIZES if wavlm else ()))}
    sizes |= {name: min(getattr(c, name), default=0) for name in CONVOLUTIONS}
    if small := [f"{name} {size}" for name, size in sizes.items() if size < 1]:
        raise InputError(f"{path}: has {'; '.join(small)}, expected 1 or more.")
    unsupported = {
        "adapters (add_adapter)": getattr(c, "add_adapter", False),
        "attention adapters (adapter_attn_dim)": getattr(c, "adapter_attn_dim", None) is not None,
        "batch norm of positions (conv_pos_batch_norm)": getattr(c, "conv_pos_batch_norm", False),
        f"feat_extract_norm {c.feat_extract_norm!r}": c.feat_extract_norm not in ("group", "layer"),
        f"hidden_act {c.hidden_act!r}": c.hidden_act not in ACTIVATIONS,
        f"feat_extract_activation {c.feat_extract_activation!r}": c.feat_extract_activation not in ACTIVATIONS,
        "conv_dim, conv_kernel and conv_stride of different lengths": len(
            {len(c.conv_dim), len(c.conv_kernel), len(c.conv_stride)}
        )
        > 1,
        "a hidden_size that num_attention_heads does not divide": c.hidden_size % c.num_attention_heads != 0,
        "a hidden_size that num_conv_pos_embedding_groups does not divide": c.hidden_size
        % c.num_conv_pos_embedding_groups
        != 0,
    }
    if found := [what for what, has in unsupported.items() if has]:
        raise InputError(f"{path}: has {'; '.join(found)}, which sejax does not support.")
    return Architecture(
        family=family,
        conv_dim=tuple(c.conv_dim),
        conv_kernel=tuple(c.conv_kernel),
        conv_stride=tuple(c.conv_stride),
        conv_bias=c.conv_bias,
        conv_norm=c.feat_extract_norm,
        conv_activation=c.feat_extract_activation,
        hidden=c.hidden_size,
        layers=c.num_hidden_layers,
        heads=c.num_attention_heads,
        intermediate=c.intermediate_size,
        activation=c.hidden_act,
        position_width=c.num_conv_pos_embeddings,
        position_groups=c.num_conv_pos_embedding_groups,
        pre_norm=c.do_stable_layer_norm,
        eps=c.layer_norm_eps,
        projection_norm=getattr(c, "feat_proj_layer_norm", True),
        buckets=c.num_buckets if wavlm else 0,
        max_distance=c.max_bucket_distance if wavlm else 0,
    )


def reads_normalised(folder: Path) -> bool:
    """Whether the checkpoint wants normalised waveforms, by its own preprocessing config.

    Raises:
      InputError: it wants another sampling rate than 16 kHz, or something else than samples.
    """
    path = folder / "preprocessor_config.json"
    raw = _read_json(path)
    with without_warnings():
        from transformers import Wav2Vec2FeatureExtractor

        c: Any = Wav2Vec2FeatureExtractor.from_dict(raw)
    if c.sampling_rate != SAMPLING_RATE:
        raise InputError(f"{path}: sampling_rate is {c.sampling_rate!r}, expected {SAMPLING_RATE}.")
    if c.feature_size != 1:
        raise InputError(f"{path}: feature_size is {c.feature_size!r}, expected 1: raw samples.")
    if not isinstance(c.do_normalize, bool):
        raise InputError(f"{path}: do_normalize is {c.do_normalize!r}, expected true or false.")
    return c.do_normalize


def read_labels(folder: Path) -> tuple[str, ...]:
    """The names of a head's outputs (`id2label`), in order.

    Raises:
      InputError: the outputs are not numbered from 0 without a gap.
    """
    path = folder / "config.json"
    labels = _read_json(path).get("id2label") or {}
    numbers = [str(i) for i in range(len(labels))]
    if not isinstance(labels, dict) or set(labels) != set(numbers):
        raise InputError(f"{path}: id2label is {labels!r}, expected names of the outputs by their numbers from 0.")
    return tuple(labels[i] for i in numbers)


def fingerprint(folder: Path) -> str:
    """Changes with what a checkpoint computes: blake2b of its configs and of all its weights."""
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds {type(found).__name__}, expected a JSON object.")
    return found


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by their names: of the whole file where there is one, as transformers does it,
    else of the files that the index names, else of all."""
    index = folder / "model.safetensors.index.json"
    names = [path.name for path in sorted(folder.glob("*.safetensors"))]
    if "model.safetensors" in names:
        names = ["model.safetensors"]
    elif index.is_file():
        files = _read_json(index).get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
            raise InputError(f"{index}: has no weight_map of arrays to files.")
        names = sorted(set(files.values()))
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing, which {index.name} names.")
        arrays.update(_read_safetensors(folder / name))
    return arrays


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}).") from error


def _convert(arrays: Mapping[str, np.ndarray], architecture: Architecture, folder: Path) -> dict[str, Any]:
    """The tree of `SSLModel`, checked against the shapes of the module itself."""
    expected = _expected_shapes(architecture)
    found: dict[str, dict[int, np.ndarray]] = {}  # by path and layer; what is not of a layer counts as layer 0
    refused: dict[str, set[int]] = {}  # likewise: what is there, but not as it should be
    wrong = []
    for key, x in arrays.items():
        name = _PREFIX.sub("", key)
        number = _NUMBER.match(name)
        path, convert = _place(RULES, _NUMBER.sub(r"\1*", name))
        if path is None:
            if _place(HEAD_RULES, name)[0] is not None:
                if x.dtype not in _FLOATS:
                    wrong.append(f"{key} holds {x.dtype}, expected floats")
            elif not re.fullmatch(LEFT_OUT, name):
                wrong.append(f"{key} is unexpected")
            continue
        stacked = path.startswith("layers/")
        layer = int(number[2]) if stacked and number else 0
        try:
            converted = convert(x)
        except ValueError:  # another number of axes
            converted = x
        shape = expected.get(path, ())[1:] if stacked else expected.get(path, ())
        if path not in expected:
            wrong.append(f"{key} is unexpected")
        elif x.dtype in _FLOATS and converted.shape == shape:
            own = found.setdefault(path, {})
            converted = converted.astype(np.float32)
            if layer in own and not np.array_equal(own[layer], converted, equal_nan=True):
                wrong.append(f"{key} is there under another name too, with other values")
            own[layer] = converted
        else:
            refused.setdefault(path, set()).add(layer)
            wrong.append(
                f"{key} is {list(x.shape)}, which gives {list(converted.shape)}, expected {list(shape)}"
                if x.dtype in _FLOATS
                else f"{key} holds {x.dtype}, expected floats"
            )
    # Checkpoints that were never masked in training have none.
    found.setdefault("mask_embedding", {0: np.zeros(architecture.hidden, np.float32)})
    tree: dict[str, Any] = {}
    for path, shape in expected.items():
        own = found.get(path, {})
        stacked = path.startswith("layers/")
        numbers = range(shape[0]) if stacked else range(1)
        if missing := [i for i in numbers if i not in own and i not in refused.get(path, ())]:
            named = _name_layers(missing)
            wrong.append(f"{path.replace('layers/', f'{named}, ') if stacked else path} is missing")
        wrong += [f"{path} has a layer {i}, expected {len(numbers)} layers" for i in own if i not in numbers]
        if not wrong:
            _put(tree, path, np.stack([own[i] for i in numbers]) if stacked else own[0])
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise InputError(
            f"{folder}: its arrays are not those of its config.json ({architecture.family}, {architecture.layers} "
            f"layers of {architecture.hidden}): {'; '.join(wrong[:NAMED])}{more}."
        )
    return tree


def _name_layers(layers: Sequence[int]) -> str:
    if len(layers) == 1:
        return f"layer {layers[0]}"
    together = layers[-1] - layers[0] == len(layers) - 1
    return f"layers {layers[0]}-{layers[-1]}" if together else f"layers {' and '.join(map(str, layers))}"


def _convert_head(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of an emotion head, as `HEAD_RULES` place them."""
    tree: dict[str, Any] = {}
    for key, x in arrays.items():
        path, convert = _place(HEAD_RULES, _PREFIX.sub("", key))
        if path is not None:
            _put(tree, path, convert(x).astype(np.float32))
    return tree


def _place(rules: Sequence[Rule], key: str) -> tuple[str | None, Callable[[np.ndarray], np.ndarray]]:
    """Where a key goes and how; None where no rule knows it."""
    for rule in rules:
        if match := re.fullmatch(rule.pattern, key):
            return rule.path.format(*match.groups()), CONVERSIONS[rule.convert]
    return None, CONVERSIONS["same"]


def _expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    samples = jax.ShapeDtypeStruct((1, architecture.window), np.float32)
    lengths = jax.ShapeDtypeStruct((1,), np.int32)
    tree = jax.eval_shape(SSLModel(architecture).init, jax.random.key(0), samples, lengths)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(k.key for k in path): leaf.shape for path, leaf in leaves}


def _put(tree: dict[str, Any], path: str, x: np.ndarray) -> None:
    *folders, name = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[name] = np.ascontiguousarray(x)
