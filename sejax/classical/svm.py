"""Linear support vector machines of one fold, as scikit-learn's `SVC` and `SVR` fit them (libsvm).

Features are standardised by the fold's training utterances. Classes are told apart one against one; each dimension has
a regression of its own. What a machine is trained with is the first of equals on the fold's validation speakers, by UA
out of `COSTS`, or by CCC out of `REGRESSION_COSTS` and `EPSILONS`. All machines of a fold share one matrix of products
of features, and nothing is drawn at random.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.metrics import ccc, confusion_matrix, unweighted_accuracy
from sejax.evaluation.temperature import fit_temperature, temper
from sejax.protocols.folds import Fold

COSTS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of a classifier: what an utterance on the wrong side of its margin costs."""
REGRESSION_COSTS = COSTS[:-1]
"""C of a regression, which takes long to train where it is large and most errors cost."""
EPSILONS = (0.1, 0.2)
"""Errors of a dimension that cost nothing, in half scales."""

Chosen = Mapping[str, float]
Values = TypeVar("Values", bound=np.ndarray)


class Fitted(NamedTuple):
    """What the machines of a fold say of every utterance of the corpus, and with what they were trained."""

    prob: Float[np.ndarray, "utterance class"]  # NaN where fewer than two classes are trained
    vad: Float[np.ndarray, "utterance dim"]  # half scales; NaN where fewer than two ratings are trained
    chosen: dict[str, Chosen]  # by "class" and dimension


def fit_fold(
    features: Float[np.ndarray, "utterance statistic"],
    label: Int[np.ndarray, " utterance"],
    vad: Float[np.ndarray, "utterance dim"],
    fold: Fold,
    *,
    n_classes: int,
    balanced: bool,
    refit: bool = False,
) -> Fitted:
    """Trains the machines of a fold, and predicts all utterances.

    The probabilities are softmax(d / T) of the decisions d of the classes (votes of the pairs, their margins breaking
    ties), whose temperature T is fitted on the validation speakers. A class without training utterances has 0.

    Args:
      features: of every utterance of the corpus; those that the fold does not train on change no machine.
      label: the class of every utterance, -1 where there is none.
      vad: in half scales, NaN where a dimension is missing.
      fold: its test utterances choose nothing.
      n_classes: of the corpus.
      balanced: whether classes weigh alike in training, rather than utterances.
      refit: whether all but the validation utterances are then predicted by machines that are trained on the training
        and validation utterances, with what was chosen. Validation utterances are never predicted by these.
    """
    kernels = [_Kernel(features, fold.train), *([_Kernel(features, fold.train | fold.val)] if refit else [])]
    prob = np.full((len(label), n_classes), np.nan)
    predicted = np.full(vad.shape, np.nan)
    chosen: dict[str, Chosen] = {}

    labelled = label >= 0
    if len(np.unique(label[fold.train & labelled])) > 1:
        weight = "balanced" if balanced else None

        def decide(kernel: _Kernel, options: Chosen) -> Float[np.ndarray, "utterance class"]:
            return kernel.decide(SVC(kernel="precomputed", class_weight=weight, **options), label, labelled, n_classes)

        def recall(decisions: Float[np.ndarray, "row class"], rows: Bool[np.ndarray, " utterance"]) -> float:
            found = confusion_matrix(label[rows], decisions.argmax(axis=1), n_classes)
            return float(unweighted_accuracy(found))

        grid = [{"C": cost} for cost in COSTS]
        chosen["class"], first, last = _choose(grid, decide, recall, kernels, fold.val & labelled)
        known, ids = fold.val & labelled, np.flatnonzero(fold.val & labelled)
        temperature = fit_temperature(softmax(first[known], axis=1), label[known], ids)
        decisions = np.where(fold.val[:, None], first, last)
        prob = temper(softmax(decisions, axis=1), np.full(len(label), temperature))
        prob[np.isneginf(decisions)] = 0.0

    for dim, name in enumerate(DIMENSIONS):
        truth, rated = vad[:, dim], np.isfinite(vad[:, dim])
        if len(np.unique(truth[fold.train & rated])) < 2:
            continue

        def regress(
            kernel: _Kernel, options: Chosen, truth: Any = truth, rated: Any = rated
        ) -> Float[np.ndarray, " utterance"]:
            return kernel.regress(SVR(kernel="precomputed", **options), truth, rated)

        def concordance(
            values: Float[np.ndarray, " row"], rows: Bool[np.ndarray, " utterance"], truth: Any = truth
        ) -> float:
            return ccc(values, truth[rows])

        grid = [{"C": cost, "epsilon": epsilon} for cost in REGRESSION_COSTS for epsilon in EPSILONS]
        chosen[name], first, last = _choose(grid, regress, concordance, kernels, fold.val & rated)
        predicted[:, dim] = np.where(fold.val, first, last)
    return Fitted(prob, predicted, chosen)


def _choose(
    grid: Sequence[Chosen],
    predict: Callable[["_Kernel", Chosen], Values],
    score: Callable[[Values, Bool[np.ndarray, " utterance"]], float],
    kernels: Sequence["_Kernel"],
    rows: Bool[np.ndarray, " utterance"],
) -> tuple[Chosen, Values, Values]:
    """Returns the best options on these rows, the first of equals, and what the first and the last kernel predict.

    Without a score, because the rows have no truths or equal ones, it is the one in the middle of the grid.
    """
    predictions = [predict(kernels[0], options) for options in grid]
    scores = np.array([score(each[rows], rows) if rows.any() else np.nan for each in predictions])
    best = len(grid) // 2 if np.isnan(scores).all() else int(np.nanargmax(scores))
    last = predictions[best] if len(kernels) == 1 else predict(kernels[-1], grid[best])
    return grid[best], predictions[best], last


class _Kernel:
    """The products of all utterances' standardised features with those of the trained ones."""

    def __init__(
        self, features: Float[np.ndarray, "utterance statistic"], trained: Bool[np.ndarray, " utterance"]
    ) -> None:
        x = features.astype(np.float64)
        x = StandardScaler().fit(x[trained]).transform(x)
        self.rows = np.flatnonzero(trained)
        self.products = x @ x[trained].T

    def decide(
        self, machine: SVC, label: Int[np.ndarray, " utterance"], known: Bool[np.ndarray, " utterance"], n_classes: int
    ) -> Float[np.ndarray, "utterance class"]:
        """Trains a classifier on the known ones of the trained rows, and returns the decisions for all utterances.

        Of two classes they are -d and d for the decision d; a class that is not trained has -inf.
        """
        machine, of_all = self._fit(machine, label, known)
        found = machine.decision_function(of_all)
        if found.ndim == 1:
            found = np.stack([-found, found], axis=1)
        decisions = np.full((len(found), n_classes), -np.inf)
        decisions[:, machine.classes_] = found
        return decisions

    def regress(
        self, machine: SVR, truth: Float[np.ndarray, " utterance"], known: Bool[np.ndarray, " utterance"]
    ) -> Float[np.ndarray, " utterance"]:
        """Trains a regression on the known ones of the trained rows, and returns its values for all utterances."""
        machine, of_all = self._fit(machine, truth, known)
        return machine.predict(of_all)

    def _fit(self, machine: Any, truth: np.ndarray, known: np.ndarray) -> tuple[Any, np.ndarray]:
        columns = np.flatnonzero(known[self.rows])
        rows = self.rows[columns]
        return machine.fit(self.products[np.ix_(rows, columns)], truth[rows]), self.products[:, columns]
