"""Scores on validation speakers, by which the epoch of each run is chosen."""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.corpora.schema import DIMENSIONS
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.runs import Learnable, RunKey
from sejax.errors import InputError
from sejax.evaluation.metrics import CLASS_METRICS, ccc, confusion_matrix, unweighted_accuracy, weighted_accuracy
from sejax.host.wording import count, json_problem

_SCORED = ("val_ua", "val_ccc_mean")
CCC_METRICS = tuple(f"ccc_{name}" for name in (*DIMENSIONS, "mean"))


def validation_metrics(
    prob: Float[np.ndarray, "row class"],
    vad: Float[np.ndarray, "row dim"],
    target: Float[np.ndarray, "row class"],
    true_vad: Float[np.ndarray, "row dim"],
    *,
    label: Int[np.ndarray, " row"],
    vad_loss: str,
) -> dict[str, float]:
    """Returns losses and metrics of one run on its validation speakers; those without labels there are left out.

    The class loss is the cross-entropy without smoothing. Votes of raters who do not agree have a part in it, and none
    in the accuracies.

    Args:
      prob: probabilities of the classes.
      vad: predictions in half scales.
      target: distribution over the classes, zeros where there is no label.
      true_vad: in half scales, NaN where a dimension is missing.
      label: the class, -1 where there is none.
      vad_loss: a key of `VAD_LOSSES`.
    """
    metrics: dict[str, float] = {}
    targeted, labelled = target.sum(axis=1) > 0, label >= 0
    if targeted.any():
        p, t = prob[targeted], target[targeted]
        metrics["val_loss_class"] = float(-(t * np.log(np.maximum(p, 1e-12))).sum(axis=1).mean())
    if labelled.any():
        confusion = confusion_matrix(label[labelled], prob[labelled].argmax(axis=1), prob.shape[1])
        metrics["val_wa"] = float(weighted_accuracy(confusion))
        metrics["val_ua"] = float(unweighted_accuracy(confusion))
    cccs, losses = [], []
    for dim, name in enumerate(DIMENSIONS):
        rated = np.isfinite(true_vad[:, dim])
        value = ccc(vad[rated, dim], true_vad[rated, dim])
        if np.isfinite(value):
            loss = VAD_LOSSES[vad_loss].on_host(vad[rated, dim] - true_vad[rated, dim], value)
            metrics |= {f"val_ccc_{name}": value, f"val_loss_{name}": loss}
            cccs.append(value)
            losses.append(loss)
    if cccs:
        metrics["val_ccc_mean"] = float(np.mean(cccs))
        metrics["val_loss_vad"] = float(np.mean(losses))
    return metrics


def validate_runs(
    runs: Sequence[RunKey],
    learnable: Sequence[Learnable],
    columns: Int[np.ndarray, "fold column"],
    prob: Float[np.ndarray, "run column class"],
    vad: Float[np.ndarray, "run column dim"],
    target: Float[np.ndarray, "utterance class"],
    true_vad: Float[np.ndarray, "utterance dim"],
    *,
    label: Int[np.ndarray, " utterance"],
    vad_loss: str,
) -> list[dict[str, float]]:
    """Returns `validation_metrics` of every run for what it trains, and the `score` that chooses its epoch.

    A run whose predictions are not finite has diverged: it has no metrics, and its score is NaN.

    Args:
      runs: one row of `prob` and `vad` each.
      learnable: what each run can learn from its labels.
      columns: the validation utterances of each fold, -1 for padding.
      prob: probabilities of the classes.
      vad: predictions in half scales.
      target: of every utterance of the corpus.
      true_vad: of every utterance of the corpus.
      label: of every utterance of the corpus, -1 where there is none.
      vad_loss: a key of `VAD_LOSSES`.
    """
    validated = []
    for run, possible, p, v in zip(runs, learnable, prob, vad, strict=True):
        filled = columns[run.fold] >= 0
        utterance, p, v = columns[run.fold][filled], p[filled], v[filled]
        # The head of a task that is not trained predicts nothing: its truths count as missing.
        with_label, with_vad = trained_outputs(run, possible)
        if not (np.isfinite(p).all() or not with_label) or not np.isfinite(v[:, with_vad]).all():
            validated.append({"score": math.nan})
            continue
        seen = target[utterance] * with_label, np.where(with_vad, true_vad[utterance], np.nan)
        own = label[utterance] if with_label else np.full(utterance.shape, -1)
        metrics = validation_metrics(p, v, *seen, label=own, vad_loss=vad_loss)
        validated.append(metrics | {"score": score(metrics)})
    return validated


def trained_outputs(run: RunKey, learnable: Learnable) -> tuple[bool, Bool[np.ndarray, " dim"]]:
    """Returns whether a run trains the class, and each dimension: it has a share in the loss, and labels to learn."""
    dimensions = np.array(learnable.dimensions) & run.setting.trains("vad")
    return learnable.label and run.setting.trains("class"), dimensions


