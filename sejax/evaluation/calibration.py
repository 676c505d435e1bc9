"""How sure the models of a setting are, and how right they are then: the key `calibration` of metrics.json.

Temperatures and half widths are from validation rows alone, those of a fold from its own: a model of another fold may
have trained on this fold's test speaker. All other numbers are of test rows. They are functions of the rows of
predictions.csv, but for `votes`, which needs the raters' votes of utterances.csv too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.confidence import (
    brier_score,
    entropy,
    expected_calibration_error,
    negative_log_likelihood,
    risk_coverage,
)
from sejax.evaluation.conformal import LEVEL, half_width
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.temperature import fit_temperature, temper


def calibrate(predictions: Predictions, votes: Mapping[str, Float[np.ndarray, " class"]]) -> dict[str, Any]:
    """Returns how sure the models of one setting are. What there is nothing for is absent, never NaN:

    - `temperature`: `{"all": T, "folds": {fold: T}}`, fitted on the validation rows of all seeds: of each fold alone,
      and of all folds together, for a model that is trained on all speakers. 1 without labelled ones;
    - `ece`, `brier`, `nll`: `{"before": x, "after": x}` the probabilities are tempered by their fold's temperature;
    - `aurc`: the area under the risk-coverage curve of the tempered confidence;
    - `intervals`: `{"level": p, "half_width": {"all": {dim: w}, "folds": {fold: {dim: w}}}, "coverage": {dim: share},
      "mean_width": {dim: w}}`, widths in the corpus's scale. A fold with too few rated validation rows for the level
      has no half width; coverage and mean width are then over the other folds;
    - `votes`: `{"spearman": r, "pearson": r, "utterances": n}`, the correlation between the entropy of the raters'
      votes and that of the tempered probabilities, over the n utterances that have both;
    - `spread`: `{"class": sd, dim: sd}`, with several seeds: the sample standard deviation over seeds of the
      tempered probability of the class that the seeds predict together, and of each dimension; the mean over the
      utterances that all seeds predict.

    A number of test rows is over the rows of all seeds. As with the metrics, `ece`, `brier`, `nll`, `aurc`, `coverage`
    and `mean_width` are absent if a row that has the truth has no prediction.

    Args:
      predictions: of one setting, validation and test rows, with the digits of predictions.csv.
      votes: the shares of the raters' votes for the classes, by the utterance's id.
    """
    tested, temperature = predictions.of("test"), _temperatures(predictions)
    tempered = temper_folds(tested, temperature["folds"]) if temperature else tested.prob
    parts = {
        "temperature": temperature,
        **_confidence(tested, tempered),
        "intervals": _intervals(predictions),
        "votes": _votes(tested, tempered, votes),
        "spread": _spread(tested, tempered),
    }
    return {name: part for name, part in parts.items() if part}


def temper_folds(rows: Predictions, temperature: Mapping[str, float]) -> Float[np.ndarray, "row class"]:
    """Returns the probabilities of rows of one setting by the temperatures of their folds."""
    return temper(rows.prob, np.array([temperature[fold] for fold in rows.fold.tolist()], np.float64))


def _temperatures(predictions: Predictions) -> dict[str, Any]:
    if not (predictions.predicted_class() >= 0).any():
        return {}
    validated = predictions.of("val")
    usable = validated.select((validated.label >= 0) & (validated.predicted_class() >= 0))

    def fitted(rows: Predictions) -> float:
        return fit_temperature(rows.prob, rows.label, rows.id)

    folds = {fold: fitted(usable.select(usable.fold == fold)) for fold in _folds(predictions)}
    return {"all": fitted(usable), "folds": folds}


def _confidence(tested: Predictions, tempered: Float[np.ndarray, "row class"]) -> dict[str, Any]:
    """Returns ECE, Brier score and negative log likelihood before and after, and AURC."""
    labelled, predicted = tested.label >= 0, tested.predicted_class()
    if not labelled.any() or (predicted[labelled] < 0).any():
        return {}
    label, correct = tested.label[labelled], (predicted == tested.label)[labelled]
    probabilities = {"before": tested.prob[labelled], "after": tempered[labelled]}
    confidence = {when: prob.max(axis=1) for when, prob in probabilities.items()}
    return {
        "ece": {when: expected_calibration_error(top, correct) for when, top in confidence.items()},
        "brier": {when: brier_score(prob, label) for when, prob in probabilities.items()},
        "nll": {when: negative_log_likelihood(prob, label) for when, prob in probabilities.items()},
        "aurc": float(risk_coverage(confidence["after"], correct).risk.mean()),
    }


def _intervals(predictions: Predictions) -> dict[str, Any]:
    """Returns half widths from validation rows, and what they cover of test rows."""
    folds, tested, validated = _folds(predictions), predictions.of("test"), predictions.of("val")
    residual = np.abs(validated.pred_vad - validated.vad)
    error = np.abs(tested.pred_vad - tested.vad)
    tree: dict[str, Any] = {"level": LEVEL, "half_width": {"all": {}, "folds": {fold: {} for fold in folds}}}
    coverage, mean_width = {}, {}
    for dim, name in enumerate(DIMENSIONS):
        known = np.isfinite(residual[:, dim])
        of_all = half_width(residual[known, dim])
        of_folds = {fold: half_width(residual[known & (validated.fold == fold), dim]) for fold in folds}
        if of_all is not None:
            tree["half_width"]["all"][name] = of_all
        for fold, width in of_folds.items():
            if width is not None:
                tree["half_width"]["folds"][fold][name] = width
        widths = np.array([np.nan if of_folds[fold] is None else of_folds[fold] for fold in tested.fold.tolist()])
        rated, measured = np.isfinite(tested.vad[:, dim]), np.isfinite(error[:, dim]) & np.isfinite(widths)
        if measured.any() and not (rated & ~np.isfinite(tested.pred_vad[:, dim])).any():
            coverage[name] = float((error[:, dim] <= widths)[measured].mean())
            mean_width[name] = float(2 * widths[measured].mean())
    if not tree["half_width"]["all"]:
        return {}
    return tree | ({"coverage": coverage, "mean_width": mean_width} if coverage else {})


def _votes(
    tested: Predictions,
    tempered: Float[np.ndarray, "row class"],
    votes: Mapping[str, Float[np.ndarray, " class"]],
) -> dict[str, Any]:
    """Returns the correlations of the entropies of votes and predictions."""
    usable = np.array([name in votes for name in tested.id.tolist()], bool) & (tested.predicted_class() >= 0)
    if not usable.any():
        return {}
    ids = tested.id[usable].tolist()
    of_votes, of_model = entropy(np.stack([votes[name] for name in ids])), entropy(tempered[usable])
    if not np.ptp(of_votes) or not np.ptp(of_model):  # a constant correlates with nothing
        return {}
    return {
        "spearman": float(np.corrcoef(rankdata(of_votes), rankdata(of_model))[0, 1]),
        "pearson": float(np.corrcoef(of_votes, of_model)[0, 1]),
        "utterances": len(set(ids)),
    }


def _spread(tested: Predictions, tempered: Float[np.ndarray, "row class"]) -> dict[str, float]:
    seeds = np.unique(tested.seed)
    if len(seeds) < 2:
        return {}
    order = np.lexsort((tested.seed, tested.id, tested.fold))  # every seed has the same utterances
    prob, vad = (
        x[order].reshape(len(order) // len(seeds), len(seeds), x.shape[1]) for x in (tempered, tested.pred_vad)
    )
    outputs = {name: vad[..., dim] for dim, name in enumerate(DIMENSIONS)}
    if tested.classes:
        together = prob.mean(axis=1).argmax(axis=1)
        outputs = {"class": np.take_along_axis(prob, together[:, None, None], axis=2)[..., 0], **outputs}
    found = {}
    for name, of_seeds in outputs.items():
        predicted = np.isfinite(of_seeds).all(axis=1)
        if predicted.any():
            found[name] = float(of_seeds[predicted].std(axis=1, ddof=1).mean())
    return found


def _folds(predictions: Predictions) -> list[str]:
    return list(dict.fromkeys(predictions.fold.tolist()))
