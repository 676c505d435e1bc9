"""The section of one setting: its values, confusion matrix, scores of folds and speakers, and figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import COLUMNS, Column, classical_title
from sejax.report.calibration import CalibrationView, calibration_figures, view_calibration
from sejax.report.explained import ExplanationView, reading_aid, view_explanation
from sejax.report.figures import Curve, Figure, Figures, curve_panel, scatter_panel, weight_panel
from sejax.report.gaps import GapView, view_gaps
from sejax.report.importance import importance_figures
from sejax.report.matrix import MatrixView, view_matrices
from sejax.report.read import Run, Scores, Setting, Study
from sejax.report.results import Cell, exact_number, span_of, track_of

_SHORT = {"wa": "WA", "ua": "UA", "ccc_mean": "mean CCC"}
_TRACKED = ("ua", "ccc_mean")
_CURVES_AID = (
    "Mean over the runs (folds and seeds) still in training, with a band of one standard deviation; each dot "
    "is the epoch that is kept of one run."
)
_EXTREMES_AID = " Dotted: the least and the greatest weight in the steps of an epoch, mean over the runs."
_LAYERS_AID = (
    "Weight of each hidden state at the epochs that are kept: softmax weights, mean over the runs with one "
    "standard deviation. 0 is the input of the first Transformer layer; the line marks equal weights."
)
_SCATTER_AID = (
    "One point per test utterance and seed, in the corpus's own scale; the line is perfect agreement. "
    "CCC over all folds, as in the table."
)


@dataclass(frozen=True)
class ConfusionCell:
    """A share of the true class: its text, its count, its value from 0 to 1, and whether it is dark."""

    percent: str
    count: str
    share: str
    dark: bool


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: class, cells and total of each row."""

    classes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ConfusionCell], str]]
    aid: str


@dataclass(frozen=True)
class ScoreRow:
    """The scores of a fold or speaker."""

    name: str
    utterances: str
    epochs: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class ScoreTable:
    """A row of scores for each fold or speaker."""

    kind: str  # title of the first column
    with_epochs: bool
    columns: Sequence[str]
    rows: Sequence[ScoreRow]


@dataclass(frozen=True)
class SettingView:
    """The section of one setting."""

    name: str
    anchor: str
    unfolded: bool
    summary: str
    facts: Sequence[tuple[str, str]]
    matrices: Sequence[MatrixView]
    confusion: Confusion | None
    scores: ScoreTable | None  # by fold; by speaker where each fold tests on one
    speakers: ScoreTable | None  # where folds test on several
    gaps: GapView | None
    calibration: CalibrationView | None
    figures: Sequence[Figures]
    explanations: Sequence[ExplanationView]
    explained_aid: str


def view_settings(study: Study) -> list[SettingView]:
    """Returns the sections of all settings, and behind them those of the classical baselines."""
    limits = _vad_limits(study.predictions)
    rows_of_setting = study.predictions.by("setting")
    sections = [(setting, f"setting-{number}") for number, setting in enumerate(study.settings, start=1)]
    sections += [(machine, f"classical-{number}") for number, machine in enumerate(study.classical, start=1)]
    return [_view(study, setting, rows_of_setting[setting.name], anchor, limits) for setting, anchor in sections]


def _view(
    study: Study, setting: Setting, rows: Predictions, anchor: str, limits: tuple[float, float] | None
) -> SettingView:
    runs = study.runs_of(setting)
    numbers = {run.number for run in runs}
    facts = _choice(setting)
    facts += [(name, _plain(value)) for name, value in setting.values.items()]
    facts += [
        (f"RMSE {name}", f"{setting.metrics[f'rmse_{name}'].pooled:.3f}")
        for name in DIMENSIONS
        if f"rmse_{name}" in setting.metrics
    ]
    scores, speakers = _score_tables(study, setting, runs)
    explanations = [
        view_explanation(tree["id"], _of_utterance(tree), tree, f"{anchor}-explanation-{number}")
        for number, tree in enumerate(study.explanations, 1)
        if tree["run"] in numbers
    ]
    groups = [
        *calibration_figures(rows, setting.calibration, anchor),
        _curves(study, setting, runs, anchor),
        Figures("Layers of the pretrained models", _layer_figures(study, setting, anchor), _LAYERS_AID),
        importance_figures([each for each in study.importance if each.run in numbers], anchor),
        Figures("Predicted against true", _scatter_figures(rows, setting, limits, anchor), _SCATTER_AID),
    ]
    return SettingView(
        name=setting.name if runs else classical_title(setting.name),
        anchor=anchor,
        unfolded=(len(study.settings) <= 2 and bool(runs)) or setting is study.best,
        summary=", ".join(
            f"{_SHORT[column.key]} {column.number(setting.metrics[column.key].pooled)}"
            for column in study.columns
            if column.key in _SHORT and column.key in setting.metrics
        ),
        facts=facts,
        matrices=view_matrices(setting.tests),
        confusion=_confusion(setting.confusion, study.corpus.classes, study.protocol.seeds if runs else 1),
        scores=scores,
        speakers=speakers,
        gaps=view_gaps(setting),
        calibration=view_calibration(setting.calibration, setting.distributions, study.mean_votes),
        figures=[group for group in groups if group.figures],
        explanations=explanations,
        explained_aid=reading_aid(explanations),
    )


