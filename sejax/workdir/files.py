"""The files of a workdir: their names, who may write there, and the tables that a study leaves."""

import contextlib
import csv
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from filelock import FileLock, Timeout
from jaxtyping import Int

from sejax.build import Study
from sejax.classical.train import train_baselines
from sejax.config import differences, unchangeable
from sejax.corpora.schema import SPLITS, Corpus
from sejax.engine import devices
from sejax.engine.checkpoint import Checkpoints
from sejax.engine.feed import Outcome, Tested
from sejax.engine.plan import Description, is_plan_of
from sejax.engine.program import Program
from sejax.engine.runs import RunKey, written
from sejax.errors import InputError
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.results import compute_metrics, gather_predictions, in_rows
from sejax.host.atomic import atomic_write
from sejax.host.json_files import read_json, write_json
from sejax.workdir import data
from sejax.workdir.data import CONFIG, RUNS
from sejax.workdir.gather import Part, gather_trained
from sejax.workdir.job import CHECKPOINTS, Job
from sejax.workdir.submissions import write_submissions
from sejax.workdir.trained import METRICS, TRAINED

PLAN = "plan.json"
PARAMETERS = "parameters.txt"
PREDICTIONS = "predictions.csv"
LAYER_WEIGHTS = "layer_weights.csv"
REPORT = "report.html"
DATA = "data.json"
DATA_PAGE = "data.html"
LOCK = ".lock"

PACKAGES = (
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
"""The packages whose versions config.json names."""


# The workdir and its owner


def check_workdir(workdir: str, options: Mapping[str, Any], *, must_exist: bool) -> None:
    """Checks that the folder can be written and belongs to no other config, before anything is computed.

    Args:
      options: all options of the config as plain JSON values.
      must_exist: whether it must be the workdir of a training run.

    Raises:
      InputError: the folder belongs to another config, does not exist, cannot be written, or its config.json is
        damaged, or missing beside checkpoints.
    """
    if begun := _read_config(workdir):
        _check_options(workdir, options, begun)
    elif must_exist:
        raise InputError(f"{workdir} has no {CONFIG}, expected the workdir of a training run")
    elif Path(workdir, CHECKPOINTS).exists():
        raise InputError(
            f"{workdir} has {CHECKPOINTS} but its {CONFIG} is gone, expected the file that says what they were trained "
            "on; restore it, or use another --workdir"
        )
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir} cannot be made ({error.strerror}), expected a folder to write to") from error
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise InputError(f"{workdir} cannot be written to, expected a folder to write to")


