"""Locating checkpoints: the errors of folders, and of a hub that is never really asked."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sejax.errors import InputError
from sejax.pretrained import hub
from sejax.pretrained.convert import find_pretrained
from sejax.pretrained.hub import read_json, without_warnings

ID = "someone/emotion"
COMPLETE = ("config.json", "preprocessor_config.json", "model.safetensors")
INDEX = "model.safetensors.index.json"


def locate(source: str, revision: str = "main") -> Path:
    return hub.locate(source, revision, check=lambda path: read_json(path) is not None)


def write(folder: Path, names: Sequence[str] = COMPLETE) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def refused(source: str | Path, revision: str = "main") -> str:
    with pytest.raises(InputError) as caught:
        locate(str(source), revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def of_the_hub(kind: type[Exception]) -> Exception:
    """An error as the hub's client raises it."""
    return kind("said\nthe hub", response=SimpleNamespace(headers={}, request=None))  # type: ignore[call-arg]


def not_cached(cause: Exception | None = None) -> Exception:
    error = LocalEntryNotFoundError("not cached")
    error.__cause__ = cause
    return error


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Puts a repository in place, whose files have a content or an error; returns the list of downloads."""

    def put(files: Mapping[str, str | Exception], absent: Exception | None = None) -> list[str]:
        asked: list[str] = []

        def hf_hub_download(source: str, name: str, *, revision: str, etag_timeout: float) -> str:
            assert source == ID and etag_timeout <= 30
            asked.append(name)
            content = files.get(name, absent or of_the_hub(RemoteEntryNotFoundError))
            if isinstance(content, Exception):
                raise content
            path = tmp_path / revision.replace("/", "-") / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
            return str(path)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: sorted(files))
        return asked

    return put


# -------------------------------------------------------------------------------------------- folders


def test_a_folder(tmp_path: Path, ask: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch):
    """Found without the hub, absolute, relative to the home or to where one is."""
    asked = ask({})
    folder = write(tmp_path / "model")
    assert locate(str(folder)) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/model") == folder
    monkeypatch.chdir(tmp_path)
    assert locate("model") == locate("./model") == Path("model")
    assert asked == []


@pytest.mark.parametrize("source", ["./none", "/none/at/all", "~/none", "a/b/c"])
def test_no_such_folder(source: str, ask: Callable[..., list[str]]):
    asked = ask({})
    assert f"{source}: no such folder" in refused(source)
    assert asked == []


def test_no_source(tmp_path: Path):
    assert "is empty, expected a folder or a Hugging Face id" in refused("")
    assert "is an address, expected a folder or a hub id" in refused("https://huggingface.co/someone/emotion")
    (tmp_path / "model.safetensors").write_text("")
    assert "is a file, expected the folder that holds" in refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize("source", ["~nobody-of-that-name/model", "./" + "x" * 300])
def test_paths_that_cannot_be(source: str):
    assert refused(source).startswith(f"{source}: cannot be read (")


@pytest.mark.parametrize("name", COMPLETE)
def test_a_file_is_absent(name: str, tmp_path: Path):
    write(tmp_path, [other for other in COMPLETE if other != name])
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path}: has n") and name in said and "expected" in said


def test_the_checkpoint_is_a_folder_inside(tmp_path: Path):
    write(tmp_path / "checkpoint-500")
    assert refused(tmp_path).endswith("(the folder checkpoint-500 in it has one)")


def test_a_folder_of_funasr_is_to_be_converted(tmp_path: Path):
    write(tmp_path, ("config.yaml", "model.pt"))
    said = refused(tmp_path)
    assert f"{tmp_path}: has no config.json, expected" in said
    assert said.endswith(
        f"emotion2vec tools/convert_checkpoint.py converts (python tools/convert_checkpoint.py {tmp_path})"
    )


def test_either_file_of_the_preprocessor(tmp_path: Path):
    assert locate(str(write(tmp_path, ("config.json", "processor_config.json", "model.safetensors")))) == tmp_path


def test_only_pytorchs_weights(tmp_path: Path):
    write(tmp_path, ("config.json", "preprocessor_config.json", "pytorch_model.bin"))
    said = refused(tmp_path)
    assert "pytorch_model.bin, which only PyTorch can read" in said
    assert f"python tools/convert_checkpoint.py {tmp_path}" in said
    assert (Path(__file__).parents[2] / "tools" / "convert_checkpoint.py").is_file()


def test_weights_of_another_library(tmp_path: Path):
    write(tmp_path, ("config.json", "preprocessor_config.json", "flax_model.msgpack"))
    assert refused(tmp_path).endswith("has no model.safetensors, expected its weights there, found flax_model.msgpack")


# ------------------------------------------------------------------------------------------------ hub


def test_downloads_what_is_read_and_nothing_else(tmp_path: Path, ask: Callable[..., list[str]]):
    others = ("checkpoint-500/model.safetensors", "adapter.deu.safetensors", "pytorch_model.bin", "README.md")
    asked = ask(dict.fromkeys((*COMPLETE, *others), "{}"))
    assert locate(ID, "refs/pr/3") == tmp_path / "refs-pr-3"
    assert sorted(asked) == sorted([*COMPLETE, "processor_config.json"])
    assert asked[0] == "config.json" and asked[-1] == "model.safetensors"


def test_downloads_the_shards_of_an_index(tmp_path: Path, ask: Callable[..., list[str]]):
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}})
    files = {"config.json": "{}", "processor_config.json": "{}", INDEX: index, "one.safetensors": ""}
    asked = ask(files | {"two.safetensors": "", "three.safetensors": ""})
    assert locate(ID) == tmp_path / "main"
    assert "one.safetensors" in asked and "two.safetensors" in asked and "three.safetensors" not in asked
    ask(files)
    assert "two.safetensors is missing, expected it beside" in refused(ID)


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", ""])
def test_an_index_names_files_beside_it(name: str, ask: Callable[..., list[str]]):
    files = {"config.json": "{}", "processor_config.json": "{}", INDEX: json.dumps({"weight_map": {"a": name}})}
    asked = ask(files)
    assert f"names {name!r}, expected names of safetensors files beside it" in refused(ID)
    assert name not in asked


def test_another_kind_of_model_is_not_downloaded(ask: Callable[..., list[str]]):
    asked = ask(dict.fromkeys(COMPLETE, "{}") | {"config.json": '{"model_type": "bert"}'})
    with pytest.raises(InputError, match="model_type is 'bert', expected one of wav2vec2, hubert, wavlm"):
        find_pretrained(ID)
    assert asked == ["config.json"]


def test_no_preprocessor_on_the_hub(ask: Callable[..., list[str]]):
    ask({"config.json": "{}", "model.safetensors": "{}"})
    said = refused(ID)
    assert said.startswith(f"{ID}: has neither preprocessor_config.json nor processor_config.json") and "16000" in said


def test_offline_with_a_cache(tmp_path: Path, ask: Callable[..., list[str]]):
    """The hub's client gives what is cached; the optional file, which is not, is not missed."""
    ask(dict.fromkeys(COMPLETE, "{}"), absent=not_cached())
    assert locate(ID) == tmp_path / "main"


