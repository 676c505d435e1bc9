"""The files of a workdir."""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from sejax.atomic import atomic_write
from sejax.config import differences
from sejax.corpora.schema import Corpus
from sejax.engine.plan import Planned
from sejax.engine.runs import RunKey, written
from sejax.errors import InputError
from sejax.pretrained.convert import Pretrained
from sejax.protocols.folds import Fold

CONFIG = "config.json"
RUNS = "runs.csv"
HISTORY = "history.jsonl"
PREDICTIONS = "predictions.csv"
METRICS = "metrics.json"
REPORT = "report.html"
LAYER_WEIGHTS = "layer_weights.csv"
PLAN = "plan.json"
PARAMETERS = "parameters.txt"


def write_runs(
    path: str,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    best_epoch: Int[np.ndarray, " run"] | None,
) -> None:
    """runs.csv: who is trained, validated and tested on in each run, its hyperparameters, its best epoch."""
    speakers = np.array([u.speaker for u in corpus.utterances])
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        values = list(runs[0].setting.values)
        splits = ("train", "val", "test")
        writer.writerow(["run", "fold", "seed", "setting", *values, *(f"{s}_speakers" for s in splits), "best_epoch"])
        for run in runs:
            fold = folds[run.fold]
            who = [" ".join(sorted(set(speakers[getattr(fold, split)]))) for split in splits]
            epoch = "" if best_epoch is None else int(best_epoch[run.number])
            own = [written(run.setting.values[name]) for name in values]
            writer.writerow([run.number, fold.name, run.seed, run.setting.name, *own, *who, epoch])


def write_layer_weights(
    path: str,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    scores: Mapping[int, Mapping[str, Float[np.ndarray, " _layer"]]],
) -> None:
    """layer_weights.csv: by how much each run's best epoch weighs the hidden states of a pretrained model.

    `scores` are those of which the weights are the softmax, by the run's number and by stream. Layer 0 is the
    first layer's input.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "fold", "seed", "setting", "stream", "layer", "weight"])
        for stream in dict.fromkeys(stream for own in scores.values() for stream in own):
            for run in runs:
                score = scores[run.number].get(stream)
                if score is None:  # a program without this stream
                    continue
                weight = np.exp(score - score.max())
                key = [run.number, folds[run.fold].name, run.seed, run.setting.name, stream]
                writer.writerows([*key, layer, f"{w:.6f}"] for layer, w in enumerate(weight / weight.sum()))


def write_json(path: str, tree: Any) -> None:
    """Writes JSON whole or not at all."""
    with atomic_write(path) as file:
        json.dump(tree, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _write_parameters(workdir: str, planned: Sequence[Planned]) -> None:
    """parameters.txt: the arrays of a run of each program."""
    overviews = [parameter_overview.get_parameter_overview(p.parameters, include_stats=False) for p in planned]
    with atomic_write(Path(workdir, PARAMETERS)) as file:
        file.write("\n\n".join(overviews) + "\n")


def _check_workdir(config: ConfigDict, workdir: str, *, must_exist: bool) -> None:
    """Checks that the folder can be written and is no other config's, before anything is computed."""
    path = Path(workdir) / "config.json"
    resolved = json.loads(config.to_json_best_effort())
    if path.exists():
        found = differences(resolved, json.loads(path.read_text())["config"])
        if found:
            raise InputError(
                f"{workdir} belongs to another config: here {'; '.join(found)}; use another --workdir, or remove it"
            )
    elif must_exist:
        raise InputError(f"{workdir} has no config.json, expected the workdir of a training run")
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir} cannot be made ({error.strerror}), expected a folder to write to") from error
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise InputError(f"{workdir} cannot be written to, expected a folder to write to")


def _claim_workdir(config: ConfigDict, workdir: str, pretrained: Mapping[str, Pretrained]) -> None:
    """Writes config.json, once config and corpus are known to be right: a mended config may use the folder."""
    path = Path(workdir) / "config.json"
    digests = {name: own.digest for name, own in pretrained.items()}
    if path.exists():
        found = json.loads(path.read_text()).get("pretrained", {})
        if changed := sorted(name for name in digests if digests[name] != found.get(name)):
            raise InputError(
                f"{workdir} was begun with another checkpoint than {config.features.ssl[changed[0]].model} holds now "
                f"(stream {changed[0]}), expected the same files; use another --workdir"
            )
        return
    packages = (
        "sejax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "transformers",
        "librosa",
        "tensorflow-datasets",
    )
    facts = {
        "config": json.loads(config.to_json_best_effort()),
        "command": shlex.join(["python", "-m", "sejax.main", *sys.argv[1:]]),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
        "git": _git_revision(),
        "device": _describe(jax.local_devices()),
        **({"pretrained": digests} if digests else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_json(str(path), facts)


def _describe(devices: Sequence[jax.Device]) -> str:
    return f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind


def _git_revision() -> str | None:
    """The commit of the source, with a + if it was changed; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
