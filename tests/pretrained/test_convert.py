"""Reading checkpoints: every layout that Hugging Face has written, and one sentence for each that is broken."""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny_study import GOLDEN_SSL

from sejax.errors import InputError
from sejax.pretrained.convert import fingerprint, load_checkpoint, read_backbone

GOLDENS = sorted(path.name for path in GOLDEN_SSL.iterdir() if path.is_dir())
HEADS = ("classifier", "classifier-last", "dimensional", "emotion2vec-base", "wavlm-classifier")
NEW_NAMES = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
Arrays = dict[str, np.ndarray]


def copy(tmp_path: Path, name: str, change: Callable[[Arrays], Any] = lambda arrays: None) -> Path:
    """A golden checkpoint whose arrays went through `change`, in place."""
    folder = tmp_path / name
    shutil.copytree(GOLDEN_SSL / name, folder)
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")
    return folder


def set_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(str(folder))
    assert str(folder) in str(caught.value)
    return str(caught.value)


def assert_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    jax.tree.map(np.testing.assert_array_equal, dict(one), dict(other))


# ------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", GOLDENS)
def test_every_golden_loads(name: str):
    """As exactly the tree, in float32, of the module itself; an emotion head only where there is one."""
    found = load_checkpoint(str(GOLDEN_SSL / name))
    assert found.folder == GOLDEN_SSL / name
    samples, lengths = np.zeros((1, 400), np.float32), np.array([400], np.int32)
    expected = jax.eval_shape(found.backbone.module().init, jax.random.key(0), samples, lengths)["params"]
    shapes = jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), found.params)
    assert shapes == jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), expected)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(found.params))
    assert bool(found.head) == (name in HEADS)
    assert found.backbone.normalise == (name != "wavlm-base" and not name.startswith("whisper"))
    assert found.backbone.family == json.loads((GOLDEN_SSL / name / "config.json").read_text())["model_type"]


def test_each_array_is_where_it_belongs():
    """A few by hand: transposed as they should be, each layer at its place."""
    found = load_checkpoint(str(GOLDEN_SSL / "wavlm-large")).params
    raw = load_file(GOLDEN_SSL / "wavlm-large" / "model.safetensors")
    for i in range(3):
        layer = f"encoder.layers.{i}"
        np.testing.assert_array_equal(
            found["layers"]["feed_forward"]["intermediate"]["kernel"][i],
            raw[f"{layer}.feed_forward.intermediate_dense.weight"].T,
        )
        np.testing.assert_array_equal(
            found["layers"]["attention"]["gate_constant"][i], raw[f"{layer}.attention.gru_rel_pos_const"][0, :, 0, 0]
        )
        np.testing.assert_array_equal(found["layers"]["final_norm"]["bias"][i], raw[f"{layer}.final_layer_norm.bias"])
    conv = raw["feature_extractor.conv_layers.1.conv.weight"]  # [out, in, width]
    assert found["feature_encoder"]["conv_1"]["kernel"][2, 5, 7] == conv[7, 5, 2]
    np.testing.assert_array_equal(found["position"]["weight_g"], raw[f"{NEW_NAMES}0"][0, 0])
    np.testing.assert_array_equal(found["position"]["weight_v"], raw[f"{NEW_NAMES}1"].transpose(2, 1, 0))
    np.testing.assert_array_equal(
        found["relative_position"]["embedding"], raw["encoder.layers.0.attention.rel_attn_embed.weight"]
    )


def test_both_spellings_of_weight_norm(tmp_path: Path):
    def as_of_old(arrays: Arrays) -> None:
        arrays["encoder.pos_conv_embed.conv.weight_g"] = arrays.pop(f"{NEW_NAMES}0")
        arrays["encoder.pos_conv_embed.conv.weight_v"] = arrays.pop(f"{NEW_NAMES}1")

    old = load_checkpoint(str(copy(tmp_path, "hubert-base", as_of_old)))
    assert_same(old.params, load_checkpoint(str(GOLDEN_SSL / "hubert-base")).params)


