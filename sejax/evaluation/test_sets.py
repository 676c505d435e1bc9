"""The metrics of each test set of a study: the cells of a matrix of corpora, or the several test sets of one corpus.

A number over all test rows says little where they are of corpora with other speakers, rooms and raters. Here each
corpus that is trained on and each that is tested on has a cell of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sejax.corpora.join import is_joined
from sejax.corpora.schema import Corpus, Utterance
from sejax.evaluation.baselines import class_mean_lookup
from sejax.evaluation.intervals import summarise
from sejax.evaluation.metrics import CLASS_METRICS, confusion_matrix
from sejax.evaluation.predictions import Predictions
from sejax.protocols.folds import Fold


def names_of_test_sets(utterances: Sequence[Utterance]) -> list[str] | None:
    """Returns the test set that each utterance is in when it is tested; None where there is but one.

    It is the utterance's corpus where several are joined, and its split where a corpus has several test splits.
    """
    if is_joined(utterances):
        return [utterance.corpus for utterance in utterances]
    tests = {u.split for u in utterances if u.split and u.split.startswith("test")}
    return [utterance.split or "" for utterance in utterances] if len(tests) > 1 else None


EXCHANGED_GAIN = 0.2
"""The gain in UA from which an exchange of classes is told: a model at chance has about half of it by chance."""


def exchanged_classes(predictions: Predictions) -> dict[str, Any] | None:
    """Returns under which exchange of classes a model would be right far more often; None without one.

    Two corpora whose labels do not mean the same show so: what one calls angry a model of the other takes for sad, and
    the other way round. `{"classes": {label: the class that the model names}, "ua": UA with these}`. No other number
    uses it: it is a reason to listen to some utterances, not a correction. As with the metrics, there is none if a row
    with a label has no prediction.

    Args:
      predictions: test rows of one setting.
    """
    predicted = predictions.predicted_class()
    labelled = predictions.label >= 0
    if not labelled.any() or (predicted[labelled] < 0).any():
        return None
    counts = confusion_matrix(predictions.label[labelled], predicted[labelled], len(predictions.classes))
    asked = np.flatnonzero(counts.sum(axis=1))
    recall = counts[np.ix_(asked, asked)] / counts[asked].sum(axis=1, keepdims=True)
    label, named = linear_sum_assignment(recall, maximize=True)
    ua = float(recall[label, named].mean())
    if ua - float(np.diagonal(recall).mean()) < EXCHANGED_GAIN:
        return None
    name = [predictions.classes[place] for place in asked]
    return {"classes": {name[a]: name[b] for a, b in zip(label, named, strict=True) if a != b}, "ua": ua}


def score_test_sets(
    predictions: Predictions, folds: Sequence[Fold], corpus: Corpus, *, n_bootstrap: int
) -> dict[str, list[dict[str, Any]]]:
    """Returns the cells of each setting, by its name; nothing where there is but one test set.

    A cell is `{"train", "test", "within", "utterances", "speakers", "classes", "metrics", "shared", "baselines"}`:
    the corpus that is trained on (None: those of the folds) and the test set; whether it is of the other speakers of
    that corpus; the tested utterances and speakers; the classes that are both trained and tested; the metrics of
    `summarise`; under `shared` those of the class over these classes alone, where others are tested too; the
    class-mean look-up of the dimensions; and `exchanged`, see `exchanged_classes`.

    Args:
      predictions: the test rows of all runs.
      folds: of the study.
      corpus: with all utterances.
      n_bootstrap: draws of speakers for the intervals.
    """
    names = names_of_test_sets(corpus.utterances)
    if names is None:
        return {}
    name_of = dict(zip((u.id for u in corpus.utterances), names, strict=True))
    fold_of = {fold.name: fold for fold in folds}
    predictions = predictions.rounded()
    tested = np.array([name_of[name] for name in predictions.id.tolist()])
    trained = np.array([fold_of[name].trained_on for name in predictions.fold.tolist()])
    label = np.array(corpus.label_numbers())
    vad = np.array([u.vad for u in corpus.utterances], np.float64)
    cells: dict[str, list[dict[str, Any]]] = {}
    for train, test in dict.fromkeys(zip(trained.tolist(), tested.tolist(), strict=True)):
        rows = predictions.select((trained == train) & (tested == test))
        own = [fold_of[name] for name in dict.fromkeys(rows.fold.tolist())]
        learned = np.unique(label[np.any([fold.train for fold in own], axis=0)])
        asked = np.unique(rows.label[rows.label >= 0])
        shared = np.intersect1d(learned, asked)
        facts = {
            "train": train or None,
            "test": test,
            "within": any(fold.within for fold in own),
            "utterances": len(set(rows.id.tolist())),
            "speakers": len(set(rows.speaker.tolist())),
            "classes": [corpus.classes[number] for number in shared],
        }
        lookup = class_mean_lookup(rows, label, vad, own, n_bootstrap=n_bootstrap) if corpus.classes else {}
        of_shared: Mapping[str, Any] = {}
        if 0 < len(shared) < len(asked):
            known = rows.select(np.isin(rows.label, shared))
            of_shared = {entry["name"]: entry["metrics"] for entry in summarise(known, n_bootstrap=n_bootstrap)}
        for entry in summarise(rows, n_bootstrap=n_bootstrap):
            cell = {**facts, "metrics": entry["metrics"]}
            if entry["name"] in of_shared:
                own_shared = of_shared[entry["name"]]
                cell["shared"] = {key: own_shared[key] for key in CLASS_METRICS if key in own_shared}
            if not cell["within"] and (found := exchanged_classes(rows.by("setting")[entry["name"]])):
                cell["exchanged"] = found
            if lookup.get(entry["name"]):
                cell["baselines"] = {"class_mean_lookup": lookup[entry["name"]]}
            cells.setdefault(entry["name"], []).append(cell)
    return {
        name: sorted(of_setting, key=lambda cell: (cell["train"] or "", cell["test"]))
        for name, of_setting in cells.items()
    }