def score(metrics: Mapping[str, float]) -> float:
    """Returns the score that chooses an epoch: the mean of UA and mean CCC, or the one that there is; else 0."""
    parts = [metrics[name] for name in _SCORED if name in metrics]
    return float(np.mean(parts)) if parts else 0.0


def read_history(path: str) -> list[dict[str, Any]]:
    """Reads history.jsonl: a row per epoch and run. It skips a last line without end, which a killed process left.

    Raises:
      InputError: the file is missing, or a line is not a row of a training run.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected the history of a training run") from error
    return [_history_row(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.endswith("\n")]


_ONE_POINT = "remove the line: only that point of the curves is lost"


def _history_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        texts = [name for name, value in row.items() if name not in ("fold", "setting") and not _is_number(value)]
        wrong = [name for name in ("epoch", "run") if not isinstance(row[name], int)] + texts
        if not wrong and isinstance(row["setting"], str) and _is_number(row["score"]):
            return row
        problem = f"{wrong[0]} is no number" if wrong else "setting is no text"
    except KeyError as error:
        problem = f"has no {error}"
    except (TypeError, AttributeError):
        problem = "is no JSON object"
    except (ValueError, RecursionError) as error:
        problem = json_problem(line, error)
    raise InputError(f"{where}: {problem}, expected a row of a training run; {_ONE_POINT}")


def _is_number(value: Any) -> bool:
    """Returns whether a value of a row is a number that numpy can hold, or null."""
    return value is None or (isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63))


def check_rows(
    rows: Sequence[Mapping[str, Any]], runs: Mapping[int, tuple[str, str]], *, epochs: int, path: str
) -> None:
    """Checks that rows of history.jsonl are those of a study.

    Args:
      rows: all lines of the file, in order.
      runs: the names of fold and setting of each run, by its number.
      epochs: of the study.
      path: of the file, for the error.

    Raises:
      InputError: a row is of another run or epoch, or is there twice.
    """
    seen = set()
    for line, row in enumerate(rows, 1):
        run, epoch, problem = row["run"], row["epoch"], ""
        if run not in runs:
            problem = f"is of run {run}, expected one of the study's {count(len(runs), 'run')} (from 0)"
        elif (row.get("fold"), row["setting"]) != runs[run]:
            found, here = (
                f"fold {fold}, setting {setting}" for fold, setting in ((row.get("fold"), row["setting"]), runs[run])
            )
            problem = f"is of run {run} of another study ({found}), expected {here}"
        elif not 1 <= epoch <= epochs:
            problem = f"is of epoch {epoch}, expected one from 1 to {epochs}"
        elif (run, epoch) in seen:
            problem = f"is of run {run} and epoch {epoch}, expected one line of them and not two"
        if problem:
            raise InputError(f"{path}, line {line}: {problem}; {_ONE_POINT}")
        seen.add((run, epoch))


def selection_scores(history: Iterable[Mapping[str, Any]], best_epoch: Mapping[int, int]) -> dict[str, float]:
    """Returns the mean over the runs of each setting of the score at the run's chosen epoch.

    Args:
      history: rows of history.jsonl.
      best_epoch: the chosen epoch of each run, by the run's number.

    Raises:
      InputError: a row says that a run had diverged in its chosen epoch.
    """
    scores: dict[str, list[float]] = {}
    for row in history:
        if best_epoch.get(row["run"]) == row["epoch"]:
            if row["score"] is None or math.isnan(row["score"]):
                raise InputError(
                    f"history.jsonl: run {row['run']} has no score in epoch {row['epoch']}, "
                    f"expected one in the epoch that was chosen by it; {_ONE_POINT}"
                )
            scores.setdefault(row["setting"], []).append(row["score"])
    return {setting: float(np.mean(values)) for setting, values in scores.items()}


def comparable_scores(scores: Mapping[str, float | None], metrics: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Returns the selection scores of the settings that can be compared.

    A score is over the tasks that its setting trains. Only scores of settings that train all tasks compare; the others
    are left out, unless no setting trains all tasks.

    Args:
      scores: by setting.
      metrics: the names of each setting's metrics.
    """
    every = set().union(*metrics.values()) & {*CLASS_METRICS, *CCC_METRICS}
    whole = {name for name, own in metrics.items() if every <= set(own)}
    found = {name: score for name, score in scores.items() if score is not None}
    return {name: score for name, score in found.items() if name in whole or not whole}


def diverged_epochs(history: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Returns the first epoch in which a run had diverged, by the run's number, of those that did.

    Args:
      history: rows of history.jsonl; a run that has diverged has no score.
    """
    first: dict[int, int] = {}
    for row in history:
        if row["score"] is None or math.isnan(row["score"]):
            first[row["run"]] = min(row["epoch"], first.get(row["run"], row["epoch"]))
    return first


def unselected_runs(history: Iterable[Mapping[str, Any]]) -> set[int]:
    """Returns the numbers of the runs whose validation utterances have no labels of what they train.

    All their epochs have the same score, 0, so that the last one is tested.

    Args:
      history: rows of history.jsonl.
    """
    return {row["run"] for row in history if row["score"] == 0 and not any(name in row for name in _SCORED)}
