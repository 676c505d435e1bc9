"""Locating checkpoints: the errors of folders, and of a hub that is never really asked."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sejax.errors import InputError
from sejax.pretrained.hub import locate, without_warnings

ID = "someone/emotion"
COMPLETE = ("config.json", "preprocessor_config.json", "model.safetensors")


def write(folder: Path, names: Sequence[str] = COMPLETE) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def refused(source: str | Path, revision: str = "main") -> str:
    with pytest.raises(InputError) as caught:
        locate(str(source), revision)
    return str(caught.value)


def of_the_hub(kind: type[Exception]) -> Exception:
    """An error as the hub's client raises it."""
    return kind("said the hub", response=SimpleNamespace(headers={}, request=None))  # type: ignore[call-arg]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, dict[str, Any]]]]:
    """Puts a hub in place whose two questions are answered, or fail, as given; returns the list of requests."""

    def put(*, info: Sequence[str] | Exception, snapshot: Path | Exception | None = None) -> list[Any]:
        asked: list[tuple[str, dict[str, Any]]] = []

        def answer(what: str, source: str, told: Any, given: dict[str, Any]) -> Any:
            asked.append((what, {"source": source} | given))
            if isinstance(told, Exception):
                raise told
            return told

        def model_info(_: Any, source: str, **given: Any) -> Any:
            names = answer("info", source, info, given)
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

        def snapshot_download(source: str, **given: Any) -> Any:
            assert snapshot is not None, "a download was not expected"
            return str(answer("snapshot", source, snapshot, given))

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    return put


# -------------------------------------------------------------------------------------------- folders


def test_a_folder(tmp_path: Path, hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    """Found without the hub, absolute, relative to the home or to where one is."""
    asked = hub(info=AssertionError("the hub was asked"))
    folder = write(tmp_path / "model")
    assert locate(str(folder)) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/model") == folder
    monkeypatch.chdir(tmp_path)
    assert locate("model") == locate("./model") == Path("model")
    assert asked == []


@pytest.mark.parametrize("source", ["./none", "/none/at/all", "~/none", "a/b/c"])
def test_no_such_folder(source: str, hub: Callable[..., Any]):
    asked = hub(info=AssertionError("the hub was asked"))
    assert f"{source}: no such folder" in refused(source)
    assert asked == []


def test_no_source():
    assert "is empty, expected a folder or a Hugging Face id" in refused("")


@pytest.mark.parametrize("name", COMPLETE)
def test_a_file_is_absent(name: str, tmp_path: Path):
    write(tmp_path, [other for other in COMPLETE if other != name])
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path}: has no {name}")


def test_only_pytorchs_weights(tmp_path: Path):
    write(tmp_path, ("config.json", "preprocessor_config.json", "pytorch_model.bin"))
    said = refused(tmp_path)
    assert "pytorch_model.bin, which only PyTorch can read" in said
    assert f"python tools/convert_checkpoint.py {tmp_path}" in said
    assert (Path(__file__).parents[2] / "tools" / "convert_checkpoint.py").is_file()


# ------------------------------------------------------------------------------------------------ hub


def test_downloads_what_is_needed(tmp_path: Path, hub: Callable[..., Any]):
    asked = hub(info=[*COMPLETE, "pytorch_model.bin", "README.md"], snapshot=write(tmp_path))
    assert locate(ID, "refs/pr/3") == tmp_path
    (_, info), (_, snapshot) = asked
    assert info["source"] == snapshot["source"] == ID
    assert info["revision"] == snapshot["revision"] == "refs/pr/3"
    assert info["timeout"] <= 30
    assert snapshot["local_files_only"] is False
    assert not any("bin" in pattern or pattern == "*" for pattern in snapshot["allow_patterns"])
    assert {"config.json", "preprocessor_config.json", "*.safetensors"} <= set(snapshot["allow_patterns"])


def test_a_snapshot_is_checked_like_a_folder(tmp_path: Path, hub: Callable[..., Any]):
    hub(info=["config.json", "model.safetensors"], snapshot=write(tmp_path, ("config.json", "model.safetensors")))
    assert "has no preprocessor_config.json" in refused(ID)


@pytest.mark.parametrize(
    "silence", [OfflineModeIsEnabled("offline"), ConnectionError("no route"), TimeoutError("too slow")]
)
def test_offline_reads_the_cache(silence: Exception, tmp_path: Path, hub: Callable[..., Any]):
    asked = hub(info=silence, snapshot=write(tmp_path))
    assert locate(ID) == tmp_path
    assert asked[-1][1]["local_files_only"] is True


@pytest.mark.parametrize("nothing", [LocalEntryNotFoundError("not cached"), OfflineModeIsEnabled("offline")])
def test_offline_and_not_in_the_cache(nothing: Exception, hub: Callable[..., Any]):
    hub(info=ConnectionError("no route"), snapshot=nothing)
    said = refused(ID, "v2")
    assert f"{ID} (revision v2) is not in the hub's cache and the hub cannot be reached" in said
    assert all(name in said for name in COMPLETE)


def test_an_answer_that_is_none(tmp_path: Path, hub: Callable[..., Any]):
    """After a wrong token or a fault of the hub, the cache is read; if it has nothing, the error quotes the hub."""
    hub(info=of_the_hub(HfHubHTTPError), snapshot=write(tmp_path))
    assert locate(ID) == tmp_path
    hub(info=of_the_hub(HfHubHTTPError), snapshot=LocalEntryNotFoundError("not cached"))
    said = refused(ID)
    assert "is not in the hub's cache and the hub does not say what it has (said the hub): download" in said
    assert "cannot be reached" not in said


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
        (RevisionNotFoundError, f"{ID} has no revision 'v2' on the hub"),
    ],
)
def test_what_the_hub_does_not_give(kind: type[Exception], said: str, hub: Callable[..., Any]):
    asked = hub(info=of_the_hub(kind))
    assert said in refused(ID, "v2")
    assert [what for what, _ in asked] == ["info"]


def test_gated_files(hub: Callable[..., Any]):
    """Most gated repositories tell everybody what they have, and refuse the files alone."""
    asked = hub(info=COMPLETE, snapshot=of_the_hub(GatedRepoError))
    assert f"{ID} is gated on the hub: accept its terms there and log in" in refused(ID)
    assert [what for what, _ in asked] == ["info", "snapshot"]


@pytest.mark.parametrize(
    ("names", "has"),
    [(["config.json", "pytorch_model.bin"], "only pytorch_model.bin"), (["config.json"], "no weights")],
)
def test_no_safetensors_on_the_hub(names: list[str], has: str, hub: Callable[..., Any]):
    hub(info=names)
    said = refused(ID, "v2")
    assert f"{ID} has {has} on the hub at revision 'v2', expected model.safetensors" in said
    assert "python tools/convert_checkpoint.py FOLDER" in said and "refs/pr/N" in said


def test_no_id(monkeypatch: pytest.MonkeyPatch):
    """The client checks the id without a request."""
    monkeypatch.setattr("socket.socket.connect", None)
    said = refused("not an id!")
    assert "'not an id!' is neither a folder nor a hub id" in said


def test_a_download_that_fails(hub: Callable[..., Any]):
    hub(info=COMPLETE, snapshot=OSError("No space left\non device"))
    assert refused(ID) == f"{ID}: the download from the hub failed (No space left on device)"


def test_loggers_are_as_before():
    logger = logging.getLogger("transformers")
    before = logger.level
    with without_warnings():
        assert logger.level == logging.ERROR
    assert logger.level == before
    assert os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] == "1"
