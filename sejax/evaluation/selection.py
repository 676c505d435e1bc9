"""Scores on validation speakers, by which the epoch of each run is chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from sejax.corpora.schema import DIMENSIONS
from sejax.engine.runs import RunKey
from sejax.evaluation.metrics import ccc, confusion_matrix, unweighted_accuracy, weighted_accuracy

CLASS_METRICS = ("val_loss_class", "val_wa", "val_ua")


VAD_METRICS = (
    "val_loss_vad",
    *(f"val_loss_{name}" for name in DIMENSIONS),
    *(f"val_ccc_{name}" for name in (*DIMENSIONS, "mean")),
)


def validation_metrics(
    prob: Float[np.ndarray, "row class"],
    vad: Float[np.ndarray, "row dim"],
    target: Float[np.ndarray, "row class"],
    true_vad: Float[np.ndarray, "row dim"],
    *,
    vad_loss: str,
) -> dict[str, float]:
    """Losses and metrics of one run on its validation speakers; what has no truth there is absent.

    `vad` and `true_vad` in half scales. The class loss is the cross-entropy without smoothing.
    """
    found: dict[str, float] = {}
    labelled = target.sum(axis=1) > 0
    if labelled.any():
        p, t = prob[labelled], target[labelled]
        confusion = confusion_matrix(t.argmax(axis=1), p.argmax(axis=1), t.shape[1])
        found["val_loss_class"] = float(-(t * np.log(np.maximum(p, 1e-12))).sum(axis=1).mean())
        found["val_wa"] = float(weighted_accuracy(confusion))
        found["val_ua"] = float(unweighted_accuracy(confusion))
    cccs, losses = [], []
    for dim, name in enumerate(DIMENSIONS):
        rated = np.isfinite(true_vad[:, dim])
        value = ccc(vad[rated, dim], true_vad[rated, dim])
        if np.isfinite(value):
            found[f"val_ccc_{name}"] = value
            cccs.append(value)
            error = vad[rated, dim] - true_vad[rated, dim]
            loss = float({"ccc": 1 - value, "mse": (error**2).mean(), "mae": np.abs(error).mean()}[vad_loss])
            found[f"val_loss_{name}"] = loss
            losses.append(loss)
    if cccs:
        found["val_ccc_mean"] = float(np.mean(cccs))
        found["val_loss_vad"] = float(np.mean(losses))
    return found


def validate_runs(
    runs: Sequence[RunKey],
    columns: Int[np.ndarray, "fold column"],
    prob: Float[np.ndarray, "run column class"],
    vad: Float[np.ndarray, "run column dim"],
    target: Float[np.ndarray, "utterance class"],
    true_vad: Float[np.ndarray, "utterance dim"],
    *,
    vad_loss: str,
) -> list[dict[str, float]]:
    """`validation_metrics` of every run, of the tasks it is trained on, and the `score` that chooses its epoch."""
    measured = []
    for run, p, v in zip(runs, prob, vad, strict=True):
        found = columns[run.fold] >= 0
        own = columns[run.fold][found]
        numbers = validation_metrics(p[found], v[found], target[own], true_vad[own], vad_loss=vad_loss)
        # A task without a prior share is not trained in this run: its head says nothing.
        alpha = float(run.setting.values["alpha"])
        untrained = CLASS_METRICS if alpha == 0 else VAD_METRICS if alpha == 1 else ()
        numbers = {name: value for name, value in numbers.items() if name not in untrained}
        measured.append(numbers | {"score": score(numbers)})
    return measured


def score(metrics: Mapping[str, float]) -> float:
    """By what an epoch is chosen: the mean of UA and mean CCC, of those that there are."""
    parts = [metrics[name] for name in ("val_ua", "val_ccc_mean") if name in metrics]
    return float(np.mean(parts)) if parts else 0.0
