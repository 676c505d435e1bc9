"""Locates pretrained checkpoints, in a local folder or on the Hugging Face hub, and reads their JSON files.

The files of a checkpoint are asked for in the order in which they decide: config.json, which must be of a known kind
of model, the settings of the preprocessor, and last the weights. Of a hub's repository no other file is downloaded.
"""

import contextlib
import json
import logging
import os
import reprlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sejax.errors import InputError
from sejax.host.magic import FIRST_BYTES, describe_contents
from sejax.host.wording import one_line

CONFIG = "config.json"
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Where the settings of the preprocessor are; transformers 5 writes the second one alone for some models."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LAYOUT = f"{CONFIG}, {PREPROCESSORS[0]} and {WEIGHTS}"
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx")
FUNASR = "config.yaml"  # FunASR's own layout
SECONDS_TO_ANSWER = 10.0
CONVERTER = "tools/convert_checkpoint.py"
"""The tool that writes model.safetensors; a part of sejax's source, not of the installed package."""

Fetch = Callable[[str], Path | None]
"""Returns where the file of a checkpoint is, None if the checkpoint does not have it."""


class _NotCachedError(InputError):
    """The hub cannot be reached, and its cache does not have the file."""


def locate(source: str, revision: str = "main", *, check: Callable[[Path], bool]) -> Path:
    """Returns the folder of a checkpoint, after downloading what is read of it if `source` is a hub id.

    Args:
      source: a folder (it exists, or begins with ".", "/" or "~"), or a hub id such as "facebook/hubert-base-ls960".
      revision: branch, tag or commit on the hub.
      check: is called with the path of config.json before any other file is looked for. It may refuse it, and returns
        whether settings of a preprocessor have to be there too.

    Raises:
      InputError: there is no checkpoint, the hub cannot be reached, or a required file is absent.
    """
    with _open(source, revision) as opened:
        return _locate(*opened, check)


def locate_file(source: str, revision: str, name: str) -> Path | None:
    """Returns the path of one file of a folder, or of a repository on the hub; None if it is not there.

    Args:
      source: see `locate`.
      revision: see `locate`.
      name: of the file, with the folders in which it is.

    Raises:
      InputError: there is no such folder or repository, or the hub cannot be reached.
    """
    with _open(source, revision) as (_, fetch, _):
        return fetch(name)


@contextlib.contextmanager
def _open(source: str, revision: str) -> Iterator[tuple[Path | str, Fetch, Callable[[], list[str]]]]:
    """Finds out what a source is: yields the name for errors, how a file of it is got, and how its files are listed."""
    if not source:
        raise InputError("the model of a pretrained stream is empty, expected a folder or a Hugging Face id")
    try:
        path = Path(source).expanduser()
        if path.is_file():
            raise InputError(f"{source}: is a file, expected the folder that holds {LAYOUT}")
        if path.is_dir():
            yield path, partial(_in_folder, path), lambda: [file.name for file in path.iterdir()]
            return
    except (OSError, RuntimeError) as error:  # no permission, a name that is too long, "~" of an unknown user
        raise InputError(f"{source}: cannot be read ({one_line(error)}), expected a folder with {LAYOUT}") from error
    if "://" in source:
        raise InputError(
            f"{source}: is an address, expected a folder or a hub id: the last two parts of the address of a model's "
            "page, such as facebook/hubert-base-ls960"
        )
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{source}: no such folder, expected a checkpoint in Hugging Face's layout, or a hub id")
    yield source, partial(_download, source, revision), partial(_names_on_hub, source, revision)


def _locate(source: Path | str, fetch: Fetch, names: Callable[[], list[str]], check: Callable[[Path], bool]) -> Path:
    """Fetches the files of a checkpoint and returns their folder.

    Args:
      source: named in errors.
      fetch: gets one file.
      names: lists all files; it is called where one is absent.
      check: see `locate`.
    """
    config = fetch(CONFIG)
    if config is None:
        inner = [path.parent.name for path in source.glob(f"*/{CONFIG}")] if isinstance(source, Path) else []
        hint = f" (the folder {sorted(inner)[0]} in it has one)" if inner else ""
        if isinstance(source, Path) and (source / FUNASR).is_file():
            hint = f": {FUNASR} is of FunASR, whose emotion2vec {CONVERTER} converts (python {CONVERTER} {source})"
        raise InputError(f"{source}: has no {CONFIG}, expected {LAYOUT}{hint}")
    found = _fetch_preprocessor(source, fetch) if check(config) else []
    found.append(_fetch_any(fetch, WEIGHTS, INDEX))
    if found[-1] is not None and found[-1].name == INDEX:
        for name in shards(found[-1]):
            found.append(fetch(name))
            if found[-1] is None:
                raise InputError(f"{source}: {name} is missing, expected it beside {INDEX}, which names it")
    folder = config.parent
    if found[-1] is None and not (isinstance(source, Path) and any(folder.glob("*.safetensors"))):
        raise _no_weights(source, names())
    if any(path is not None and path.parent != folder for path in found):
        raise InputError(f"{source} was changed on the hub during the download, expected one state: start again")
    return folder


def _fetch_preprocessor(source: Path | str, fetch: Fetch) -> list[Path | None]:
    """Returns the files that hold the settings of the preprocessor."""
    found = [_fetch_any(fetch, *PREPROCESSORS)]
    if found[0] is not None and found[0].name == PREPROCESSORS[0]:
        with contextlib.suppress(_NotCachedError):
            found.append(fetch(PREPROCESSORS[1]))
    if found[0] is None:
        raise InputError(
            f"{source}: has neither {' nor '.join(PREPROCESSORS)}, which say whether the model reads normalised audio, "
            f"expected one of them: copy it from the model that this one was trained from, or write "
            f'{PREPROCESSORS[0]} with {{"do_normalize": true, "sampling_rate": 16000}} or with false'
        )
    return found


