"""Trained runs as two files that need nothing else of a study: `model.safetensors` and `config.json`.

A workdir has a folder of them for each program, and a bundle (`sejax.inference.bundle`) is such a folder. The arrays of
all runs are stacked on their leading axis, in the order of `config.json`'s list of runs:

    params/<path>                       parameters at the run's chosen epoch
    frame_scale/<stream>/mean|inverse   normalisation by the run's training speakers
    statistic_scale/<stream>/mean|inverse
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sejax.data.inputs import Input
from sejax.data.types import Scale
from sejax.errors import InputError
from sejax.host.json_files import read_json, write_json

METRICS = "metrics.json"  # of a workdir
TRAINED = "trained"  # the folder in a workdir
CONFIG = "config.json"
ARRAYS = "model.safetensors"
FORMAT = "sejax"
VERSION = 1
_KINDS = ("params", "frame_scale", "statistic_scale")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What is known of a run beside its arrays."""

    number: int
    fold: str
    final: bool  # trained on every speaker, so that no number is of it
    seed: int
    setting: str
    epoch: int
    label: bool  # whether it predicts the class
    dimensions: tuple[bool, bool, bool]  # whether it predicts valence, arousal, dominance


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The checkpoint of a pretrained stream."""

    model: str  # a hub id, or a folder; relative to the files' own if it is in there
    revision: str
    context: str  # what its frames see
    digest: str  # of its files: `sejax.pretrained.convert.fingerprint`
    files: tuple[str, ...] = ()  # in the folder `model`, where the checkpoint is embedded


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Runs of one model: what they are, how their inputs are made, what their outputs are called, and their arrays."""

    classes: tuple[str, ...]
    vad_scale: tuple[float, float]  # the lowest and the highest value of a dimension
    inputs: Mapping[str, Input]  # by stream
    pretrained: Mapping[str, Pretrained]  # by stream
    model: Mapping[str, Any]  # as `sejax.models.description.describe_model` returns it
    runs: Sequence[TrainedRun]
    params: Any  # [run, ...]
    frame_scale: Mapping[str, Scale]  # by stream, [run, feature]
    statistic_scale: Mapping[str, Scale]

    def select(self, places: Sequence[int]) -> "Trained":
        """Returns the runs at these places of the list."""
        index = np.array(places, int)
        return replace(
            self,
            runs=[self.runs[place] for place in places],
            params=_map(lambda x: x[index], self.params),
            frame_scale={name: Scale(*(x[index] for x in scale)) for name, scale in self.frame_scale.items()},
            statistic_scale={name: Scale(*(x[index] for x in scale)) for name, scale in self.statistic_scale.items()},
        )

    def write(self, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        """Writes the two files into a folder, which is made; config.json comes last.

        Args:
          more: further entries of config.json.
        """
        folder.mkdir(parents=True, exist_ok=True)
        trees = {
            "params": self.params,
            "frame_scale": {name: scale._asdict() for name, scale in self.frame_scale.items()},
            "statistic_scale": {name: scale._asdict() for name, scale in self.statistic_scale.items()},
        }
        arrays = traverse_util.flatten_dict(trees, sep="/")
        partial = folder / f"{ARRAYS}.partial"
        partial.touch()
        mode = partial.stat().st_mode  # safetensors writes a file for its owner alone
        save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, partial, {"format": FORMAT})
        partial.chmod(mode)
        partial.replace(folder / ARRAYS)
        tree = {
            "format": FORMAT,
            "version": VERSION,
            "sejax": version("sejax"),
            "classes": list(self.classes),
            "vad_scale": list(self.vad_scale),
            "streams": {name: asdict(given) for name, given in self.inputs.items()},
            "pretrained": {name: asdict(given) for name, given in self.pretrained.items()},
            "model": self.model,
            "runs": [asdict(run) for run in self.runs],
            **(more or {}),
        }
        write_json(folder / CONFIG, tree)


def read_trained(folder: Path) -> tuple[Trained, dict[str, Any]]:
    """Reads the two files, and returns the content of config.json beside the runs.

    Raises:
      InputError: a file is missing or damaged, or of another version.
    """
    tree = read_description(folder)
    try:
        arrays = load_file(folder / ARRAYS)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder / ARRAYS}: cannot be read ({error}), expected the arrays that {folder / CONFIG} describes"
        ) from error
    try:
        trees = {**{kind: {} for kind in _KINDS}, **traverse_util.unflatten_dict(arrays, sep="/")}
        runs = [TrainedRun(**{**run, "dimensions": tuple(run["dimensions"])}) for run in tree["runs"]]
        found = Trained(
            classes=tuple(tree["classes"]),
            vad_scale=(float(tree["vad_scale"][0]), float(tree["vad_scale"][1])),
            inputs={name: Input.from_json(given) for name, given in tree["streams"].items()},
            pretrained={
                name: Pretrained(**{**given, "files": tuple(given["files"])})
                for name, given in tree["pretrained"].items()
            },
            model=tree["model"],
            runs=runs,
            params=trees["params"],
            frame_scale={name: Scale(**scale) for name, scale in trees["frame_scale"].items()},
            statistic_scale={name: Scale(**scale) for name, scale in trees["statistic_scale"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"{folder / CONFIG}: is not as sejax writes it ({type(error).__name__}: {error}), expected the description "
            "of trained runs; export the study again"
        ) from error
    if short := sorted(name for name, x in arrays.items() if not x.ndim or len(x) != len(runs)):
        raise InputError(
            f"{folder / ARRAYS}: {short[0]} is {list(arrays[short[0]].shape)}, expected {len(runs)} first: the runs of "
            f"{CONFIG}"
        )
    return found, tree


def read_description(folder: Path) -> dict[str, Any]:
    """Reads config.json.

    Raises:
      InputError: it is missing, no JSON, of another tool, or of another version.
    """
    path = folder / CONFIG
    tree = read_json(path, "the description of trained runs")
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise InputError(f"{path}: is not of sejax, expected {FORMAT!r} as its 'format'")
    if tree.get("version") != VERSION:
        raise InputError(
            f"{path}: has version {tree.get('version')!r}, written by sejax {tree.get('sejax')!r}, expected {VERSION}, "
            f"which sejax {version('sejax')} reads; export the study again, or install the other sejax"
        )
    return tree


def _map(function: Any, tree: Any) -> Any:
    """Returns a nested dictionary with the function's value of each leaf."""
    flat = traverse_util.flatten_dict(tree)
    return traverse_util.unflatten_dict({path: function(x) for path, x in flat.items()})
