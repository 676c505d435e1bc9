"""From the arrays of a program to what a workdir holds: history rows, runs.csv, predictions.csv, metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sejax.corpora.schema import DIMENSIONS, Corpus
from sejax.engine.feed import Tested
from sejax.engine.runs import RunKey
from sejax.evaluation.baselines import class_mean_lookup, majority_class
from sejax.evaluation.intervals import summarise
from sejax.evaluation.predictions import Predictions, average_seeds
from sejax.protocols.folds import Fold


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