@pytest.mark.parametrize("nothing", [not_cached(), OfflineModeIsEnabled("offline")])
@pytest.mark.parametrize("cached", [(), ("config.json",), ("config.json", "processor_config.json")])
def test_offline_and_not_in_the_cache(nothing: Exception, cached: Sequence[str], ask: Callable[..., list[str]]):
    ask(dict.fromkeys(cached, "{}"), absent=nothing)
    said = refused(ID, "v2")
    assert f"{ID} (revision v2) is not in the hub's cache and the hub cannot be reached" in said
    assert all(name in said for name in COMPLETE)


def test_an_answer_that_is_none(ask: Callable[..., list[str]]):
    ask({}, absent=not_cached(of_the_hub(HfHubHTTPError)))
    said = refused(ID)
    assert "is not in the hub's cache and the hub does not answer (said the hub): download" in said


def test_offline_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hub's own client with its switch off, and an empty cache: nothing is replaced here but these two."""
    import huggingface_hub.constants

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", refuse)
    assert "is not in the hub's cache and the hub cannot be reached" in refused(ID)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (RepositoryNotFoundError, f"{ID}: neither a folder here nor a public repository on the hub"),
        (GatedRepoError, f"{ID} is gated on the hub: accept its terms there and log in"),
        (RevisionNotFoundError, f"{ID} has no revision 'v2' on the hub, expected a branch, tag or commit"),
        (HfHubHTTPError, f"{ID}: the download of config.json from the hub failed (said the hub)"),
    ],
)
def test_what_the_hub_does_not_give(kind: type[Exception], said: str, ask: Callable[..., list[str]]):
    asked = ask({}, absent=of_the_hub(kind))
    assert said in refused(ID, "v2")
    assert asked == ["config.json"]


def test_gated_files(ask: Callable[..., list[str]]):
    """Some repositories give their config to everybody, and the weights to some."""
    asked = ask(dict.fromkeys(COMPLETE, "{}") | {"model.safetensors": of_the_hub(GatedRepoError)})
    assert f"{ID} is gated on the hub: accept its terms there and log in" in refused(ID)
    assert asked[-1] == "model.safetensors"


@pytest.mark.parametrize(
    ("name", "said"),
    [("pytorch_model.bin", "its weights are in pytorch_model.bin"), ("README.md", "has no model.safetensors")],
)
def test_no_safetensors_on_the_hub(name: str, said: str, ask: Callable[..., list[str]]):
    ask({"config.json": "{}", "processor_config.json": "{}", name: ""})
    found = refused(ID)
    assert found.startswith(f"{ID}: {said}")
    assert ("python tools/convert_checkpoint.py FOLDER" in found and "refs/pr/N" in found) == name.endswith(".bin")


def test_no_id(monkeypatch: pytest.MonkeyPatch):
    """The client checks the id without a request."""
    monkeypatch.setattr("socket.socket.connect", None)
    said = refused("not an id!")
    assert "'not an id!' is neither a folder nor a hub id" in said


def test_a_download_that_fails(ask: Callable[..., list[str]]):
    ask({}, absent=OSError("No space left\non device"))
    assert refused(ID).startswith(f"{ID}: the download of config.json from the hub failed (No space left on device)")


# ----------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is an empty file, expected a JSON object"),
        (b"\x00" * 20, "is a file of zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
        (b"<!doctype html><html>", "is a web page"),
        (b"Entry not found", "cannot be read as JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"model_type": "hub', "cannot be read as JSON (Unterminated string"),
        (b"[1]", "holds list, expected a JSON object"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON"),
        (b'{"0": "sad", "0": "calm"}', "has '0' 2 times, expected once"),
    ],
)
def test_no_json_object(content: bytes, said: str, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_byte_order_mark_is_no_content(tmp_path: Path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "config.json") == {"a": 1}
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)


def test_libraries_are_silent_inside_and_as_before_outside(caplog: pytest.LogCaptureFixture):
    """Also where a library is imported inside, which sets the level of its loggers."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    root = logging.getLogger("huggingface_hub")
    before = root.level
    with without_warnings():
        root.setLevel(logging.WARNING)
        logger.warning("Retrying in 8s [Retry 5/5].")
        logger.error("heard")
    logger.warning("heard again")
    root.setLevel(before)
    assert [record.message for record in caplog.records] == ["heard", "heard again"]