@contextlib.contextmanager
def only_here(workdir: str | Path, *, seconds: float = 0) -> Iterator[None]:
    """Keeps other processes from training or evaluating in the workdir; the lock of a killed process is free.

    Args:
      workdir: or the folder of a job.
      seconds: for which to wait until another process has ended.

    Raises:
      InputError: another process works there.
    """
    lock = FileLock(Path(workdir, LOCK))
    try:
        lock.acquire(timeout=seconds)
    except Timeout as error:
        raise InputError(
            f"{workdir} is in use: another process trains or evaluates there now, expected one at a time; wait until "
            "it has ended, or use another --workdir"
        ) from error
    except (OSError, NotImplementedError) as error:  # a file system without locks
        print(f"note: {workdir} cannot be locked ({error}): start only one process there at a time", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def check_table(workdir: str, options: Mapping[str, Any], corpus: Corpus) -> None:
    """Checks that the workdir was begun with the corpus's labels and speakers, before features are computed.

    Args:
      options: all options of the config as plain JSON values.
      corpus: as its reader returns it.

    Raises:
      InputError: it was begun with other data.
    """
    begun = _read_config(workdir) or {}
    if "data" in begun:
        _check_data(workdir, options, data.changes_of_table(workdir, _begun_data(workdir, begun), corpus))


def claim_workdir(workdir: str, options: Mapping[str, Any], study: Study) -> None:
    """Writes config.json, or checks that the workdir was begun with the same config, data and pretrained checkpoints.

    It is called once config and corpus are known to be right, so that a mended config may use the folder. A workdir of
    an older version, which did not store what its data were, is accepted with a note, and stores it from now on.

    Args:
      options: all options of the config as plain JSON values.

    Raises:
      InputError: the workdir was begun with another config, other data or another checkpoint.
    """
    checkpoints = {stream: checkpoint.digest for stream, checkpoint in study.checkpoints.items()}
    rows = data.rows_of(study.corpus, study.audio_digests)
    identity = data.identity(study.corpus, rows, study.noise_folders, study.vectors)
    begun = _read_config(workdir)
    if begun:
        _check_options(workdir, options, begun)
        begun_with = begun.get("pretrained", {})
        if changed := sorted(stream for stream in checkpoints if checkpoints[stream] != begun_with.get(stream)):
            raise InputError(
                f"{workdir} was begun with another checkpoint than {options['features']['ssl'][changed[0]]['model']} "
                f"holds now (stream {changed[0]}), expected the same files; use another --workdir"
            )
        if "data" in begun:
            _check_data(workdir, options, data.changes(workdir, _begun_data(workdir, begun), identity, rows))
            return
        print(
            f"note: {workdir} was begun by an older version, which did not store what its data were: whether they have "
            f"changed is not known; {CONFIG} stores it from now on",
            file=sys.stderr,
        )
    facts = begun or {
        "config": options,
        "command": shlex.join(["python", "-m", "sejax.main", *sys.argv[1:]]),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}},
        "git": _git_revision(),
        "device": devices.describe(jax.local_devices()),
        **({"pretrained": checkpoints} if checkpoints else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    # First the rows: config.json names what they are.
    data.write_rows(workdir, rows)
    write_json(Path(workdir, CONFIG), {**facts, "data": identity})


def _begun_data(workdir: str, begun: Mapping[str, Any]) -> Mapping[str, Any]:
    data.check_identity(begun["data"], Path(workdir, CONFIG))
    return begun["data"]


def _check_data(workdir: str, options: Mapping[str, Any], changes: Sequence[str]) -> None:
    if changes:
        raise InputError(
            f"{workdir} was begun with other data than {options['data_dir'] or 'the corpus'} holds now: "
            f"{'; '.join(changes)}; expected unchanged data (results of two corpora must not be mixed); use another "
            "--workdir, or restore the data"
        )


def _read_config(workdir: str) -> dict[str, Any] | None:
    """Returns the tree of config.json, None if the workdir has none yet.

    Raises:
      InputError: it is damaged.
    """
    path = Path(workdir, CONFIG)
    if not path.exists():
        return None
    tree = read_json(path, "what a training run writes; restore it, or use another --workdir")
    if not isinstance(tree, dict) or not isinstance(tree.get("config"), dict):
        raise InputError(
            f"{path} has no object 'config', expected what a training run writes; restore it, or use another --workdir"
        )
    return tree


def _check_options(workdir: str, options: Mapping[str, Any], begun: Mapping[str, Any]) -> None:
    if different := differences(options, begun["config"]):
        raise InputError(
            f"{workdir} belongs to another config ({'; '.join(different)}), expected the same; use another --workdir, "
            "or remove it"
        )


def _git_revision() -> str | None:
    """Returns the commit of the source, with a + if it was changed; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def job_identity(job: Job, program: Program, again: Mapping[str, Sequence[int]] | None = None) -> str:
    """Returns a digest of what a job is trained on: the options, data and pretrained models of config.json.

    It stays the same when the workdir is continued by a newer version, with other options of `CHANGEABLE`.

    Args:
      program: of the job.
      again: the epochs of the runs that train again, by their kind, if these are meant.
    """
    begun = _read_config(job.workdir) or {}
    return data.digest(
        {
            "config": unchangeable(begun["config"]),
            "data": {name: begun["data"][name] for name in ("digests", "classes", "vad_scale")},
            "pretrained": begun.get("pretrained", {}),
            "structure": program.structure,
            **({} if job.fold is None else {"fold": job.fold}),
            **(again or {}),
        }
    )


def open_checkpoints(job: Job, program: Program, again: tuple[str, Sequence[int]] | None = None) -> Checkpoints:
    """Opens the checkpoints of a job, or of its runs that train again.

    Args:
      program: of the job.
      again: "refit" or "final", and the epochs of these runs.
    """
    kind, epochs = again or ("", ())
    return Checkpoints(job.checkpoints(kind), study=job_identity(job, program, {kind: epochs} if again else None))


# The plan


def read_plan(workdir: str, programs: Sequence[Program]) -> list[dict[str, Any]] | None:
    """Returns the tree of plan.json, None if the workdir has none yet.

    Raises:
      InputError: it is damaged.
    """
    path = Path(workdir, PLAN)
    if not path.exists():
        return None
    expected = "the plan of a training run; remove it, and the programs are planned again"
    plan = read_json(path, expected)
    if not is_plan_of(plan, programs):
        raise InputError(f"{path} is no plan of this study's programs, expected {expected}")
    return plan


def write_plan(workdir: str, plans: Sequence[Description], begun: Sequence[Mapping[str, Any]] | None) -> None:
    """Writes parameters.txt, the arrays of a run of each program; and plan.json unless the workdir has it."""
    if not begun:
        write_json(Path(workdir, PLAN), [plan.tree for plan in plans])
    overviews = [parameter_overview.get_parameter_overview(p.parameters, include_stats=False) for p in plans]
    with atomic_write(Path(workdir, PARAMETERS)) as file:
        file.write("\n\n".join(overviews) + "\n")


# The results


def write_results(
    workdir: str,
    study: Study,
    tested: Mapping[int, Tested],
    outcome: Outcome,
    history: Sequence[Mapping[str, Any]],
    final: Sequence[tuple[RunKey, int]],
) -> dict[str, Any]:
    """Writes predictions.csv, runs.csv, layer_weights.csv (if hidden states are mixed), data.json and metrics.json.

    Predictions for hidden test sets are also written as a challenge takes them. The classical baselines are trained
    here: they leave nothing else.

    Args:
      tested: the predictions of each run for its held-out utterances at its best epoch, by the run's number.
      outcome: of all runs.
      history: rows of history.jsonl.
      final: the final runs that are trained, and their epochs.

    Returns:
      The tree of metrics.json.
    """
    predictions = gather_predictions(
        study.corpus, study.runs, study.folds, tested, learnable=study.learnable, best_epoch=outcome.best_epoch
    )
    write_submissions(workdir, study.corpus, predictions)
    chosen: dict[str, dict[str, Any]] = {}
    if machines := study.baselines.runs:
        classical = train_baselines(study.baselines, study.corpus, study.folds, refit=study.refit)
        of_machines = in_rows(study.corpus, machines, study.folds, classical.tested)
        predictions = Predictions.concatenate([predictions, of_machines])
        for run in machines:
            chosen.setdefault(run.setting.name, {})[study.fold_of(run).name] = classical.chosen[run.number]
    predictions.write(os.path.join(workdir, PREDICTIONS))
    write_runs(workdir, study, outcome.best_epoch, final)
    if any(of_run.mixing_scores for of_run in tested.values()):
        write_layer_weights(workdir, study, tested)
    rows = data.rows_of(study.corpus, study.audio_digests)
    identity = data.identity(study.corpus, rows, study.noise_folders, study.vectors)
    metrics = compute_metrics(
        predictions,
        study.runs,
        study.folds,
        study.corpus,
        learnable=study.learnable,
        outcome=outcome,
        classical=chosen,
        epochs=study.schedule.epochs,
        history=history,
        protocol=study.protocol,
        corpus_facts={**study.corpus_facts, "digest": data.digest(identity)},
        audit=study.audit,
        n_bootstrap=study.n_bootstrap,
        nested=study.chooses_setting,
    )
    write_json(Path(workdir, DATA), study.data)
    write_json(Path(workdir, METRICS), metrics)
    return metrics


def trained_folder(workdir: str, number: int, *, of: int) -> Path:
    """Returns the folder of a program's trained runs (`sejax.workdir.trained`); programs are numbered from 1."""
    return Path(workdir, TRAINED, *([f"program-{number}"] if of > 1 else []))


def write_trained(workdir: str, study: Study, number: int, parts: Sequence[Part]) -> None:
    """Writes the parameters that a program's runs have learned, and all that predicting with them needs.

    Args:
      number: of the program, from 1.
      parts: all runs of the program.
    """
    sources = (_read_config(workdir) or {})["config"]["features"]["ssl"]
    gather_trained(study, number, parts, sources).write(trained_folder(workdir, number, of=len(study.programs)))


def begin_runs(workdir: str, study: Study) -> None:
    """Writes runs.csv before the training, unless the workdir has it: a finished study keeps its best epochs."""
    if not Path(workdir, RUNS).exists():
        write_runs(workdir, study, best_epoch=None)


def write_runs(
    workdir: str,
    study: Study,
    best_epoch: Int[np.ndarray, " run"] | None,
    final: Sequence[tuple[RunKey, int]] = (),
) -> None:
    """Writes runs.csv: each run's hyperparameters, the speakers of its splits, its best epoch (blank before).

    Speakers are separated by blanks and quoted as the words of a shell: `shlex.split` reads them. Final runs, which
    come behind those of the folds, have no test speakers; classical baselines, which come last, have neither
    hyperparameters nor epochs.
    """
    speakers = np.array([u.speaker for u in study.corpus.utterances])
    options = list(study.runs[0].setting.values)
    with atomic_write(Path(workdir, RUNS)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_RUN_COLUMNS, *options, *(f"{split}_speakers" for split in SPLITS), "best_epoch"])
        epochs = {run.number: "" if best_epoch is None else int(best_epoch[run.number]) for run in study.runs}
        epochs |= {run.number: epoch for run, epoch in final}
        every = (*study.runs, *(run for run, _ in final), *study.baselines.runs)
        for run in sorted(every, key=lambda run: run.number):
            fold = study.fold_of(run)
            values = [written(run.setting.values.get(name, "")) for name in options]
            members = [shlex.join(sorted(set(speakers[getattr(fold, split)]))) for split in SPLITS]
            writer.writerow([*_run_cells(run, study), *values, *members, epochs.get(run.number, "")])


def write_layer_weights(workdir: str, study: Study, tested: Mapping[int, Tested]) -> None:
    """Writes layer_weights.csv: the weight of each hidden state of a pretrained model at each run's best epoch.

    Layer 0 is the input of the first layer.
    """
    streams = dict.fromkeys(stream for of_run in tested.values() for stream in of_run.mixing_scores)
    with atomic_write(Path(workdir, LAYER_WEIGHTS)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_RUN_COLUMNS, "stream", "layer", "weight"])
        for stream in streams:
            for run in study.runs:
                scores = tested[run.number].mixing_scores.get(stream)
                if scores is None:  # the run's program does not have this stream
                    continue
                weight = np.exp(scores - scores.max())
                weight /= weight.sum()
                writer.writerows([*_run_cells(run, study), stream, i, f"{w:.6f}"] for i, w in enumerate(weight))


_RUN_COLUMNS = ("run", "fold", "seed", "setting")


def _run_cells(run: RunKey, study: Study) -> tuple[int, str, int, str]:
    return run.number, study.fold_of(run).name, run.seed, run.setting.name