def _fetch_any(fetch: Fetch, *names: str) -> Path | None:
    """Returns the first file that a checkpoint has, None if it is certain to have none."""
    unknown = None
    for name in names:
        try:
            if path := fetch(name):
                return path
        except _NotCachedError as error:
            unknown = unknown or error
    if unknown:
        raise unknown
    return None


def _no_weights(source: Path | str, names: list[str]) -> InputError:
    """Returns the error of a checkpoint whose weights are in another format, or absent."""
    others = sorted(name for name in names if name.endswith(OTHER_WEIGHTS))
    pickled = [name for name in others if Path(name).name.startswith("pytorch_model")]
    if not pickled:
        found = f", found {', '.join(others[:3])}" if others else ""
        return InputError(f"{source}: has no {WEIGHTS}, expected its weights there{found}")
    folder = str(source) if isinstance(source, Path) else "FOLDER"
    command = f"{CONVERTER} of sejax's source (python {CONVERTER} {folder})"
    how = (
        f"write it with {command}"
        if isinstance(source, Path)
        else f"download it and run {command}, or name a converted revision (refs/pr/N) as the revision"
    )
    return InputError(
        f"{source}: its weights are in {pickled[0]}, which only PyTorch can read, expected {WEIGHTS}: {how}"
    )


def shards(index: Path) -> list[str]:
    """Returns the names of the files that an index of weights names, sorted.

    Raises:
      InputError: it names none, or others than safetensors files beside it.
    """
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise InputError(f"{index}: has no weight_map of arrays to files, expected one")
    names = sorted(set(files.values()))
    if others := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
        raise InputError(f"{index}: names {others[0]!r}, expected names of safetensors files beside it")
    return names


def weight_files(folder: Path) -> list[Path]:
    """Returns the files that hold a located checkpoint's weights.

    They are model.safetensors if that exists (as transformers decides it), else the files that the index names, else
    all safetensors files of the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return [folder / name for name in shards(folder / INDEX)]
    return sorted(folder.glob("*.safetensors"))


def preprocessor_files(folder: Path) -> list[Path]:
    """Returns those of `PREPROCESSORS` that a folder has."""
    return [folder / name for name in PREPROCESSORS if (folder / name).is_file()]


def preprocessor_path(folder: Path) -> Path:
    """Returns the file that errors name for the settings of the preprocessor: the first one that a folder has."""
    return next(iter(preprocessor_files(folder)), folder / PREPROCESSORS[0])


def _in_folder(folder: Path, name: str) -> Path | None:
    return folder / name if (folder / name).is_file() else None


def _download(source: str, revision: str, name: str) -> Path | None:
    """Returns the path of one file of the hub's repository in the hub's cache, downloaded if it is not there."""
    with without_warnings():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            return Path(hf_hub_download(source, name, revision=revision, etag_timeout=SECONDS_TO_ANSWER))
        except HFValidationError as error:
            raise InputError(f"{source!r} is neither a folder nor a hub id ({one_line(error)})") from error
        except GatedRepoError as error:
            raise InputError(
                f"{source} is gated on the hub: accept its terms there and log in (hf auth login), or download it "
                "and give the folder as the model"
            ) from error
        except RepositoryNotFoundError as error:
            raise InputError(
                f"{source}: neither a folder here nor a public repository on the hub, expected one of them (of a "
                "private repository: log in with hf auth login)"
            ) from error
        except RevisionNotFoundError as error:
            raise InputError(
                f"{source} has no revision {revision!r} on the hub, expected a branch, tag or commit"
            ) from (error)
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            cause = error.__cause__
            answer = (
                f"does not answer ({one_line(cause)})" if isinstance(cause, HfHubHTTPError) else "cannot be reached"
            )
            raise _NotCachedError(
                f"{source} (revision {revision}) is not in the hub's cache and the hub {answer}: download {LAYOUT} of "
                f"it elsewhere, put them into a folder here, and give that folder as the model (there is no folder "
                f"{source} here)"
            ) from error
        except EntryNotFoundError:
            return None
        except Exception as error:  # of the hub, of its HTTP library, which depends on its version, or of the disk
            raise InputError(
                f"{source}: the download of {name} from the hub failed ({one_line(error)}), expected the file: try "
                "again, or download it elsewhere and give the folder as the model"
            ) from error


def _names_on_hub(source: str, revision: str) -> list[str]:
    """Returns the names of a repository's files, none if the hub does not say."""
    with without_warnings():
        from huggingface_hub import HfApi

        try:
            return HfApi().list_repo_files(source, revision=revision)
        except Exception:  # it only makes a sentence more precise
            return []


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      InputError: the file cannot be read, or holds something else.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}), expected a JSON object") from error
    try:
        content = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=partial(_unique, path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        contents = describe_contents(raw[:FIRST_BYTES])
        if contents is None or contents.startswith(("JSON", "a text")):
            raise InputError(f"{path}: cannot be read as JSON ({one_line(error)}), expected a JSON object") from error
        raise InputError(f"{path}: is {contents}, expected a JSON object") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a JSON object")
    return content


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object, in which each name may stand once."""
    content = dict(pairs)
    if len(content) < len(pairs):
        name, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InputError(f"{path}: has {reprlib.repr(name)} {times} times, expected once")
    return content


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silences transformers, which warns on import that PyTorch is absent, and the hub, which logs its retries."""
    # Both libraries set the level of their loggers when they are imported, which may be inside.
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