@pytest.mark.parametrize("prefix", ["hubert", "wav2vec2", "wavlm"])
def test_prefix_of_a_head(tmp_path: Path, prefix: str):
    """The encoder's arrays below a name, heads of pre-training and of recognition beside them."""

    def under_a_head(arrays: Arrays) -> None:
        for key in list(arrays):
            arrays[f"{prefix}.{key}"] = arrays.pop(key)
        arrays["lm_head.weight"] = np.zeros((8, 24), np.float32)
        arrays["final_proj.bias"] = np.zeros(8, np.float32)
        arrays["label_embs_concat"] = np.zeros((2, 8), np.float32)

    found = load_checkpoint(str(copy(tmp_path, "hubert-base", under_a_head)))
    assert_same(found.params, load_checkpoint(str(GOLDEN_SSL / "hubert-base")).params)
    assert found.head == {}


def test_shards(tmp_path: Path):
    """Several files with an index are as one without."""
    folder = tmp_path / "whole"
    shutil.copytree(GOLDEN_SSL / "wav2vec2-pretraining", folder)
    arrays: Arrays = {}
    for path in folder.glob("*.safetensors*"):
        if path.suffix == ".safetensors":
            arrays |= load_file(path)
        path.unlink()
    save_file(arrays, folder / "model.safetensors")
    assert_same(load_checkpoint(str(folder)).params, load_checkpoint(str(GOLDEN_SSL / "wav2vec2-pretraining")).params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats(tmp_path: Path, dtype: Any):
    """Widened to float32 without any other change."""

    def narrow(arrays: Arrays) -> None:
        for key in arrays:
            arrays[key] = arrays[key].astype(dtype)

    found = load_checkpoint(str(copy(tmp_path, "wavlm-base", narrow))).params
    exact = load_checkpoint(str(GOLDEN_SSL / "wavlm-base")).params
    assert_same(found, jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), exact))
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_no_mask_embedding():
    """Of a model that was never masked: zeros."""
    found = load_checkpoint(str(GOLDEN_SSL / "hubert-plain")).params
    assert not found["mask_embedding"].any() and found["mask_embedding"].shape == (24,)


@pytest.mark.parametrize("name", HEADS)
def test_arrays_of_a_head(name: str):
    head = load_checkpoint(str(GOLDEN_SSL / name)).head
    others = {"dimensional": (16, 3), "emotion2vec-base": (24, 5)}
    assert head["output"]["kernel"].shape == others.get(name, (12, 4))
    assert set(head) - {"layer_weights", "output"} == {"dense" if name == "dimensional" else "projector"}


def test_the_whole_file_goes_before_an_index(tmp_path: Path):
    """As transformers does it, whatever an older index beside it says."""
    folder = copy(tmp_path, "hubert-base")
    index = {"weight_map": {"encoder.layer_norm.bias": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(load_checkpoint(str(folder)).params, load_checkpoint(str(GOLDEN_SSL / "hubert-base")).params)


# ---------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("files", [None, [], {}, "x", {"a": 1}, {"a": ["x"]}])
def test_an_index_of_nothing(tmp_path: Path, files: Any):
    folder = tmp_path / "shards"
    shutil.copytree(GOLDEN_SSL / "wav2vec2-pretraining", folder)
    index = folder / "model.safetensors.index.json"
    set_json(index, weight_map=files)
    assert refused(folder) == f"{index}: has no weight_map of arrays to files, expected one"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("hubert-base", f"{NEW_NAMES}0", "encoder.pos_conv_embed.conv.weight_g"),
        ("hubert-base", "encoder.layer_norm.bias", "hubert.encoder.layer_norm.bias"),
        (
            "wavlm-base",
            "encoder.layers.0.attention.rel_attn_embed.weight",
            "encoder.layers.2.attention.rel_attn_embed.weight",
        ),
    ],
)
def test_two_arrays_for_one_place(tmp_path: Path, name: str, old: str, new: str):
    """Refused where they differ: neither may win by the order of the file."""
    folder = copy(tmp_path, name, lambda arrays: arrays.update({new: arrays[old].copy()}))
    assert_same(load_checkpoint(str(folder)).params, load_checkpoint(str(GOLDEN_SSL / name)).params)
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays | {new: arrays[old] + 1}, folder / "model.safetensors")
    assert "is there under another name too, with other values" in refused(folder)


