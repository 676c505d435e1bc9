"""The results of a study, from the arrays of its programs: the test predictions and the tree of metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sejax.corpora.schema import Corpus
from sejax.engine.feed import Tested
from sejax.engine.runs import RunKey
from sejax.evaluation.baselines import class_mean_lookup, majority_class
from sejax.evaluation.intervals import score_groups, summarise
from sejax.evaluation.metrics import confusion_matrix
from sejax.evaluation.predictions import Predictions
from sejax.protocols.folds import Fold


def gather_predictions(
    corpus: Corpus, runs: Sequence[RunKey], folds: Sequence[Fold], tested: Mapping[int, Tested]
) -> Predictions:
    """Returns all test predictions, in the order of the runs and then of the corpus, VAD in the corpus's scale.

    A task that a run does not train has no predictions there.

    Args:
      corpus: with the truths.
      runs: of all programs.
      folds: by the runs' numbers of them.
      tested: by the run's number.
    """
    low, high = corpus.vad_scale
    rated = np.isfinite([u.vad for u in corpus.utterances]).any(axis=0)
    parts = []
    for run in runs:
        outputs = tested[run.number]
        order = np.argsort(outputs.utterance, kind="stable")
        order = order[outputs.utterance[order] >= 0]
        utterance = outputs.utterance[order]
        prob = outputs.prob[order, : len(corpus.classes)].astype(np.float64)
        vad = outputs.vad[order].astype(np.float64) * (high - low) / 2 + (low + high) / 2
        parts.append(
            {
                "run": np.full(len(utterance), run.number),
                "fold": np.full(len(utterance), folds[run.fold].name),
                "seed": np.full(len(utterance), run.seed),
                "setting": np.full(len(utterance), run.setting.name),
                "utterance": utterance,
                "prob": prob if run.setting.trains("class") else np.full_like(prob, np.nan),
                "vad": np.array([corpus.utterances[u].vad for u in utterance], np.float64),
                "pred_vad": np.where(rated & run.setting.trains("vad"), vad, np.nan),
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


def compute_metrics(
    predictions: Predictions,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    *,
    selection_scores: Mapping[str, float],
    protocol: Mapping[str, Any],
    corpus_facts: Mapping[str, Any],
    audit: Mapping[str, Any],
    n_bootstrap: int,
) -> dict[str, Any]:
    """Returns the tree of metrics.json: every setting with its intervals and parts, and the baselines.

    With several seeds a setting also has `seeds_averaged`: the metrics of the mean of their predictions. A setting
    in which a run diverged has `unpredicted`: by task, the number of rows with a truth and no finite prediction.

    Args:
      predictions: of all runs.
      runs: of all programs.
      folds: of the protocol.
      corpus: with the truths from which the baselines are made.
      selection_scores: by setting, those of `selection.selection_scores`.
      protocol: stored as it is.
      corpus_facts: stored as they are.
      audit: stored as it is.
      n_bootstrap: draws of speakers for the intervals.
    """
    label = np.array([-1 if u.label is None else corpus.classes.index(u.label) for u in corpus.utterances])
    vad = np.array([u.vad for u in corpus.utterances], np.float64)
    # Without classes there is nothing to look up and no majority.
    lookup = class_mean_lookup(predictions, label, vad, folds, n_bootstrap=n_bootstrap) if corpus.classes else {}
    majority = majority_class(predictions, label, folds, n_bootstrap=n_bootstrap) if corpus.classes else {}
    setting_of = {run.setting.name: run.setting for run in runs}
    ensembles = {}
    if len({run.seed for run in runs}) > 1:
        averaged = summarise(predictions.average_seeds(), n_bootstrap=n_bootstrap)
        ensembles = {entry["name"]: {"seeds_averaged": entry["metrics"]} for entry in averaged}
    settings = []
    for entry in summarise(predictions, n_bootstrap=n_bootstrap):
        name = entry["name"]
        setting = {
            "name": name,
            "values": dict(setting_of[name].values),
            "metrics": entry["metrics"],
            "baselines": {"class_mean_lookup": lookup[name]} if lookup.get(name) else {},
        }
        trains = setting_of[name].trains
        unpredicted = {task: n for task, n in entry.get("unpredicted", {}).items() if trains(task)}
        settings.append(setting | ensembles.get(name, {}) | ({"unpredicted": unpredicted} if unpredicted else {}))
    return {
        "protocol": dict(protocol),
        "corpus": dict(corpus_facts),
        "settings": with_parts(settings, predictions, selection_scores),
        "baselines": {"majority": majority},
        "audit": dict(audit),
    }


def with_parts(
    settings: Sequence[Mapping[str, Any]], predictions: Predictions, selection_scores: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Returns the settings of metrics.json with the numbers behind their metrics.

    - `selection_score`: the mean over runs of the score that chose the epoch;
    - `confusion`: `{"classes": [...], "counts": [[...]]}`, counts `[true][predicted]` summed over seeds; absent
      without labelled predictions;
    - `folds` and `speakers`: the metrics of each, see `score_groups`.

    Args:
      settings: entries with a `name`.
      predictions: of all runs.
      selection_scores: by setting.
    """
    rows_of_setting = predictions.rounded().by("setting")
    completed = []
    for setting in settings:
        rows = rows_of_setting[setting["name"]]
        parts: dict[str, Any] = {}
        if setting["name"] in selection_scores:
            parts["selection_score"] = selection_scores[setting["name"]]
        counted = (rows.label >= 0) & (rows.predicted_class() >= 0)
        if counted.any():
            counts = confusion_matrix(rows.label[counted], rows.predicted_class()[counted], len(rows.classes))
            parts["confusion"] = {"classes": list(rows.classes), "counts": counts.tolist()}
        parts |= {"folds": score_groups(rows, "fold"), "speakers": score_groups(rows, "speaker")}
        completed.append({**setting, **parts})
    return completed
