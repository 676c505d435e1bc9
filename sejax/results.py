"""From the arrays of a program to what a workdir holds: history rows, runs.csv, predictions.csv, metrics.json."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sejax.corpora.schema import DIMENSIONS, Corpus
from sejax.folds import Fold
from sejax.metrics import (
    Predictions,
    average_seeds,
    ccc,
    class_mean_lookup,
    confusion_matrix,
    majority_class,
    summarise,
    unweighted_accuracy,
    weighted_accuracy,
)
from sejax.runs import RunKey, written

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


def history_rows(
    epoch: int,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    losses: Mapping[str, Float[np.ndarray, "run task"]],
    validation: Sequence[Mapping[str, float]],
    tasks: Mapping[str, int],
) -> list[dict[str, Any]]:
    """The rows of history.jsonl for one epoch.

    Args:
      losses: by prefix ("loss", "weight", ...), a number per run and task.
      tasks: the tasks that the corpus has labels for, and their places; the others leave no columns.
    """
    rows = []
    for place, (run, own) in enumerate(zip(runs, validation, strict=True)):
        row: dict[str, Any] = {
            "epoch": epoch,
            "run": run.number,
            "fold": folds[run.fold].name,
            "seed": run.seed,
            "setting": run.setting.name,
        }
        for prefix, values in losses.items():
            row |= {f"{prefix}_{t}": float(values[place, task]) for t, task in tasks.items()}
        rows.append({**row, **own})
    return rows


class Tested(NamedTuple):
    """What a run's best epoch says of its columns; utterance -1 is padding."""

    utterance: Int[np.ndarray, " column"]
    prob: Float[np.ndarray, "column class"]
    vad: Float[np.ndarray, "column dim"]  # half scales


def gather_predictions(
    corpus: Corpus, runs: Sequence[RunKey], folds: Sequence[Fold], tested: Mapping[int, Tested]
) -> Predictions:
    """All test predictions, in the order of the runs and then of the corpus, VAD in the corpus's scale.

    A task whose prior share is 0 in a run was not trained there: it has no predictions.

    Args:
      tested: by the run's number.
    """
    low, high = corpus.vad_scale
    rated = np.isfinite([u.vad for u in corpus.utterances]).any(axis=0)
    parts = []
    for run in runs:
        own = tested[run.number]
        order = np.argsort(own.utterance, kind="stable")
        order = order[own.utterance[order] >= 0]
        utterance = own.utterance[order]
        p = own.prob[order, : len(corpus.classes)].astype(np.float64)
        v = own.vad[order].astype(np.float64) * (high - low) / 2 + (low + high) / 2
        alpha = float(run.setting.values["alpha"])
        parts.append(
            {
                "run": np.full(len(utterance), run.number),
                "fold": np.full(len(utterance), folds[run.fold].name),
                "seed": np.full(len(utterance), run.seed),
                "setting": np.full(len(utterance), run.setting.name),
                "utterance": utterance,
                "prob": p if alpha > 0 else np.full_like(p, np.nan),
                "vad": np.array([corpus.utterances[u].vad for u in utterance], np.float64),
                "pred_vad": np.where(rated & (alpha < 1), v, np.nan),
            }
        )
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    utterances = [corpus.utterances[u] for u in whole.pop("utterance")]
    return Predictions(
        classes=corpus.classes,
        id=np.array([u.id for u in utterances]),
        speaker=np.array([u.speaker for u in utterances]),
        label=np.array([-1 if u.label is None else corpus.classes.index(u.label) for u in utterances]),
        **whole,
    )


def write_runs(
    path: str,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    best_epoch: Int[np.ndarray, " run"] | None,
) -> None:
    """runs.csv: who is trained, validated and tested on in each run, its hyperparameters, its best epoch."""
    speakers = np.array([u.speaker for u in corpus.utterances])
    with open(path, "w", newline="", encoding="utf-8") as file:
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
    with open(path, "w", newline="", encoding="utf-8") as file:
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


