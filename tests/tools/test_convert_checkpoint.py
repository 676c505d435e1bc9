"""The converter of pickled checkpoints: its sentences everywhere, the conversion itself where PyTorch is."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import convert_checkpoint

TOOL = Path(convert_checkpoint.__file__)
GOLDEN = Path(__file__).parents[1] / "golden" / "ssl"
HAS_TORCH = importlib.util.find_spec("torch") is not None


def refused(*arguments: str | Path) -> str:
    """The sentence with which the tool stops."""
    with pytest.raises(SystemExit) as caught:
        convert_checkpoint.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str)
    return caught.value.code


# ---------------------------------------------------------------------------------- without PyTorch


def test_help_needs_no_torch():
    """Nor does a mistake in the folder: torch is imported where the conversion begins."""
    program = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv[1:] = ['--help']; "
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert "pytorch_model.bin" in printed.stdout and "--force" in printed.stdout


def test_says_that_torch_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    said = refused(tmp_path)
    assert "needs PyTorch" in said and "pip install torch" in said
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_no_such_folder(tmp_path: Path):
    assert f"{tmp_path / 'none'} is not a folder" in refused(tmp_path / "none")
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"weights")
    assert f"{file} is not a folder" in refused(file)


def test_no_checkpoint_in_the_folder(tmp_path: Path):
    assert f"{tmp_path} holds nothing, expected pytorch_model.bin" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "holds config.json, model.safetensors, expected pytorch_model.bin" in refused(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path):
    index = {"weight_map": {"a": "part-1.bin", "b": "part-2.bin", "c": "part-1.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "part-1.bin").write_bytes(b"weights")
    assert "names part-2.bin, expected beside it" in refused(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": null}', '{"weight_map": {"a": 1}}'])
def test_a_malformed_index(tmp_path: Path, text: str):
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    assert "pytorch_model.bin.index.json has no weight_map" in refused(tmp_path)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "is an empty file, expected a PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
        (b"<!doctype html><html>", "is a web page"),
        (b"Entry not found", "is a text: 'Entry not found', expected a PyTorch file"),
    ],
)
def test_what_is_no_pickle(tmp_path: Path, contents: bytes, said: str):
    source = tmp_path / "pytorch_model.bin"
    source.write_bytes(contents)
    assert refused(tmp_path).startswith(f"{source} {said}")


def test_replaces_nothing_unasked(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    there = tmp_path / "model.safetensors"
    there.write_bytes(b"precious")
    assert f"{there} exists already, expected a new file, or --force" in refused(tmp_path)
    assert there.read_bytes() == b"precious"
    assert "is a folder, expected the name of the file" in refused(tmp_path, "--out", tmp_path)


# ------------------------------------------------------------------------------------- with PyTorch

needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed here, as sejax does without it")


class Code:
    """What a malicious file does when it is unpickled in full."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def golden_tensors(name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {
        key: tensor for file in sorted((GOLDEN / name).glob("*.safetensors")) for key, tensor in load_file(file).items()
    }


def assert_holds(file: Path, tensors: dict[str, Any]) -> None:
    """The file holds exactly these tensors, bit for bit and in their types, marked as PyTorch's."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    found = load_file(file)
    assert set(found) == set(tensors)
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


@needs_torch
@pytest.mark.parametrize("as_zip", [True, False])
def test_converts_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_zip: bool):
    """In today's format of torch.save and in that of files from before PyTorch 1.6."""
    import torch

    tensors = golden_tensors("wavlm-base")
    source = tmp_path / "pytorch_model.bin"
    torch.save(tensors, source, _use_new_zipfile_serialization=as_zip)
    source.chmod(0o644)
    convert_checkpoint.main([str(tmp_path)])
    written = tmp_path / "model.safetensors"
    assert_holds(written, tensors)
    assert f"{written}: {len(tensors)} tensors" in capsys.readouterr().out
    assert written.stat().st_mode == source.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "pytorch_model.bin"]


@needs_torch
def test_converts_the_state_dict_of_a_module(tmp_path: Path):
    import torch

    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 4), torch.nn.BatchNorm1d(3)).double()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    out = tmp_path / "new" / "weights.safetensors"
    convert_checkpoint.main([str(tmp_path), "--out", str(out)])
    assert_holds(out, dict(module.state_dict()))  # float64, and an int64 count of batches
    assert not (tmp_path / "model.safetensors").exists()


@needs_torch
def test_converts_shards_into_one_file(tmp_path: Path):
    import torch

    tensors = golden_tensors("wav2vec2-pretraining")
    keys = sorted(tensors)
    files = {key: f"pytorch_model-{i % 2 + 1:05d}-of-00002.bin" for i, key in enumerate(keys)}
    for file in set(files.values()):
        torch.save({key: tensors[key] for key in keys if files[key] == file}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    convert_checkpoint.main([str(tmp_path)])
    assert_holds(tmp_path / "model.safetensors", tensors)

    index.write_text(json.dumps({"weight_map": files | {"lm_head.weight": files[keys[0]]}}))
    assert "lack lm_head.weight (1 in all), expected every tensor that pytorch_model.bin.index.json names" in refused(
        tmp_path, "--force"
    )
    assert_holds(tmp_path / "model.safetensors", tensors)


@needs_torch
def test_tensors_may_share_memory_and_lie_in_any_order(tmp_path: Path):
    import torch

    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"base": base, "same": base, "row": base[1], "transposed": base.T, "half": base.half(), "none": base[:0]}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    convert_checkpoint.main([str(tmp_path)])
    assert_holds(tmp_path / "model.safetensors", tensors)


@needs_torch
def test_force_replaces(tmp_path: Path):
    import torch

    (tmp_path / "model.safetensors").write_bytes(b"old")
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    convert_checkpoint.main([str(tmp_path), "--force"])
    assert_holds(tmp_path / "model.safetensors", {"a": torch.ones(2)})


@needs_torch
@pytest.mark.parametrize("as_zip", [True, False])
def test_code_is_refused_and_does_not_run(tmp_path: Path, as_zip: bool):
    import torch

    mark, source = tmp_path / "ran", tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2), "b": Code(mark)}, source, _use_new_zipfile_serialization=as_zip)
    said = refused(tmp_path)
    assert f"{source} holds more than tensors" in said and "mkdir" in said and "refused" in said
    assert not mark.exists() and not (tmp_path / "model.safetensors").exists()
    torch.load(source, weights_only=False)
    assert mark.exists()  # so the file was a malicious one


@needs_torch
def test_what_is_no_state_dict_is_refused(tmp_path: Path):
    import torch

    def said(value: object) -> str:
        torch.save(value, tmp_path / "pytorch_model.bin")
        return refused(tmp_path)

    assert "holds a list, expected a state dict" in said([torch.ones(2)])
    assert "holds a Tensor, expected a state dict" in said(torch.ones(2))
    assert "'state_dict' is a dict, 'epoch' is a int" in said({"state_dict": {"a": torch.ones(2)}, "epoch": 3})
    assert "it is empty" in said({})
    assert "holds more than tensors" in said(torch.nn.Linear(2, 2)) and "Linear" in said(torch.nn.Linear(2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


@needs_torch
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_refused(tmp_path: Path):
    import torch

    source = tmp_path / "pytorch_model.bin"
    for as_zip in (True, False):
        torch.save({"a": torch.ones(1000)}, source, _use_new_zipfile_serialization=as_zip)
        whole = source.read_bytes()
        source.write_bytes(whole[:1000])
        assert f"{source} cannot be read" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]