def test_layers_that_are_missing_are_named(tmp_path: Path):
    def spoil(arrays: Arrays) -> None:
        for i in (0, 2):
            del arrays[f"encoder.layers.{i}.final_layer_norm.bias"]

    assert "layers 0 and 2, final_norm/bias is missing" in refused(copy(tmp_path, "hubert-base", spoil))


def test_a_missing_shard(tmp_path: Path):
    folder = tmp_path / "shards"
    shutil.copytree(GOLDEN_SSL / "wav2vec2-pretraining", folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    said = refused(folder)
    assert "model-00002-of-00002.safetensors is missing, expected it beside model.safetensors.index.json" in said


CONTENTS = {
    "cut": (lambda whole: whole[:-100], "cannot be read as safetensors"),
    "cut in its header": (lambda whole: whole[:100], "cannot be read as safetensors"),
    "longer": (lambda whole: whole + b"x", "cannot be read as safetensors"),
    "nonsense": (lambda _: b"\xff" * 64, "cannot be read as safetensors"),
    "a header beyond the file": (lambda whole: b"\xff" * 6 + b"\x00\x00" + whole[8:], "cannot be read as safetensors"),
    "empty": (lambda _: b"", "is an empty file, expected safetensors"),
    "zeros": (lambda _: bytes(4096), "is a file of zero bytes"),
    "git-lfs": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
    "a web page": (lambda _: b"<!doctype html><html></html>", "is a web page"),
    "an error page": (lambda _: b'{"error": "not found"}', "is JSON: {"),
    "torch": (lambda _: b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "is a zip archive"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_that_is_no_safetensors(tmp_path: Path, kind: str):
    damage, said = CONTENTS[kind]
    path = copy(tmp_path, "hubert-base") / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    found = refused(path.parent)
    assert found.startswith(f"{path}: {said}") and "expected" in found and "\n" not in found


def with_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the header of a safetensors file and keeps its data."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


BIAS = "encoder.layer_norm.bias"
HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "overlap": lambda header: header[BIAS].update(data_offsets=[4, 100]),
    "beyond the end": lambda header: header[BIAS].update(data_offsets=[1 << 50, (1 << 50) + 96]),
    "backwards": lambda header: header[BIAS].update(data_offsets=[96, 0]),
    "another shape": lambda header: header[BIAS].update(shape=[1 << 40]),
    "huge": lambda header: header[BIAS].update(shape=[1 << 62, 1 << 62]),
    "negative": lambda header: header[BIAS].update(shape=[-24]),
    "no type": lambda header: header[BIAS].update(dtype="FLOAT"),
    "a type of 4 bits": lambda header: header[BIAS].update(dtype="F4", shape=[192]),
    "a type of 8 bits": lambda header: header[BIAS].update(dtype="F8_E4M3", shape=[96]),
    "integers": lambda header: header[BIAS].update(dtype="I32"),
    "nothing": lambda header: [1],
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies(tmp_path: Path, kind: str):
    folder = copy(tmp_path, "hubert-base")
    with_header(folder / "model.safetensors", HEADERS[kind])
    assert "expected" in refused(folder)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9000))
def test_flipped_bytes_are_a_sentence_or_another_number(tmp_path_factory, flips: list[tuple[int, int]], cut: int):
    """Most flips are in the header; some checkpoints end early."""
    folder = tmp_path_factory.mktemp("flipped")
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(GOLDEN_SSL / "classifier-last" / name, folder)
    raw = bytearray((GOLDEN_SSL / "classifier-last" / "model.safetensors").read_bytes())
    for position, value in flips:
        raw[position] = value
    (folder / "model.safetensors").write_bytes(raw[: len(raw) - max(cut - 6000, 0)])
    with contextlib.suppress(InputError):
        load_checkpoint(str(folder))


def test_an_array_in_two_files(tmp_path: Path):
    folder = tmp_path / "shards"
    shutil.copytree(GOLDEN_SSL / "wav2vec2-pretraining", folder)
    one, other = sorted(folder.glob("*.safetensors"))
    name, x = next(iter(load_file(one).items()))
    save_file(load_file(other) | {name: x}, other)
    assert refused(folder) == f"{other}: has {name}, which {one.name} has too, expected it once"


def test_weights_that_are_not_finite(tmp_path: Path):
    def spoil(arrays: Arrays) -> None:
        arrays["encoder.layers.1.attention.k_proj.weight"][3, 4] = np.nan
        arrays["feature_projection.projection.bias"] = np.full(24, 1e300)

    said = refused(copy(tmp_path, "hubert-base", spoil))
    assert "2 arrays hold values that are NaN or infinite in float32 (encoder.layers.1.attention.k_proj.weight" in said


def test_arrays_outside_the_encoder_are_left_out(tmp_path: Path):
    """A head for speakers: one of its layers is called as the encoder's convolutions are, and one has integers."""

    def with_a_head(arrays: Arrays) -> None:
        for key in list(arrays):
            arrays[f"hubert.{key}"] = arrays.pop(key)
        arrays["feature_extractor.weight"] = np.zeros((8, 40), np.float32)
        arrays["tdnn.0.kernel.weight"] = np.zeros((8, 120), np.float32)
        arrays["objective.weight"] = np.full((8, 2), np.nan, np.float32)
        arrays["classifier.weight"] = np.zeros((8, 8), np.int64)

    found = load_checkpoint(str(copy(tmp_path, "hubert-base", with_a_head)))
    assert_same(found.params, load_checkpoint(str(GOLDEN_SSL / "hubert-base")).params)
    (note,) = found.notes
    assert note.endswith("are not used (feature_extractor.weight, objective.weight, tdnn.0.kernel.weight)")


def test_a_prefix_that_all_arrays_share(tmp_path: Path):
    def rename(arrays: Arrays) -> None:
        for key in list(arrays):
            arrays[f"module.ssl_model.{key}"] = arrays.pop(key)
        arrays["pooling.weight"] = np.zeros(3, np.float32)

    said = refused(copy(tmp_path, "hubert-base", rename))
    assert "arrays of its encoder begin with 'module.ssl_model.', expected 'hubert.' or nothing before them" in said
    assert said.endswith("before them: drop 'module.ssl_model.' from the names in it")


def test_another_model_altogether(tmp_path: Path):
    def replace(arrays: Arrays) -> None:
        arrays.clear()
        arrays["bert.embeddings.weight"] = np.zeros(3, np.float32)

    assert "holds bert.embeddings.weight, expected the arrays of a hubert encoder" in refused(
        copy(tmp_path, "hubert-base", replace)
    )


def test_all_that_is_wrong_at_once(tmp_path: Path):
    """Missing, unexpected, misshapen and of integers: one error names them all, and where they are."""

    def spoil(arrays: Arrays) -> None:
        del arrays["encoder.layers.1.final_layer_norm.bias"]
        del arrays["feature_projection.projection.bias"]
        arrays["encoder.adapter.weight"] = np.zeros(3, np.float32)
        arrays["encoder.layer_norm.weight"] = np.ones(23, np.float32)
        arrays["encoder.layers.0.attention.q_proj.weight"] = np.ones((24, 20), np.float32)
        arrays["encoder.layers.2.attention.k_proj.bias"] = np.zeros(24, np.int64)
        arrays["feature_extractor.conv_layers.3.conv.weight"] = np.zeros((8, 8), np.float32)

    said = refused(copy(tmp_path, "hubert-base", spoil))
    assert "differ from those expected by its config.json (hubert, 3 layers of 24)" in said
    assert "layer 1, final_norm/bias is missing" in said
    assert "feature_projection/projection/bias is missing" in said
    assert "encoder.adapter.weight is unexpected" in said
    assert "encoder.layer_norm.weight is [23], which gives [23], expected [24]" in said
    assert "encoder.layers.0.attention.q_proj.weight is [24, 20], which gives [20, 24], expected [24, 24]" in said
    assert "encoder.layers.2.attention.k_proj.bias holds int64, expected floats" in said
    assert "feature_extractor.conv_layers.3.conv.weight is [8, 8]" in said
    assert said.count(";") == 6  # nothing twice: what is there, but wrong, is not missing too


def test_no_more_than_a_screenful(tmp_path: Path):
    """Another model's arrays altogether: some are named, the others counted."""
    folder = copy(tmp_path, "hubert-base")
    shutil.copy(GOLDEN_SSL / "wavlm-classifier" / "model.safetensors", folder)
    said = refused(folder)
    assert "; and " in said and said.endswith(" more")
    assert len(said) < 1500


@pytest.mark.parametrize(("layers", "said"), [(2, "has a layer 2, expected 2 layers"), (5, "layers 3-4, ")])
def test_another_number_of_layers(tmp_path: Path, layers: int, said: str):
    folder = copy(tmp_path, "hubert-base")
    set_json(folder / "config.json", num_hidden_layers=layers)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("hubert-base", {"model_type": "bert"}, "model_type is 'bert', expected one of wav2vec2, hubert, wavlm"),
        ("hubert-base", {"model_type": None}, "model_type is None"),
        ("hubert-base", {"model_type": ["hubert"]}, "model_type is ['hubert']"),
        ("wav2vec2-base", {"add_adapter": True}, "adapters (add_adapter)"),
        ("wav2vec2-base", {"adapter_attn_dim": 16}, "attention adapters (adapter_attn_dim)"),
        ("hubert-base", {"conv_pos_batch_norm": True}, "batch norm of positions (conv_pos_batch_norm)"),
        ("hubert-base", {"hidden_act": "mish"}, "hidden_act 'mish'"),
        ("hubert-base", {"feat_extract_activation": "mish"}, "feat_extract_activation 'mish'"),
        ("hubert-base", {"feat_extract_norm": "batch"}, "feat_extract_norm 'batch'"),
        ("wavlm-base", {"num_attention_heads": 5}, "a hidden_size that num_attention_heads does not divide"),
        ("hubert-base", {"num_conv_pos_embedding_groups": 7}, "num_conv_pos_embedding_groups does not divide"),
    ],
)
def test_configs_that_are_not_supported(tmp_path: Path, name: str, changes: dict[str, Any], said: str):
    folder = copy(tmp_path, name)
    set_json(folder / "config.json", **changes)
    found = refused(folder)
    assert found.startswith(f"{folder / 'config.json'}: ") and said in found


