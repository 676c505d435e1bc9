"""The results of a study, from the arrays of its programs: the predictions and the tree of metrics.json."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from sejax.corpora.schema import Corpus
from sejax.engine.feed import Outcome, Tested
from sejax.engine.runs import Learnable, RunKey, Setting
from sejax.engine.search import comparable_settings
from sejax.evaluation.baselines import class_mean_lookup, majority_class
from sejax.evaluation.calibration import calibrate
from sejax.evaluation.distributions import Votes, mean_votes, score_distributions
from sejax.evaluation.intervals import score_groups, summarise
from sejax.evaluation.metrics import confusion_matrix
from sejax.evaluation.missing import prediction_gaps, training_gaps
from sejax.evaluation.nested import (
    CHOICE,
    CHOSEN,
    choose_settings,
    cost_of_choice,
    with_chosen,
)
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.selection import diverged_epochs, selection_scores, trained_outputs, unselected_runs
from sejax.evaluation.test_sets import score_test_sets
from sejax.protocols.folds import Fold


def gather_predictions(
    corpus: Corpus,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    tested: Mapping[int, Tested],
    *,
    learnable: Mapping[int, Learnable],
    best_epoch: Int[np.ndarray, " run"],
) -> Predictions:
    """Returns all predictions, VAD in the corpus's scale, in the order of the runs; of a run, those of its validation
    utterances and then those of its test utterances, in the order of the corpus.

    What a run does not train, or has no labels to learn from, has no predictions there; nor has a run without any
    epoch before it diverged.

    Args:
      corpus: with the truths.
      runs: of all programs.
      folds: by the runs' numbers of them.
      tested: by the run's number.
      learnable: by the run's number.
      best_epoch: by the run's number; 0 for none.
    """
    known = {}
    for run in runs:
        outputs = tested[run.number]
        trained = bool(best_epoch[run.number] > 0)
        with_label, with_vad = trained_outputs(run, learnable[run.number])
        known[run.number] = outputs._replace(
            prob=outputs.prob if trained and with_label else np.full_like(outputs.prob, np.nan),
            vad=np.where(trained & with_vad, outputs.vad, np.nan),
        )
    return in_rows(corpus, runs, folds, known)


def in_rows(corpus: Corpus, runs: Sequence[RunKey], folds: Sequence[Fold], tested: Mapping[int, Tested]) -> Predictions:
    """Returns the predictions of runs as rows, see `gather_predictions`; what a run does not predict is NaN."""
    low, high = corpus.vad_scale
    rated = np.isfinite([u.vad for u in corpus.utterances]).any(axis=0)
    parts = []
    for run in runs:
        outputs = tested[run.number]
        order = np.lexsort((outputs.utterance, outputs.split == "test"))
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
                "split": outputs.split[order],
                "utterance": utterance,
                "prob": prob,
                "vad": np.array([corpus.utterances[u].vad for u in utterance], np.float64),
                "pred_vad": np.where(rated, vad, np.nan),
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
    learnable: Mapping[int, Learnable],
    outcome: Outcome,
    classical: Mapping[str, Mapping[str, Any]],
    epochs: int,
    history: Iterable[Mapping[str, Any]],
    protocol: Mapping[str, Any],
    corpus_facts: Mapping[str, Any],
    audit: Mapping[str, Any],
    n_bootstrap: int,
    nested: bool = False,
) -> dict[str, Any]:
    """Returns the tree of metrics.json: every setting with its intervals and parts, and the baselines.

    Classical baselines, in `baselines.classical`, have the same entries as settings, but for what concerns training;
    and `chosen`: with what the machines of each fold were trained, by "class" and dimension.

    The rows of "val" have a say in `calibration` alone, see `calibrate`; all other numbers are of "test". With several
    seeds a setting also has `seeds_averaged`: the metrics of the mean of their predictions. Where something is missing,
    a setting has

    - `unfinished`: the epochs that are trained, and those of the config, if some are still to be trained; of `chosen`
      in any run that it chooses among;
    - `diverged`: the runs that did, each with the first such epoch and the epoch before it that is tested (0: none);
    - `stopped`: by epoch, the folds in which halving stopped the setting after it, so that it is not tested there;
    - `untrained`: by class and dimension, the folds without labels to learn it from, which do not predict it;
    - `unselected`: the folds without labels to choose the epoch by, of which the last epoch is tested;
    - `unpredicted`: by class and dimension, the number of rows with a truth and no finite prediction;
    - `ccc_mean_over`: the dimensions of `ccc_mean`, if others with ratings have no CCC.

    Where there are raters' votes, `distributions` says how the probabilities fit them, see `score_distributions`, and
    the baselines have `mean_votes`.

    Where there are several test sets, `tests` has the metrics of each, see `score_test_sets`. In a matrix of corpora
    the folds within a corpus are in these cells alone: every other number is of folds that test on other corpora.

    With nested choice the first of the settings is `chosen`, whose rows in a fold are those of the setting that the
    fold has chosen: `choice` has these settings by fold, and what the best in hindsight would have gained.

    Args:
      predictions: of all runs, and behind them those of the classical baselines.
      runs: of all programs.
      folds: of the protocol.
      corpus: with the truths from which the baselines are made.
      learnable: by the run's number.
      outcome: by the run's number.
      classical: what was chosen in each fold, by the name of the classical baseline.
      epochs: of the config.
      history: rows of history.jsonl.
      protocol: stored as it is.
      corpus_facts: stored as they are.
      audit: stored as it is.
      n_bootstrap: draws of speakers for the intervals.
      nested: whether each fold chooses its setting.
    """
    choice = choose_settings(runs, outcome.best_score) if nested else {}
    chosen_in = {folds[fold].name: setting.name for fold, setting in choice.items()}
    predictions = with_chosen(predictions, chosen_in)
    votes = _votes_of(corpus)
    cells = score_test_sets(predictions.of("test"), folds, corpus, n_bootstrap=n_bootstrap)
    # The folds within a corpus are the diagonal of a matrix; all other numbers are of the corpora that are new.
    within = [fold.name for fold in folds if fold.within]
    if len(within) < len(folds):
        predictions = predictions.select(~np.isin(predictions.fold, within))
    calibration = {name: calibrate(rows, votes) for name, rows in predictions.rounded().by("setting").items()}
    predictions = predictions.of("test")  # all other numbers
    label = np.array(corpus.label_numbers())
    vad = np.array([u.vad for u in corpus.utterances], np.float64)
    of_raters = _distributions(predictions, votes, calibration, n_bootstrap)
    prior = mean_votes(predictions, votes, [u.id for u in corpus.utterances], folds, n_bootstrap=n_bootstrap)
    # Without classes there is nothing to look up and no majority.
    lookup = class_mean_lookup(predictions, label, vad, folds, n_bootstrap=n_bootstrap) if corpus.classes else {}
    majority = majority_class(predictions, label, folds, n_bootstrap=n_bootstrap) if corpus.classes else {}
    runs_of = _runs_of_rows(runs, folds, chosen_in)
    ensembles = _ensembles(predictions, runs, n_bootstrap)
    history = list(history)
    lost = diverged_epochs(history), unselected_runs(history)
    scores = _selection_scores(history, runs, outcome, {run.number for run in runs_of[CHOSEN]})
    possible = {setting.name for setting in comparable_settings([run.setting for run in runs])}
    settings, machines = [], []
    for entry in summarise(predictions, n_bootstrap=n_bootstrap):
        name = entry["name"]
        scored = {
            "metrics": entry["metrics"],
            "baselines": {"class_mean_lookup": lookup[name]} if lookup.get(name) else {},
            "calibration": calibration[name],
            **({"distributions": of_raters[name]} if of_raters[name] else {}),
            **({"tests": cells[name]} if name in cells else {}),
        }
        if name in classical:
            lacking = {key: entry[key] for key in ("unpredicted",) if key in entry}
            machines.append({"name": name, "chosen": dict(classical[name]), **scored, **lacking})
            continue
        own = runs_of[name]
        setting = {"name": name, "values": _common_values([run.setting for run in own]), **scored}
        among = [run for run in runs if run.setting.name in possible] if name == CHOSEN else own
        gaps = training_gaps(own, folds, outcome, epochs, *lost, among=among)
        gaps |= prediction_gaps(own, folds, learnable, predictions, entry)
        settings.append(setting | ensembles.get(name, {}) | {key: value for key, value in gaps.items() if value})
    if choice:
        settings[0][CHOICE] = {"folds": chosen_in, "hindsight": _hindsight(settings, possible)}
    settings, machines = (
        _with_genders(with_parts(entries, predictions, scores), predictions, corpus) for entries in (settings, machines)
    )
    further = {"mean_votes": prior, "classical": machines}
    return {
        "protocol": dict(protocol),
        "corpus": dict(corpus_facts),
        "settings": settings,
        "baselines": {"majority": majority, **{name: found for name, found in further.items() if found}},
        "audit": dict(audit),
    }


def _votes_of(corpus: Corpus) -> Votes:
    """Returns the shares of the raters' votes for the classes, by the utterance's id."""
    return {
        u.id: np.array([u.distribution.get(name, 0.0) for name in corpus.classes])
        for u in corpus.utterances
        if u.distribution is not None
    }


def _runs_of_rows(
    runs: Sequence[RunKey], folds: Sequence[Fold], chosen_in: Mapping[str, str]
) -> dict[str, list[RunKey]]:
    """Returns the runs of each row of the table: those that the folds chose, and those of each setting."""
    runs_of = {CHOSEN: [run for run in runs if chosen_in.get(folds[run.fold].name) == run.setting.name]}
    for run in runs:
        runs_of.setdefault(run.setting.name, []).append(run)
    return runs_of


def _hindsight(settings: Sequence[Mapping[str, Any]], possible: Collection[str]) -> dict[str, Any]:
    """Returns `cost_of_choice` of the first row, `chosen`, beside the settings that could be chosen, by their names."""
    others = {setting["name"]: setting["metrics"] for setting in settings if setting["name"] in possible}
    return cost_of_choice(settings[0]["metrics"], others)


def _common_values(settings: Sequence[Setting]) -> dict[str, Any]:
    """Returns the options that have the same value in all settings."""
    first, *others = (setting.values for setting in settings)
    return {name: value for name, value in first.items() if all(values[name] == value for values in others)}


def _distributions(
    predictions: Predictions, votes: Votes, calibration: Mapping[str, Mapping[str, Any]], n_bootstrap: int
) -> dict[str, dict[str, Any]]:
    """Returns `score_distributions` of each setting, by its name."""
    temperature = {name: found.get("temperature", {}).get("folds", {}) for name, found in calibration.items()}
    return {
        name: score_distributions(rows, votes, temperature[name], n_bootstrap=n_bootstrap)
        for name, rows in predictions.rounded().by("setting").items()
    }


def _ensembles(predictions: Predictions, runs: Sequence[RunKey], n_bootstrap: int) -> dict[str, dict[str, Any]]:
    """Returns `seeds_averaged` by setting; nothing with one seed."""
    if len({run.seed for run in runs}) < 2:
        return {}
    averaged = summarise(predictions.average_seeds(), n_bootstrap=n_bootstrap)
    return {entry["name"]: {"seeds_averaged": entry["metrics"]} for entry in averaged}


def _selection_scores(
    history: Sequence[Mapping[str, Any]], runs: Sequence[RunKey], outcome: Outcome, chosen: Collection[int]
) -> dict[str, float]:
    """Returns `selection_scores` of the settings, and of the runs that nested choice has chosen."""
    scored = [*history, *_lost_rows(history, runs, outcome)]
    scored += [{**row, "setting": CHOSEN} for row in scored if row["run"] in chosen]
    return selection_scores(scored, dict(enumerate(outcome.best_epoch.tolist())))


def _lost_rows(
    history: Iterable[Mapping[str, Any]], runs: Sequence[RunKey], outcome: Outcome
) -> list[Mapping[str, Any]]:
    """Returns, for the runs whose best epoch has no row in the history, one with its score."""
    there = {(row["run"], row["epoch"]) for row in history}
    best = [(run, int(outcome.best_epoch[run.number]), float(outcome.best_score[run.number])) for run in runs]
    return [
        {"run": run.number, "epoch": epoch, "setting": run.setting.name, "score": score}
        for run, epoch, score in best
        if epoch and (run.number, epoch) not in there
    ]


def _with_genders(
    settings: Sequence[Mapping[str, Any]], predictions: Predictions, corpus: Corpus
) -> list[dict[str, Any]]:
    """Returns the settings with `genders`: the metrics of the speakers of each gender that the corpus says."""
    said = {u.id: u.gender for u in corpus.utterances if u.gender}
    rows_of_setting, completed = predictions.rounded().by("setting"), []
    for setting in settings:
        rows = rows_of_setting[setting["name"]]
        rows = rows.select(np.array([name in said for name in rows.id.tolist()], bool))
        genders = np.array([said[name] for name in rows.id.tolist()])
        parts = score_groups(rows, "gender", genders) if len(genders) else []
        completed.append({**setting, **({"genders": parts} if parts else {})})
    return completed


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