def _choice(setting: Setting) -> list[tuple[str, str]]:
    """Returns which folds chose which setting; nothing of another row than `chosen`."""
    folds: dict[str, list[str]] = {}
    for fold, name in setting.choice.items():
        folds.setdefault(name, []).append(fold)
    return [(f"chosen by fold{'s' * (len(of) > 1)} {', '.join(of)}", name) for name, of in folds.items()]


def _of_utterance(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what is known of a test utterance that is explained."""
    kind = tree["kind"]
    facts = [("speaker, held out", tree["speaker"]), ("fold, seed", f"{tree['fold']}, {tree['seed']}")]
    if tree["confidence"] is None:
        return [*facts, ("chosen as", f"{kind} to the ratings")]
    named = f"{tree['output']}, {kind}: {tree['label']}" if kind == "wrong" else tree["output"]
    return [*facts, ("named", named), ("confidence", f"{tree['confidence']:.2f}")]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _confusion(counts: Int[np.ndarray, "class class"] | None, classes: Sequence[str], seeds: int) -> Confusion | None:
    if counts is None:
        return None
    rows = []
    for name, row in zip(classes, counts.tolist(), strict=True):
        total = sum(row)
        cells = []
        for count in row:
            share = count / total if total else 0.0
            percent = f"{100 * share:.0f}" if total else "–"
            cells.append(ConfusionCell(percent, f"{count:,}", f"{share:.3f}", share >= 0.72))
        rows.append((name, cells, f"{total:,}"))
    summed = f", summed over {seeds} seeds." if seeds > 1 else "."
    return Confusion(classes, rows, f"Per cent of the true class, and the number of utterances{summed}")


def _score_tables(study: Study, setting: Setting, runs: Sequence[Run]) -> tuple[ScoreTable | None, ScoreTable | None]:
    """Returns the table of the folds, and that of the speakers where a fold tests on several."""
    known = {key for fold in setting.folds for key in fold.metrics}
    columns = [column for key, column in COLUMNS.items() if key in known and key not in ("wa", "macro_f1")]
    if not columns:
        return None, None
    epochs: dict[str, str] = {}
    for run in runs:
        epoch = str(run.best_epoch or "none")
        epochs[run.fold] = f"{epochs[run.fold]}, {epoch}" if run.fold in epochs else epoch
    tested = set(zip(study.predictions.fold.tolist(), study.predictions.speaker.tolist(), strict=True))
    if all(fold == speaker for fold, speaker in tested):
        return _score_table("test speaker", setting.folds, columns, epochs), None
    return (
        _score_table("fold", setting.folds, columns, epochs),
        _score_table("test speaker", setting.speakers, columns, {}),
    )


def _score_table(
    kind: str, scores: Sequence[Scores], columns: Sequence[Column], epochs: Mapping[str, str]
) -> ScoreTable:
    columns = [column for column in columns if any(column.key in row.metrics for row in scores)]
    spans = {
        column.key: span_of([row.metrics[column.key] for row in scores if column.key in row.metrics])
        for column in columns
        if column.key in _TRACKED
    }

    def cell(column: Column, value: float | None) -> Cell | None:
        if value is None:
            return None
        track = track_of(spans[column.key], value) if column.key in spans else None
        return exact_number(column, value, track)

    rows = [
        ScoreRow(
            name=row.name,
            utterances=f"{row.utterances:,}",
            epochs=epochs.get(row.name, ""),
            cells=[cell(column, row.metrics.get(column.key)) for column in columns],
        )
        for row in scores
    ]
    return ScoreTable(kind, bool(epochs), [column.title for column in columns], rows)


def _curves(study: Study, setting: Setting, runs: Sequence[Run], anchor: str) -> Figures:
    """Returns losses, validation scores and task weights over epochs; nothing for a classical baseline."""
    if not runs:
        return Figures("Training", [], "")
    row_of = {run.number: row for row, run in enumerate(runs)}
    history = [row for row in study.history if row["run"] in row_of]
    chosen = np.array([run.best_epoch for run in runs])
    n_epochs = max([row["epoch"] for row in history] + chosen.tolist())  # rows may have been lost

    def values(name: str) -> Float[np.ndarray, "run epoch"]:
        table = np.full((len(runs), n_epochs), np.nan)
        for row in history:
            if row.get(name) is not None:
                table[row_of[row["run"]], row["epoch"] - 1] = row[name]
        return table

    names = list(dict.fromkeys(name for row in history for name in row))
    losses = [name.removeprefix("loss_") for name in names if name.startswith("loss_")]
    # A task whose weight is always 0 is not trained: its curves would be those of an untrained head.
    tasks = [task for task in losses if any((row.get(f"weight_{task}") or 0) > 0 for row in history)]
    figures = []
    for task in tasks:
        curves = [
            Curve("train", "s1", values(f"loss_{task}")),
            Curve("validation", "s2", values(f"val_loss_{task}"), chosen),
        ]
        figures.append(_curve_figure(f"{_task_name(task)} loss", curves, f"{anchor}-loss-{task}"))
    scores = (("ua", "UA", "s3"), ("ccc_mean", "mean CCC", "s4"))
    curves = [Curve(label, colour, values(f"val_{name}"), chosen) for name, label, colour in scores]
    figures.append(_curve_figure("Validation scores", curves, f"{anchor}-scores"))
    with_extremes = False
    if len(tasks) > 1:  # one task alone has a constant weight
        curves, reach = [], [0.0, float(len(tasks))]
        for index, task in enumerate(tasks):
            weight, least, greatest = (values(f"{name}_{task}") for name in ("weight", "weight_min", "weight_max"))
            # The extremes of a constant weight coincide with its line.
            varies = bool((greatest > least).any())
            extremes = (least, greatest) if varies else None
            curves.append(Curve(_task_name(task), f"s{3 + index}", weight, extremes=extremes))
            reach += [float(np.nanmin([weight, least, greatest])), float(np.nanmax([weight, least, greatest]))]
            with_extremes |= varies
        limits = 1.04 * min(reach), 1.04 * max(reach)
        figures.append(_curve_figure("Task weights", curves, f"{anchor}-weights", limits=limits))
    aid = _CURVES_AID + (_EXTREMES_AID if with_extremes else "")
    return Figures("Training", [figure for figure in figures if figure], aid)


def _task_name(task: str) -> str:
    return "VAD" if task == "vad" else task.capitalize()


def _curve_figure(
    title: str, curves: Sequence[Curve], key: str, limits: tuple[float, float] | None = None
) -> Figure | None:
    curves = [curve for curve in curves if np.isfinite(curve.values).any()]
    if not curves:
        return None
    svg = curve_panel(curves, key=key, label=f"{title} over epochs", limits=limits)
    return Figure(title, Markup(svg), [(curve.colour, curve.name) for curve in curves])


def _layer_figures(study: Study, setting: Setting, anchor: str) -> list[Figure]:
    """Returns the learned weights of the layers of each pretrained stream."""
    figures = []
    for (name, stream), weights in study.layer_weights.items():
        if name == setting.name:
            key, label = f"{anchor}-layers-{stream}", f"Weights of the layers of {stream}"
            figures.append(Figure(stream, Markup(weight_panel(weights, key=key, label=label))))
    return figures


def _vad_limits(predictions: Predictions) -> tuple[float, float] | None:
    """Returns one scale for all scatter plots of the page; None without VAD."""
    usable = np.isfinite(predictions.vad) & np.isfinite(predictions.pred_vad)
    if not usable.any():
        return None
    return span_of([*predictions.vad[usable].tolist(), *predictions.pred_vad[usable].tolist()])


def _scatter_figures(
    rows: Predictions, setting: Setting, limits: tuple[float, float] | None, anchor: str
) -> list[Figure]:
    figures = []
    for dimension, name in enumerate(DIMENSIONS):
        true, predicted = rows.vad[:, dimension], rows.pred_vad[:, dimension]
        usable = np.isfinite(true) & np.isfinite(predicted)
        if limits is None or not usable.any():
            continue
        title = name.capitalize()
        if (key := f"ccc_{name}") in setting.metrics:
            title += f", CCC {COLUMNS[key].number(setting.metrics[key].pooled)}"
        svg = scatter_panel(
            true[usable],
            predicted[usable],
            key=f"{anchor}-{name}",
            label=f"Predicted against true {title}",
            limits=limits,
        )
        figures.append(Figure(title, Markup(svg)))
    return figures