def test_all_that_is_not_supported_at_once(tmp_path: Path):
    folder = copy(tmp_path, "wav2vec2-base")
    set_json(folder / "config.json", add_adapter=True, hidden_act="mish")
    with pytest.raises(InputError, match=r"adapters \(add_adapter\); hidden_act 'mish', which sejax does not support"):
        read_backbone(folder)


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_conv_pos_embeddings")
SIZES += ("num_conv_pos_embedding_groups", "num_buckets", "max_bucket_distance")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 10**9, 24.0, True, "24", None, [24]])
def test_sizes_that_are_none(tmp_path: Path, name: str, value: Any):
    path = copy(tmp_path, "wavlm-base") / "config.json"
    set_json(path, **{name: value})
    assert refused(path.parent).startswith(f"{path}: {name} is {value!r}, expected a whole number from ")


@pytest.mark.parametrize("name", ["conv_dim", "conv_kernel", "conv_stride"])
@pytest.mark.parametrize("value", [512, [], [8, 0], [8, 8.0], [[8]], "8", None, [8] * 33])
def test_convolutions_that_are_none(tmp_path: Path, name: str, value: Any):
    path = copy(tmp_path, "hubert-base") / "config.json"
    set_json(path, **{name: value})
    said = refused(path.parent)
    assert said.startswith(f"{path}: {name} is ") and "expected a list of 1 to 32 whole numbers" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, expected a number from 0 to below 1"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps is '1e-5', expected a number"),
        ({"hidden_dropout": 1.5}, "hidden_dropout is 1.5, expected a number from 0 to below 1"),
        ({"conv_bias": 1}, "conv_bias is 1, expected true or false"),
        ({"do_stable_layer_norm": "false"}, "do_stable_layer_norm is 'false', expected true or false"),
        ({"hidden_act": ["gelu"]}, "hidden_act is ['gelu'], expected a word"),
        (
            {"hidden_size": 0, "conv_bias": 0},
            "hidden_size is 0, expected a whole number from 1 to 65536; conv_bias is 0",
        ),
        ({"conv_stride": [5, 2]}, "has conv_dim, conv_kernel and conv_stride of different lengths"),
    ],
)
def test_fields_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], said: str):
    path = copy(tmp_path, "hubert-base") / "config.json"
    set_json(path, **changes)
    assert refused(path.parent).startswith(f"{path}: {said}")