def compute_metrics(
    predictions: Predictions,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    *,
    protocol: Mapping[str, Any],
    corpus_facts: Mapping[str, Any],
    audit: Mapping[str, Any],
    n_bootstrap: int,
) -> dict[str, Any]:
    """The tree of metrics.json: every setting with its intervals, and the baselines beside it.

    With several seeds a setting also has `seeds_averaged`: the metrics of the mean of their predictions.
    """
    label = np.array([-1 if u.label is None else corpus.classes.index(u.label) for u in corpus.utterances])
    vad = np.array([u.vad for u in corpus.utterances], np.float64)
    # Without classes there is nothing to look up and no majority.
    lookup = class_mean_lookup(predictions, label, vad, folds, n_bootstrap=n_bootstrap) if corpus.classes else {}
    majority = majority_class(predictions, label, folds, n_bootstrap=n_bootstrap) if corpus.classes else {}
    values = {run.setting.name: dict(run.setting.values) for run in runs}
    ensembles = {}
    if len({run.seed for run in runs}) > 1:
        averaged = summarise(average_seeds(predictions), n_bootstrap=n_bootstrap)
        ensembles = {entry["name"]: {"seeds_averaged": entry["metrics"]} for entry in averaged}
    settings = []
    for entry in summarise(predictions, n_bootstrap=n_bootstrap):
        name = entry["name"]
        setting = {"name": name, "values": values[name], "metrics": entry["metrics"], "baselines": {}}
        if lookup.get(name):
            setting["baselines"] = {"class_mean_lookup": lookup[name]}
        # Rows with a truth and no finite prediction, of the tasks that were trained: a run diverged.
        untrained = {0.0: ("class",), 1.0: DIMENSIONS}.get(float(values[name]["alpha"]), ())
        unpredicted = {what: n for what, n in entry.get("unpredicted", {}).items() if what not in untrained}
        settings.append(setting | ensembles.get(name, {}) | ({"unpredicted": unpredicted} if unpredicted else {}))
    return {
        "protocol": dict(protocol),
        "corpus": dict(corpus_facts),
        "settings": settings,
        "baselines": {"majority": majority},
        "audit": dict(audit),
    }


def write_json(path: str, tree: Any) -> None:
    """Writes JSON whole or not at all."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(tree, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.replace(partial, path)


def format_table(metrics: Mapping[str, Any]) -> str:
    """The results as a table for the terminal: per setting, and the baselines under it."""
    columns = (
        {"wa": "WA %", "ua": "UA %"} | {f"ccc_{d}": f"CCC {d[:3]}." for d in DIMENSIONS} | {"ccc_mean": "CCC mean"}
    )
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for setting in metrics["settings"]:
        rows.append((setting["name"], setting["metrics"]))
        if "seeds_averaged" in setting:
            rows.append(("  seeds averaged", setting["seeds_averaged"]))
        if "class_mean_lookup" in setting["baselines"]:
            rows.append(("  class-mean look-up", setting["baselines"]["class_mean_lookup"]))
    if metrics["baselines"]["majority"]:
        rows.append(("majority class", metrics["baselines"]["majority"]))
    shown = {key: title for key, title in columns.items() if any(key in found for _, found in rows)}
    first = max(len("setting"), *(len(name) for name, _ in rows))
    lines = ["  ".join(["setting".ljust(first), *(title.center(19) for title in shown.values())]).rstrip()]
    for name, found in rows:
        cells = [_cell(found.get(key), percent=key in ("wa", "ua")) for key in shown]
        lines.append("  ".join([name.ljust(first), *(cell.center(19) for cell in cells)]).rstrip())
    for setting in metrics["settings"]:
        for what, n in setting.get("unpredicted", {}).items():
            lines.append(
                f"{setting['name']}: {n} predictions of {what} are not finite, so it has no metrics: it diverged"
            )
    protocol = metrics["protocol"]
    lines.append(
        f"{protocol['description']}; {protocol['folds']} folds, {protocol['seeds']} "
        f"seed{'s' * (protocol['seeds'] != 1)}; pooled over all test utterances, "
        "[95 % interval, bootstrap over speakers]"
    )
    return "\n".join(lines)


def _cell(metric: Mapping[str, Any] | None, *, percent: bool) -> str:
    if metric is None:
        return "-"
    scale, digits = (100, 1) if percent else (1, 3)
    numbers = [metric["pooled"], *metric.get("ci95", ())]
    value, *interval = (f"{scale * number:.{digits}f}" for number in numbers)
    return f"{value} [{', '.join(interval)}]" if interval else value
