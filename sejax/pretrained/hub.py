"""Locates pretrained checkpoints, in a local folder or on the Hugging Face hub, and reads their JSON files."""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sejax.errors import InputError

FILES = ("config.json", "preprocessor_config.json")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
SECONDS_TO_ANSWER = 10.0
CONVERTER = "tools/convert_checkpoint.py"
"""The tool that writes model.safetensors; a part of sejax's source, not of the installed package."""


def locate(source: str, revision: str = "main") -> Path:
    """Returns the folder of a checkpoint, after downloading it if `source` is a hub id that is not in the hub's cache.

    Args:
      source: a folder (it exists, or begins with ".", "/" or "~"), or a hub id such as "facebook/hubert-base-ls960".
      revision: branch, tag or commit on the hub.

    Raises:
      InputError: there is no checkpoint, the hub cannot be reached, or a required file is absent.
    """
    if not source:
        raise InputError("the model of a pretrained stream is empty, expected a folder or a Hugging Face id")
    path = Path(source).expanduser()
    if path.is_dir():
        return _check_files(path)
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{source}: no such folder, expected a checkpoint in Hugging Face's layout, or a hub id")
    return _check_files(_download(source, revision))


def _check_files(folder: Path) -> Path:
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}, expected {', '.join(FILES)} and model.safetensors")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        if pickled:
            raise InputError(
                f"{folder}: its weights are in {pickled[0]}, which only PyTorch can read, expected model.safetensors: "
                f"write it with {CONVERTER} of sejax's source (python {CONVERTER} {folder})"
            )
        raise InputError(f"{folder}: has no model.safetensors, expected its weights there")
    return folder


def _download(source: str, revision: str) -> Path:
    """Returns the folder of the hub's snapshot of a repository."""
    with without_warnings():
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        gated = (
            f"{source} is gated on the hub: accept its terms there and log in (hf auth login), or download it "
            "and give the folder as the model"
        )
        unanswered = "the hub cannot be reached"
        try:
            # Asks first, so that a missing repository is not searched for file by file.
            info = HfApi().model_info(source, revision=revision, timeout=SECONDS_TO_ANSWER)
            names = [file.rfilename for file in info.siblings or ()]
        except HFValidationError as error:
            raise InputError(f"{source!r} is neither a folder nor a hub id ({error})") from error
        except GatedRepoError as error:
            raise InputError(gated) from error
        except RepositoryNotFoundError as error:
            raise InputError(f"{source}: neither a folder here nor a public repository on the hub") from error
        except RevisionNotFoundError as error:
            raise InputError(f"{source} has no revision {revision!r} on the hub") from error
        except HfHubHTTPError as error:  # a wrong token, too many requests, a fault: the cache may be enough
            names, unanswered = None, f"the hub does not say what it has ({' '.join(str(error).split())})"
        except Exception:  # anything else that keeps the hub from answering: likewise
            names = None
        if names is not None and not any(name.endswith(".safetensors") for name in names):
            pickled = [name for name in names if name.endswith(".bin")]
            has = f"only {pickled[0]}" if pickled else "no weights"
            raise InputError(
                f"{source} has {has} on the hub at revision {revision!r}, expected model.safetensors: download it and "
                f"run {CONVERTER} of sejax's source (python {CONVERTER} FOLDER), or name a converted revision "
                "(refs/pr/N) as the revision"
            )
        try:
            folder = snapshot_download(
                source, revision=revision, allow_patterns=[*FILES, *WEIGHTS], local_files_only=names is None
            )
        except GatedRepoError as error:  # most gated repositories list their files and refuse the files alone
            raise InputError(gated) from error
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise InputError(
                f"{source} (revision {revision}) is not in the hub's cache and {unanswered}: download "
                f"{', '.join(FILES)} and model.safetensors of it elsewhere, put them into a folder here, and give "
                "that folder as the model"
            ) from error
        except Exception as error:  # of the hub's HTTP library, which depends on its version, or of the disk
            raise InputError(f"{source}: the download from the hub failed ({' '.join(str(error).split())})") from error
    return Path(folder)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      InputError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a JSON object")
    return content


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silences transformers, which warns on import that PyTorch is absent, and the hub, which logs its retries."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