def test_buckets_need_distances(tmp_path: Path):
    path = copy(tmp_path, "wavlm-base") / "config.json"
    set_json(path, max_bucket_distance=8)
    assert "a max_bucket_distance that is not above a quarter of num_buckets" in refused(path.parent)


def test_fields_of_heads_are_not_read(tmp_path: Path):
    """An encoder is usable whatever its config.json says about labels."""
    folder = copy(tmp_path, "hubert-base")
    set_json(folder / "config.json", id2label=["neu"], problem_type="ranking", tdnn_dim="wide", vocab_size=None)
    assert load_checkpoint(str(folder)).backbone == read_backbone(GOLDEN_SSL / "hubert-base")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read as JSON"), ("[]", "holds list, expected a JSON")])
def test_no_json(tmp_path: Path, name: str, text: str, said: str):
    folder = copy(tmp_path, "hubert-base")
    (folder / name).write_text(text)
    assert f"{folder / name}: {said}" in refused(folder)


def test_preprocessing(tmp_path: Path):
    folder = copy(tmp_path, "hubert-base")
    path = folder / "preprocessor_config.json"
    assert read_backbone(folder).normalise
    set_json(path, do_normalize=False)
    assert not read_backbone(folder).normalise
    set_json(path, do_normalize="no")
    assert refused(folder) == f"{path}: do_normalize is 'no', expected true or false"
    set_json(path, do_normalize=True, feature_size=80)
    assert refused(folder) == f"{path}: feature_size is 80, expected 1: raw samples"
    set_json(path, sampling_rate=8000)
    assert refused(folder) == f"{path}: sampling_rate is 8000, expected 16000"


