"""Uploads to a server that stands in for the hub, and models that are loaded from there again."""

import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants as constants
import pytest
from hub_stand_in import TOKEN, Hub, serve_hub

from sejax.inference.commands.export import main
from sejax.inference.model import Model

ID = "me/emotion"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, to which this process goes with a token."""
    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        template = "{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{served.endpoint}/{template}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


def refused(bundle: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["--model", str(bundle), "--push", *arguments]) == 1
    printed = capsys.readouterr().err
    (said,) = printed.splitlines()
    assert said.startswith("error: --push") and ", expected " in said
    return said


def test_a_bundle_goes_to_the_hub_and_comes_back(
    tuned_bundle: Path, hub: Hub, voice: str, capsys: pytest.CaptureFixture[str]
):
    """With its embedded checkpoint, on a branch beside the main one; what is uploaded later replaces it."""
    assert main(["--model", str(tuned_bundle), "--push", ID, "--private"]) == 0
    repository = hub.repositories[ID]
    files = {str(path.relative_to(tuned_bundle)): path for path in tuned_bundle.rglob("*") if path.is_file()}
    assert any(name.startswith("pretrained/") for name in files)
    assert repository.private and repository.revisions["main"] == {n: p.read_bytes() for n, p in files.items()}
    assert capsys.readouterr().out == f"{ID}: uploaded as {repository.commits['main']} of main\n"
    expected = Model.load(tuned_bundle).predict([voice])
    assert Model.load(ID).predict([voice]) == expected
    assert Model.load(ID, revision=repository.commits["main"]).predict([voice]) == expected

    repository.revisions["main"]["old.txt"] = b"of an older model"
    (first, *_) = (name for name in files if name.startswith("pretrained/"))
    assert main(["--model", str(tuned_bundle), "--push", ID, "--revision", "second"]) == 0
    assert "old.txt" not in repository.revisions["second"] and "old.txt" in repository.revisions["main"]
    assert Model.load(ID, revision="second").predict([voice]) == expected
    del repository.revisions["second"][first]
    repository.commits["second"] = "0" * 40
    repository.revisions["0" * 40] = repository.revisions["second"]
    with pytest.raises(ValueError, match=f"{ID}: has no {first}, expected the files of a bundle"):
        Model.load(ID, revision="second")
    with pytest.raises(ValueError, match="has no revision 'third' on the hub"):
        Model.load(ID, revision="third")


def test_without_a_token(bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "hf auth login, or the variable HF_TOKEN" in refused(bundle, capsys, ID)
    assert not hub.repositories


def test_what_the_hub_refuses(
    bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert "'no/such/name' is no hub id" in refused(bundle, capsys, "no/such/name")
    hub.refused = 403, "You don't have the rights to create a model under the namespace 'others'."
    assert "under the namespace 'others'" in refused(bundle, capsys, "others/emotion")
    hub.refused = None
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "--push me/emotion: the hub refuses it (" in refused(bundle, capsys, ID)


def test_no_network(bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert f"{bundle} is complete" in refused(bundle, capsys, ID)


def test_only_a_model_is_uploaded(tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text("{}")
    assert main(["--model", str(tmp_path), "--push", ID]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: is no bundle, expected")
    assert not hub.repositories