def test_preprocessing_of_a_processor(tmp_path: Path):
    """transformers 5 writes the settings of the feature extractor into processor_config.json."""
    folder = copy(tmp_path, "hubert-base")
    path, other = folder / "preprocessor_config.json", folder / "processor_config.json"
    settings = json.loads(path.read_text())
    other.write_text(json.dumps({"feature_extractor": settings, "processor_class": "Wav2Vec2Processor"}))
    assert read_backbone(folder).normalise
    other.write_text(json.dumps({"feature_extractor": settings | {"do_normalize": False}}))
    assert "do_normalize is True in preprocessor_config.json and False in processor_config.json" in refused(folder)
    path.unlink()
    assert not load_checkpoint(str(folder)).backbone.normalise
    before = fingerprint(folder)
    other.write_text(json.dumps({"feature_extractor": settings}))
    assert fingerprint(folder) != before
    set_json(other, feature_extractor=settings | {"sampling_rate": 8000})
    assert refused(folder) == f"{other}: sampling_rate is 8000, expected 16000"
    for nothing in ({"processor_class": "Wav2Vec2Processor"}, {"feature_extractor": {}}, {}):
        other.write_text(json.dumps(nothing))
        assert "has no settings of a feature extractor, expected them in" in refused(folder)
    other.write_text(json.dumps({"feature_extractor": "Wav2Vec2FeatureExtractor"}))
    assert "feature_extractor is 'Wav2Vec2FeatureExtractor', expected a JSON object" in refused(folder)


# ------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_is_of_the_contents(tmp_path: Path):
    one = copy(tmp_path, "hubert-base")
    other = shutil.copytree(one, tmp_path / "elsewhere")
    (other / "README.md").write_text("a model")
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == 32


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_fingerprint_changes_with_a_byte(tmp_path: Path, name: str):
    folder = copy(tmp_path, "hubert-base")
    before = fingerprint(folder)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert fingerprint(folder) != before


def test_fingerprint_covers_every_shard(tmp_path: Path):
    folder = tmp_path / "shards"
    shutil.copytree(GOLDEN_SSL / "wav2vec2-pretraining", folder)
    before = fingerprint(folder)
    path = folder / "model-00002-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(folder) != before
