"""The report: the files of a finished workdir, turned into one self-contained `report.html`.

The page needs no network, no script and no other file. Tables are HTML; figures are inline SVG whose colours
are CSS variables, so that one figure serves light screens, dark screens and paper. The same files give the
same bytes.
"""

import csv
import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError
from sejax.evaluation.metrics import ccc, confusion_matrix, unweighted_accuracy
from sejax.evaluation.predictions import Predictions
from sejax.report.figures import Curve, curve_panel, scatter_panel, weight_panel

FILES = ("config.json", "runs.csv", "history.jsonl", "predictions.csv", "metrics.json")
"""What `write_report` reads in a workdir; and where hidden states are mixed, `LAYER_WEIGHTS`."""

LAYER_WEIGHTS = "layer_weights.csv"


@dataclass(frozen=True)
class _Metric:
    """How a metric is shown."""

    key: str  # in metrics.json
    name: str
    scale: int  # what the number is multiplied with to be shown
    digits: int
    unit: str

    def format(self, value: float) -> str:
        # Adding 0.0 turns the -0.0 of a rounded small negative number into 0.0.
        return f"{round(self.scale * value, self.digits) + 0.0:.{self.digits}f}"


_CLASS_METRICS = (
    _Metric("wa", "WA", 100, 1, " %"),
    _Metric("ua", "UA", 100, 1, " %"),
    _Metric("macro_f1", "macro F1", 100, 1, " %"),
)
_CCC_METRICS = tuple(_Metric(f"ccc_{name}", name, 1, 3, "") for name in (*DIMENSIONS, "mean"))
_METRICS = (*_CLASS_METRICS, *_CCC_METRICS)


def write_report(workdir: str) -> str:
    """Writes `report.html` into a finished workdir and returns its path.

    Reads the files named in `FILES` there, and `LAYER_WEIGHTS` where it is. Raises InputError if one of `FILES`
    is missing.
    """
    study = _read_study(workdir)
    page = _page(study)
    path = os.path.join(workdir, "report.html")
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as file:
        file.write(page)
    os.replace(path + ".tmp", path)
    return path


# ---- Reading -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    config: Mapping[str, Any]
    runs: Sequence[Mapping[str, str]]
    history: Sequence[Mapping[str, Any]]
    predictions: Predictions
    metrics: Mapping[str, Any]
    layer_weights: Sequence[Mapping[str, str]]  # empty where no stream is mixed of layers

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.metrics["protocol"]

    @property
    def settings(self) -> Sequence[Mapping[str, Any]]:
        return self.metrics["settings"]

    @property
    def columns(self) -> list[_Metric]:
        """The metrics that any setting has."""
        return [metric for metric in _METRICS if any(metric.key in setting["metrics"] for setting in self.settings)]

    @cached_property
    def selection_scores(self) -> dict[str, float]:
        """By setting, the mean over its runs of the score by which the run's epoch was chosen.

        The score is over the tasks that a setting trains, so that only those which train all tasks compare:
        the others are absent, unless no setting trains all.
        """
        chosen = {(int(run["run"]), int(run["best_epoch"])) for run in self.runs}
        scores: dict[str, list[float]] = {}
        for row in self.history:
            if (row["run"], row["epoch"]) in chosen:
                scores.setdefault(row["setting"], []).append(row["score"])
        whole = {
            setting["name"]
            for setting in self.settings
            if all(metric.key in setting["metrics"] for metric in self.columns)
        }
        return {name: float(np.mean(values)) for name, values in scores.items() if name in whole or not whole}

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """The setting with the highest of `selection_scores`, the first of equals."""
        scores = self.selection_scores
        return max(self.settings, key=lambda setting: scores.get(setting["name"], -np.inf))


def _read_study(workdir: str) -> _Study:
    missing = [name for name in FILES if not os.path.isfile(os.path.join(workdir, name))]
    if missing:
        raise InputError(
            f"{workdir} is not a finished workdir: {', '.join(missing)} not found there, "
            f"expected the files {', '.join(FILES)}"
        )
    with open(os.path.join(workdir, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(workdir, "runs.csv"), encoding="utf-8", newline="") as file:
        runs = list(csv.DictReader(file))
    with open(os.path.join(workdir, "history.jsonl"), encoding="utf-8") as file:
        history = [json.loads(line) for line in file if line.strip()]
    with open(os.path.join(workdir, "metrics.json"), encoding="utf-8") as file:
        numbers = json.load(file)
    predictions = Predictions.read(os.path.join(workdir, "predictions.csv"))
    layer_weights: list[dict[str, str]] = []
    if os.path.isfile(path := os.path.join(workdir, LAYER_WEIGHTS)):
        with open(path, encoding="utf-8", newline="") as file:
            layer_weights = list(csv.DictReader(file))
    return _Study(config, runs, history, predictions, numbers, layer_weights)


# ---- HTML --------------------------------------------------------------------------------------------------


class _Html(str):
    """Text that is markup already; every other string is escaped on its way into the page."""

    __slots__ = ()


_VOID_TAGS = {"br", "col", "hr", "link", "meta"}
_BLOCK_TAGS = {
    "div",
    "section",
    "p",
    "tr",
    "thead",
    "tbody",
    "table",
    "details",
    "summary",
    "figure",
    "ul",
    "li",
    "dl",
}


def _join(children: Sequence[object]) -> _Html:
    parts = [child if isinstance(child, _Html) else html.escape(str(child)) for child in children if child is not None]
    return _Html("".join(parts))


def _tag(name: str, /, *children: object, **attributes: object) -> _Html:
    """An element; `class_` is the attribute class, True gives a bare attribute, False and None give none."""
    shown = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        shown += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if name in _VOID_TAGS:
        return _Html(f"<{name}{shown}>")
    end = "\n" if name in _BLOCK_TAGS else ""
    return _Html(f"<{name}{shown}>{_join(children)}</{name}>{end}")


def _table(head: Sequence[object], rows: Sequence[Sequence[object]], *, class_: str | None = None) -> _Html:
    """A plain table; the first cell of each row is its header. A cell that is a `<td>` already stays."""

    def cell(value: object, first: bool) -> _Html:
        if isinstance(value, _Html) and value.startswith(("<td", "<th")):
            return value
        return _tag("th", value, scope="row") if first else _tag("td", value)

    header = _tag("thead", _tag("tr", *[_tag("th", name, scope="col") for name in head]))
    body = [_tag("tr", *[cell(value, column == 0) for column, value in enumerate(row)]) for row in rows]
    return _tag("div", _tag("table", header, _tag("tbody", *body), class_=class_), class_="scroll")


def _definitions(pairs: Sequence[tuple[str, object]]) -> _Html:
    return _tag("dl", *[_tag("div", _tag("dt", name), _tag("dd", value)) for name, value in pairs], class_="facts")


def _details(title: str, content: object) -> _Html:
    return _tag("details", _tag("summary", title), content)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# ---- Page --------------------------------------------------------------------------------------------------


def _page(study: _Study) -> str:
    several = len(study.settings) > 1
    limits = _vad_limits(study.predictions)
    details = [
        _setting_section(study, setting, number, limits) for number, setting in enumerate(study.settings, start=1)
    ]
    protocol = study.protocol["description"].split("; ")[0]
    title = f"{study.metrics['corpus']['name']}, {protocol}"
    body = _tag(
        "main",
        _headline(study, title),
        _results(study),
        _tag("section", _tag("h2", "Setting by setting" if several else "In detail"), *details),
        _audit(study.metrics["audit"]),
        _provenance(study.config),
    )
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="color-scheme", content="light dark"),
        _tag("title", f"sejax: {title}"),
        _Html(f"<style>{_CSS}</style>"),
    )
    return f'<!doctype html>\n<html lang="en">\n{head}\n{_tag("body", body)}\n</html>\n'


# ---- Headline ----------------------------------------------------------------------------------------------

_TRANSDUCTIVE = (
    "Every number on this page uses features normalised per speaker, with statistics of that speaker's own "
    "unlabelled audio, test speakers included. A system that meets a new speaker with a single utterance "
    "cannot do this; do not set these numbers beside ones that do without it."
)
_OPTIMISTIC = (
    "The epoch of every run was chosen on its test speakers (select_on_test), to reproduce work that does "
    "so. For new speakers, every number on this page is optimistic."
)


def _badges(protocol: Mapping[str, Any]) -> _Html:
    """The marks that go with every place where numbers stand."""
    transductive = _tag("span", "transductive", class_="badge", title=_TRANSDUCTIVE)
    optimistic = _tag("span", "optimistic", class_="badge strong", title=_OPTIMISTIC)
    return _join([transductive if protocol["transductive"] else None, optimistic if protocol["optimistic"] else None])


def _warnings(protocol: Mapping[str, Any]) -> _Html:
    """The sentence that goes with each badge."""
    transductive = _tag("p", _tag("span", "transductive", class_="badge"), " ", _TRANSDUCTIVE, class_="note")
    optimistic = _tag("p", _tag("span", "optimistic", class_="badge strong"), " ", _OPTIMISTIC, class_="note strong")
    return _join([transductive if protocol["transductive"] else None, optimistic if protocol["optimistic"] else None])


def _headline(study: _Study, title: str) -> _Html:
    corpus, protocol = study.metrics["corpus"], study.protocol
    seconds = corpus["seconds"]
    length = f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"
    per_speaker = protocol["normalisation"] == "speaker"
    facts = [
        ("corpus", f"{corpus['name']}, labels {corpus['labels']}"),
        ("audio", f"{_count(corpus['utterances'], 'utterance')}, {length}"),
        ("speakers", f"{corpus['speakers']:,}"),
        ("classes", ", ".join(corpus["classes"]) or "none"),
        ("protocol", f"{protocol['name']}: {protocol['description']}"),
        ("folds × seeds", f"{protocol['folds']} × {protocol['seeds']}"),
        ("normalisation", "per speaker" if per_speaker else "training speakers of the fold"),
    ]
    tiles = [_tile(study, metric) for metric in study.columns if metric.key in _TILES]
    return _tag(
        "header",
        _tag("p", "sejax report", class_="kicker"),
        _tag("h1", title, " ", _badges(protocol)),
        _warnings(protocol),
        _tag("div", *tiles, class_="tiles"),
        _tag("p", _which_setting(study), " ", _lookup_sentence(study.best), class_="lead"),
        _definitions(facts),
    )


def _which_setting(study: _Study) -> _Html:
    name = study.best["name"]
    if len(study.settings) == 1:
        return _join(["Setting ", _tag("b", name), "."])
    where = "on the test speakers" if study.protocol["select_on_test"] else "on validation speakers"
    score = study.selection_scores[name]
    how = f" ({score:.3f}, mean over runs at the chosen epoch); these are its test results."
    return _join([f"Of {len(study.settings):,} settings, ", _tag("b", name), f" scores best {where}", how])


_TILES = {
    "wa": "Weighted accuracy",
    "ua": "Unweighted accuracy",
    "macro_f1": "Macro F1",
    "ccc_mean": "Mean CCC",
}


def _tile(study: _Study, metric: _Metric) -> _Html | None:
    """A large number of the best setting, with its interval and its baseline."""
    value = study.best["metrics"].get(metric.key)
    if not value:
        return None
    majority = study.metrics["baselines"].get("majority", {}).get(metric.key)
    lookup = _lookup(study.best).get(metric.key)
    baselines = [
        f"{name} {metric.format(baseline['pooled'])}"
        for name, baseline in (("majority class", majority), ("class-mean look-up", lookup))
        if baseline
    ]
    return _tag(
        "div",
        _tag("div", _TILES[metric.key], class_="tile-name"),
        _tag("div", metric.format(value["pooled"]), _tag("small", metric.unit), class_="big"),
        _tag("div", "95 % ", _interval(metric, value), class_="ci") if "ci95" in value else None,
        *[_tag("div", baseline, class_="fold") for baseline in baselines],
        class_="tile",
    )


def _lookup(setting: Mapping[str, Any]) -> Mapping[str, Any]:
    return setting["baselines"].get("class_mean_lookup", {})


def _gain(setting: Mapping[str, Any]) -> float | None:
    """By how much the mean CCC of a setting is above that of its class-mean look-up."""
    model, lookup = setting["metrics"].get("ccc_mean"), _lookup(setting).get("ccc_mean")
    return model["pooled"] - lookup["pooled"] if model and lookup else None


def _lookup_sentence(setting: Mapping[str, Any]) -> str | None:
    gain = _gain(setting)
    if gain is None:
        return None
    if gain > 0:
        return f"Its mean CCC is {gain:.3f} above what the mean VAD of its predicted classes reaches (look-up)."
    return (
        f"Its mean CCC is {-gain:.3f} below what the mean VAD of its predicted classes reaches (look-up): "
        "beyond the class, it has learned nothing about the dimensions."
    )


# ---- Results table -----------------------------------------------------------------------------------------


def _interval(metric: _Metric, value: Mapping[str, Any]) -> str:
    low, high = value["ci95"]
    return f"[{metric.format(low)}, {metric.format(high)}]"


def _number(metric: _Metric, value: float) -> _Html:
    """A rounded number that carries the exact one."""
    return _tag("data", metric.format(value), value=repr(float(value)))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the range of the values, never empty."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin


def _track(
    span: tuple[float, float],
    value: float,
    interval: Sequence[float] | None = None,
    mark: float | None = None,
) -> _Html:
    """A value on a line with its interval and the mark of a baseline; one scale for all rows of a table."""

    def place(number: float) -> float:
        return round(100 * (number - span[0]) / (span[1] - span[0]), 1)

    parts = []
    if interval:
        low, high = place(interval[0]), place(interval[1])
        parts.append(_tag("i", class_="bar", style=f"left:{low}%;width:{round(high - low, 1)}%"))
    if mark is not None:
        parts.append(_tag("i", class_="mark", style=f"left:{place(mark)}%"))
    parts.append(_tag("i", class_="dot", style=f"left:{place(value)}%"))
    return _tag("span", *parts, class_="track", aria_hidden="true")


def _results(study: _Study) -> _Html:
    groups = [(name, [metric for metric in study.columns if metric in group]) for name, group in _GROUPS]
    spans = {metric: _group_span(study.settings, metrics) for _, metrics in groups for metric in metrics}
    rows = [_result_row(study, setting, number, spans) for number, setting in enumerate(study.settings, start=1)]
    ensembles = [
        _plain_row(study, f"seeds averaged, {setting['name']}", setting.get("seeds_averaged", {}))
        for setting in study.settings
    ]
    majority = study.metrics["baselines"].get("majority", {})
    baselines = [_plain_row(study, "majority class", majority)]
    baselines += [
        _plain_row(study, f"class-mean look-up, {setting['name']}", _lookup(setting)) for setting in study.settings
    ]
    width = 1 + _with_score(study) + len(study.columns) + _with_gain(study)
    divider = _tag("th", "Baselines", scope="rowgroup", colspan=width)
    table = _tag(
        "table",
        _results_head(study, [(name, metrics) for name, metrics in groups if metrics]),
        _tag("tbody", *rows, *ensembles),
        _tag("tbody", _tag("tr", divider), *baselines, class_="baselines") if any(baselines) else None,
        class_="results",
    )
    return _tag(
        "section",
        _tag("h2", "Results ", _badges(study.protocol)),
        _tag("div", table, class_="scroll"),
        _tag("p", _reading_aid(study), class_="aid"),
        id="results",
    )


_GROUPS = (("class, %", _CLASS_METRICS), ("concordance correlation (CCC)", _CCC_METRICS))


def _group_span(settings: Sequence[Mapping[str, Any]], metrics: Sequence[_Metric]) -> tuple[float, float]:
    """The scale on which a group of columns draws its tracks: that of its models, intervals and look-ups."""
    values = [
        number
        for setting in settings
        for metric in metrics
        for entry in (setting["metrics"].get(metric.key), _lookup(setting).get(metric.key))
        if entry
        for number in (entry["pooled"], *entry.get("ci95", ()))
    ]
    return _span(values)


def _with_score(study: _Study) -> bool:
    """Whether the table has a column of the scores by which settings can be chosen."""
    return len(study.settings) > 1


def _with_gain(study: _Study) -> bool:
    return any(_gain(setting) is not None for setting in study.settings)


def _results_head(study: _Study, groups: Sequence[tuple[str, Sequence[_Metric]]]) -> _Html:
    score = "test score" if study.protocol["select_on_test"] else "val. score"
    top = [
        _tag("th", "setting", scope="col", rowspan=2),
        _tag("th", score, scope="col", rowspan=2) if _with_score(study) else None,
        *[_tag("th", name, colspan=len(metrics), scope="colgroup", class_="group") for name, metrics in groups],
        _tag("th", "mean CCC over look-up", scope="col", rowspan=2) if _with_gain(study) else None,
    ]
    names = [_tag("th", metric.name, scope="col") for _, metrics in groups for metric in metrics]
    return _tag("thead", _tag("tr", *top), _tag("tr", *names))


def _result_row(
    study: _Study, setting: Mapping[str, Any], number: int, spans: Mapping[_Metric, tuple[float, float]]
) -> _Html:
    name, several = setting["name"], len(study.settings) > 1
    best = _tag("span", "best score", class_="badge good") if several and setting is study.best else None
    cells: list[_Html] = [
        _tag("th", _tag("a", name, href=f"#setting-{number}"), best, _badges(study.protocol), scope="row")
    ]
    if _with_score(study):
        score = study.selection_scores.get(name)
        cells.append(_tag("td", "–" if score is None else f"{score:.3f}"))
    for metric in study.columns:
        mark = _lookup(setting).get(metric.key, {}).get("pooled")
        cells.append(_result_cell(metric, setting["metrics"].get(metric.key), spans[metric], mark))
    if _with_gain(study):
        gain = _gain(setting)
        text = "–" if gain is None else f"{gain:+.3f}"
        cells.append(_tag("td", text, class_="gain" if gain is not None and gain > 0 else "loss"))
    return _tag("tr", *cells)


def _result_cell(
    metric: _Metric, value: Mapping[str, Any] | None, span: tuple[float, float], mark: float | None
) -> _Html:
    if value is None:
        return _tag("td", "–", class_="none")
    interval = value.get("ci95")
    return _tag(
        "td",
        _tag("b", _number(metric, value["pooled"])),
        _tag("span", _interval(metric, value), class_="ci") if interval else None,
        _track(span, value["pooled"], interval, mark),
        _tag("span", _over_folds(metric, value), class_="fold") if "fold_mean" in value else None,
    )


def _over_folds(metric: _Metric, value: Mapping[str, Any]) -> str:
    deviation = f" ± {metric.format(value['fold_sd'])}" if "fold_sd" in value else ""
    return metric.format(value["fold_mean"]) + deviation


def _plain_row(study: _Study, name: str, values: Mapping[str, Any]) -> _Html | None:
    if not any(metric.key in values for metric in study.columns):
        return None
    cells = [_tag("th", name, scope="row", colspan=2 if _with_score(study) else None)]
    for metric in study.columns:
        value = values.get(metric.key)
        interval = _tag("span", _interval(metric, value), class_="ci") if value and "ci95" in value else None
        cells.append(_tag("td", _number(metric, value["pooled"]) if value else None, interval))
    return _tag("tr", *cells, _tag("td") if _with_gain(study) else None)


def _reading_aid(study: _Study) -> str:
    seeds = study.protocol["seeds"]
    lines = []
    if any(metric in _CLASS_METRICS for metric in study.columns):
        lines.append("WA: accuracy over utterances. UA: mean recall over classes.")
    if any(metric in _CCC_METRICS for metric in study.columns):
        lines.append(
            "CCC: concordance correlation coefficient. Look-up (the upright mark): the mean VAD, in the "
            "training set, of the class that the model predicted; a model must beat it to have learned the "
            "dimensions."
        )
    lines.append(
        "In a cell: the metric over all test utterances of all folds"
        + (f" (mean of {seeds} seeds)" if seeds > 1 else "")
        + ", its 95 % bootstrap interval over speakers, both drawn on one scale for all settings, and the "
        "mean ± standard deviation over folds."
    )
    if any(metric.key not in setting["metrics"] for setting in study.settings for metric in study.columns):
        lines.append(
            "A dash: the setting does not train this task (or failed to predict it), and its validation "
            "score does not compare with those of settings that train all tasks."
        )
    return " ".join(lines)


# ---- One setting -------------------------------------------------------------------------------------------


def _setting_section(
    study: _Study, setting: Mapping[str, Any], number: int, limits: tuple[float, float] | None
) -> _Html:
    name, values, key = setting["name"], setting["metrics"], f"setting-{number}"
    rows = _select(study.predictions, study.predictions.setting == name)
    runs = [run for run in study.runs if run["setting"] == name]
    history = [row for row in study.history if row["setting"] == name]
    short = ", ".join(
        f"{_SHORT[metric.key]} {metric.format(values[metric.key]['pooled'])}"
        for metric in study.columns
        if metric.key in _SHORT and metric.key in values
    )
    facts = [(name, _plain(value)) for name, value in setting["values"].items()]
    facts += [
        (f"RMSE {dim}", f"{values[f'rmse_{dim}']['pooled']:.3f}") for dim in DIMENSIONS if f"rmse_{dim}" in values
    ]
    scored = [metric for metric in study.columns if metric.key in values and metric.key not in ("wa", "macro_f1")]
    return _tag(
        "details",
        _tag(
            "summary",
            _tag("span", name, class_="name"),
            _tag("span", short, class_="short"),
            _badges(study.protocol),
        ),
        # A link to what lies inside opens it.
        _tag("div", _definitions(facts), id=key),
        _tag("div", _confusion(rows), _fold_table(rows, runs, scored), class_="pair"),
        _figures("Training", _curve_figures(history, runs, list(values), key), _CURVES_AID),
        _figures("Layers of the pretrained models", _layer_figures(study.layer_weights, name, key), _LAYERS_AID),
        _figures("Predicted against true", _scatter_figures(rows, values, limits, key), _SCATTER_AID),
        open=len(study.settings) <= 2 or setting is study.best,
        class_="setting",
    )


_SHORT = {"wa": "WA", "ua": "UA", "ccc_mean": "mean CCC"}
_CURVES_AID = (
    "Mean over the runs (folds and seeds) still in training, with a band of one standard deviation; each dot "
    "is the epoch chosen for one run. Dotted: the least and the greatest weight in the steps of an epoch, mean over "
    "the runs."
)
_LAYERS_AID = (
    "By how much each hidden state counts at the chosen epochs: softmax weights, mean over the runs with one "
    "standard deviation. 0 is the input of the first Transformer layer; the line is where all would count alike."
)
_SCATTER_AID = (
    "One point per test utterance and seed, in the corpus's own scale; the line is perfect agreement. "
    "CCC over all folds, as in the table."
)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figures(title: str, figures: Sequence[_Html | None], aid: str) -> _Html | None:
    if not any(figures):
        return None
    return _tag("div", _tag("h3", title), _tag("div", *figures, class_="figures"), _tag("p", aid, class_="aid"))


def _select(predictions: Predictions, rows: Bool[np.ndarray, " row"]) -> Predictions:
    columns = [field.name for field in fields(predictions) if field.name != "classes"]
    return replace(predictions, **{name: getattr(predictions, name)[rows] for name in columns})


def _confusion(rows: Predictions) -> _Html | None:
    classes = rows.classes
    counts = _class_counts(rows)
    if not counts.any():
        return None
    totals = counts.sum(axis=1)
    body = []
    for index, name in enumerate(classes):
        cells = []
        for count in counts[index]:
            share = count / totals[index] if totals[index] else 0.0
            cells.append(
                _tag(
                    "td",
                    f"{100 * share:.0f}" if totals[index] else "–",
                    _tag("small", f"{int(count):,}"),
                    class_="strong" if share >= 0.72 else None,
                    style=f"--share:{share:.3f}",
                )
            )
        body.append([name, *cells, f"{int(totals[index]):,}"])
    seeds = len(set(rows.seed.tolist()))
    return _tag(
        "div",
        _tag("h3", "Confusion matrix"),
        _table(["true \\ predicted", *classes, "total"], body, class_="confusion"),
        _tag(
            "p",
            "Per cent of the true class, and the number of utterances"
            + (f", summed over {seeds} seeds." if seeds > 1 else "."),
            class_="aid",
        ),
    )


def _class_counts(rows: Predictions) -> Int[np.ndarray, "class class"]:
    """Counts `[true class, predicted class]` of the rows that have both."""
    usable = (rows.label >= 0) & np.isfinite(rows.prob).all(axis=1) & (len(rows.classes) > 0)
    if not usable.any():
        return np.zeros((len(rows.classes),) * 2, int)
    return confusion_matrix(rows.label[usable], rows.prob[usable].argmax(axis=1), len(rows.classes))


def _usable_vad(rows: Predictions, dimension: int) -> Bool[np.ndarray, " row"]:
    return np.isfinite(rows.vad[:, dimension]) & np.isfinite(rows.pred_vad[:, dimension])


def _scores(rows: Predictions) -> dict[str, float]:
    """UA and CCC of some rows, each if it has a value there."""
    counts = _class_counts(rows)
    scores: dict[str, float] = {}
    if counts.any():
        scores["ua"] = float(unweighted_accuracy(counts))
    for dimension, name in enumerate(DIMENSIONS):
        usable = _usable_vad(rows, dimension)
        scores[f"ccc_{name}"] = ccc(rows.pred_vad[usable, dimension], rows.vad[usable, dimension])
    return {key: value for key, value in scores.items() if np.isfinite(value)}


def _mean_scores(rows: Predictions, metrics: Sequence[_Metric]) -> dict[str, float]:
    """Those of the metrics that every seed has, averaged over seeds; the mean CCC needs all its parts."""
    per_seed = [_scores(_select(rows, rows.seed == seed)) for seed in np.unique(rows.seed)]
    scores = {
        metric.key: float(np.mean([scores[metric.key] for scores in per_seed]))
        for metric in metrics
        if all(metric.key in scores for scores in per_seed)
    }
    parts = [metric.key for metric in metrics if metric in _CCC_METRICS and metric.name in DIMENSIONS]
    if parts and all(key in scores for key in parts):
        scores["ccc_mean"] = float(np.mean([scores[key] for key in parts]))
    return scores


def _fold_table(rows: Predictions, runs: Sequence[Mapping[str, str]], metrics: Sequence[_Metric]) -> _Html | None:
    """The metrics fold by fold, and by test speaker where a fold tests on several."""
    if not metrics:
        return None
    folds = list(dict.fromkeys(run["fold"] for run in runs))
    epochs = {fold: ", ".join(run["best_epoch"] for run in runs if run["fold"] == fold) for fold in folds}
    by_fold = {fold: rows.fold == fold for fold in folds}
    if set(zip(rows.fold.tolist(), rows.speaker.tolist(), strict=True)) == {(fold, fold) for fold in folds}:
        table = _score_table("test speaker", by_fold, rows, metrics, epochs)
        return _tag("div", _tag("h3", "Test speakers one by one"), table)
    by_speaker = {name: rows.speaker == name for name in dict.fromkeys(rows.speaker.tolist())}
    speakers = _score_table("test speaker", by_speaker, rows, metrics)
    return _tag(
        "div",
        _tag("h3", "Fold by fold"),
        _score_table("fold", by_fold, rows, metrics, epochs),
        _details(f"Test speakers one by one ({len(by_speaker):,})", speakers),
    )


def _score_table(
    what: str,
    parts: Mapping[str, Bool[np.ndarray, " row"]],
    rows: Predictions,
    metrics: Sequence[_Metric],
    epochs: Mapping[str, str] | None = None,
) -> _Html:
    """A line of scores for each part of the rows."""
    scores = {name: _mean_scores(_select(rows, part), metrics) for name, part in parts.items()}
    metrics = [metric for metric in metrics if any(metric.key in values for values in scores.values())]
    tracks = {
        metric.key: _span([values[metric.key] for values in scores.values() if metric.key in values])
        for metric in metrics
        if metric.key in ("ua", "ccc_mean")
    }
    body = []
    for name, values in scores.items():
        line: list[object] = [name, f"{len(set(rows.id[parts[name]].tolist())):,}"]
        if epochs:
            line.append(epochs[name])
        for metric in metrics:
            value = values.get(metric.key)
            if value is None:
                line.append(_tag("td", "–", class_="none"))
                continue
            track = _track(tracks[metric.key], value) if metric.key in tracks else None
            line.append(_tag("td", track, _number(metric, value)))
        body.append(line)
    names = [f"CCC {metric.name}" if metric in _CCC_METRICS else metric.name for metric in metrics]
    return _table([what, "utterances", *(["epoch"] if epochs else []), *names], body, class_="scores")


# ---- Figures -----------------------------------------------------------------------------------------------


def _curve_figures(
    history: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, str]], scored: Sequence[str], key: str
) -> list[_Html | None]:
    """Losses, validation scores and weights over epochs; `scored` are the keys of the setting's metrics."""
    numbers = [int(run["run"]) for run in runs]
    chosen = np.array([int(run["best_epoch"]) for run in runs])
    row_of = {number: row for row, number in enumerate(numbers)}
    n_epochs = max(row["epoch"] for row in history)

    def values(name: str) -> Float[np.ndarray, "run epoch"]:
        table = np.full((len(numbers), n_epochs), np.nan)
        for row in history:
            if row.get(name) is not None:
                table[row_of[row["run"]], row["epoch"] - 1] = row[name]
        return table

    names = list(dict.fromkeys(name for row in history for name in row))
    # A task whose weight is always 0 is not trained: its curves would be those of an untrained head.
    tasks = [
        name.removeprefix("loss_")
        for name in names
        if name.startswith("loss_") and any(row.get(f"weight_{name.removeprefix('loss_')}", 0) > 0 for row in history)
    ]
    figures = []
    for task in tasks:
        curves = [
            Curve("train", "s1", values(f"loss_{task}")),
            Curve("validation", "s2", values(f"val_loss_{task}"), chosen),
        ]
        figures.append(_curve_figure(f"{_task_name(task)} loss", curves, f"{key}-loss-{task}"))
    scores = (("ua", "UA", "s3"), ("ccc_mean", "mean CCC", "s4"))
    curves = [Curve(label, colour, values(f"val_{name}"), chosen) for name, label, colour in scores if name in scored]
    figures.append(_curve_figure("Validation scores", curves, f"{key}-scores"))
    if len(tasks) > 1:  # one task alone has a constant weight
        curves, reach = [], [0.0, float(len(tasks))]
        for index, task in enumerate(tasks):
            extremes = values(f"weight_min_{task}"), values(f"weight_max_{task}")
            curves.append(Curve(_task_name(task), f"s{3 + index}", values(f"weight_{task}"), extremes=extremes))
            reach += [float(np.nanmin(extremes[0])), float(np.nanmax(extremes[1]))]
        limits = 1.04 * min(reach), 1.04 * max(reach)
        figures.append(_curve_figure("Task weights", curves, f"{key}-weights", limits=limits))
    return figures


def _task_name(task: str) -> str:
    return "VAD" if task == "vad" else task.capitalize()


def _curve_figure(
    title: str, curves: Sequence[Curve], key: str, limits: tuple[float, float] | None = None
) -> _Html | None:
    curves = [curve for curve in curves if np.isfinite(curve.values).any()]
    if not curves:
        return None
    legend = [_tag("span", _tag("i", style=f"background:var(--{c.colour})"), c.name) for c in curves]
    caption = _tag("figcaption", _tag("b", title), _tag("span", *legend, class_="legend"))
    svg = curve_panel(curves, key=key, label=f"{title} over epochs", limits=limits)
    return _tag("figure", caption, _Html(svg))


def _layer_figures(layer_weights: Sequence[Mapping[str, str]], setting: str, key: str) -> list[_Html]:
    """The learned mixture of each pretrained stream."""
    own = [row for row in layer_weights if row["setting"] == setting]
    figures = []
    for stream in dict.fromkeys(row["stream"] for row in own):
        by_run: dict[str, list[float]] = {}
        for row in own:
            if row["stream"] == stream:
                by_run.setdefault(row["run"], []).append(float(row["weight"]))
        label = f"Weights of the layers of {stream}"
        svg = weight_panel(np.array(list(by_run.values())), key=f"{key}-layers-{stream}", label=label)
        figures.append(_tag("figure", _tag("figcaption", _tag("b", stream)), _Html(svg)))
    return figures


def _vad_limits(predictions: Predictions) -> tuple[float, float] | None:
    """One scale for all scatter plots of the page; None without VAD."""
    usable = np.isfinite(predictions.vad) & np.isfinite(predictions.pred_vad)
    if not usable.any():
        return None
    return _span([*predictions.vad[usable].tolist(), *predictions.pred_vad[usable].tolist()])


def _scatter_figures(
    rows: Predictions, values: Mapping[str, Any], limits: tuple[float, float] | None, key: str
) -> list[_Html]:
    figures = []
    for dimension, name in enumerate(DIMENSIONS):
        usable = _usable_vad(rows, dimension)
        if limits is None or not usable.any():
            continue
        title = name.capitalize()
        if f"ccc_{name}" in values:
            title += f", CCC {_CCC_METRICS[dimension].format(values[f'ccc_{name}']['pooled'])}"
        svg = scatter_panel(
            rows.vad[usable, dimension],
            rows.pred_vad[usable, dimension],
            key=f"{key}-{name}",
            label=f"Predicted against true {title}",
            limits=limits,
        )
        figures.append(_tag("figure", _tag("figcaption", _tag("b", title)), _Html(svg)))
    return figures


# ---- Audit and provenance ----------------------------------------------------------------------------------

_MOST_ROWS = 500  # of a list in the audit; the rest is in metrics.json


def _audit(audit: Mapping[str, Any]) -> _Html:
    return _tag(
        "section",
        _tag("h2", "Audit"),
        _tag("ul", *[_tag("li", line, class_=kind) for kind, line in _findings(audit)], class_="findings"),
        _audit_texts(audit["texts_shared"]),
        _audit_duplicates(audit["duplicates"]),
        _audit_classes(audit["class_counts"]),
        _audit_dropped(audit["dropped"]),
        _audit_notes(audit),
        id="audit",
    )


def _findings(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One sentence for each question, with "fine" or "look" as its kind."""
    lines = []
    shared = audit["speakers_shared"]
    if shared:
        lines.append(("look", f"Speakers both trained and tested on: {', '.join(map(str, shared))}."))
    else:
        lines.append(("fine", "No speaker is both trained and tested on in any fold."))
    for entry in audit["speakers_shared_with_validation"]:
        names = ", ".join(entry["speakers"])
        lines.append(("look", f"Fold {entry['fold']}: test speakers who are in validation too: {names}."))
    texts = audit["texts_shared"]
    if not any(entry["with_text"] for entry in texts):
        lines.append(("look", "The corpus names no texts: whether training and test share texts is unknown."))
    elif any(entry["shared"] for entry in texts):
        highest = max(entry["share"] for entry in texts)
        lines.append(
            (
                "look",
                f"Test utterances say texts that were trained on: up to {100 * highest:.0f} % of a fold's test set.",
            )
        )
    else:
        lines.append(("fine", "No text of a test set was trained on."))
    across, elsewhere = audit["duplicates"]["across_test"], audit["duplicates"]["elsewhere"]
    if across:
        lines.append(
            (
                "look",
                f"The same audio inside and outside a test set: {_count(len(across), 'group')}, allowed.",
            )
        )
    else:
        lines.append(("fine", "No audio of a test set occurs outside it."))
    if elsewhere:
        lines.append(("look", f"The same audio twice on one side of every fold: {_count(len(elsewhere), 'group')}."))
    dropped = len(audit["dropped"])
    lines.append(("look", f"{_count(dropped, 'utterance')} dropped.") if dropped else ("fine", "No utterance dropped."))
    return lines


def _capped(rows: Sequence[Sequence[object]], head: Sequence[object]) -> _Html:
    more = len(rows) - _MOST_ROWS
    rest = _tag("p", f"and {more:,} more in metrics.json", class_="aid") if more > 0 else None
    return _join([_table(head, rows[:_MOST_ROWS]), rest])


def _audit_texts(texts: Sequence[Mapping[str, Any]]) -> _Html | None:
    if not any(entry["with_text"] for entry in texts):
        return None
    rows = [
        (entry["fold"], f"{entry['with_text']:,}", f"{entry['shared']:,}", f"{100 * entry['share']:.0f} %")
        for entry in texts
    ]
    head = ["fold", "test utterances with a text", "text also trained on", "share of the test set"]
    return _details("Texts shared between training and test", _table(head, rows))


def _audit_duplicates(duplicates: Mapping[str, Sequence[Mapping[str, Any]]]) -> _Html | None:
    rows = [(", ".join(group["ids"]), ", ".join(group["folds"])) for group in duplicates["across_test"]]
    rows += [(", ".join(group["ids"]), "none") for group in duplicates["elsewhere"]]
    if not rows:
        return None
    return _details("Duplicate audio", _capped(rows, ["same audio", "folds with it on both sides"]))


def _audit_classes(folds: Sequence[Mapping[str, Any]]) -> _Html:
    classes = list(folds[0]["test"]) if folds else []
    unlabelled = any(count for fold in folds for count in fold["unlabelled"].values())
    rows = []
    for fold in folds:
        columns = [[fold[split][name] for split in ("train", "val", "test")] for name in classes]
        if unlabelled:
            columns.append([fold["unlabelled"][split] for split in ("train", "val", "test")])
        total = [sum(split) for split in zip(*columns, strict=True)]
        rows.append([fold["fold"], *[" / ".join(f"{n:,}" for n in column) for column in (*columns, total)]])
    head = ["fold", *classes, *(["no label"] if unlabelled else []), "all"]
    return _details("Utterances per class: train / validation / test", _table(head, rows))


def _audit_dropped(dropped: Sequence[Mapping[str, str]]) -> _Html | None:
    if not dropped:
        return None
    rows = [(entry["id"], entry["reason"], entry["path"]) for entry in dropped]
    return _details(f"Dropped utterances ({len(dropped):,})", _capped(rows, ["utterance", "reason", "path"]))


def _audit_notes(audit: Mapping[str, Any]) -> _Html | None:
    lines = [f"{remark}: {_count(count, 'utterance')}" for remark, count in audit["notes"].items()]
    lines += audit["corpus_notes"]
    if not lines:
        return None
    return _details(f"Notes ({len(lines)})", _tag("ul", *[_tag("li", line) for line in lines]))


def _provenance(config: Mapping[str, Any]) -> _Html:
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    facts = [
        ("device", config["device"]),
        ("git revision", config["git"] or "none"),
        ("started", config["started"]),
        ("versions", versions),
    ]
    resolved = json.dumps(config["config"], indent=2, ensure_ascii=False, sort_keys=True)
    return _tag(
        "section",
        _tag("h2", "Provenance"),
        _tag(
            "details",
            _tag("summary", "Command, configuration, versions, device"),
            _tag("pre", config["command"], class_="command"),
            _definitions(facts),
            _tag("pre", resolved),
        ),
        id="provenance",
    )


# ---- Style -------------------------------------------------------------------------------------------------

_CSS = """
:root{color-scheme:light dark;--page:#fff;--panel:#f6f7f9;--ink:#1c2024;--muted:#5f6875;--line:#dfe3e8;
--accent:43 98 184;--heat:24 72 150;--on-heat:#fff;--warn:#7a4b00;--warn-page:#fff3d6;--alarm:#9a2516;
--alarm-page:#fde8e6;
--good:#1d6b4f;--good-page:#e0f3eb;
--s1:#7b8794;--s2:#c2571a;--s3:#2b62b8;--s4:#23866a;--s5:#8a4fb0;--s6:#a8862a}
@media screen and (prefers-color-scheme:dark){:root{--page:#14171b;--panel:#1c2026;--ink:#e6e9ee;
--muted:#9aa4b2;
--line:#30363f;--accent:122 167 240;--heat:122 167 240;--on-heat:#0d1116;--warn:#f5cf85;--warn-page:#3a2e12;
--alarm:#ffb4a8;
--alarm-page:#45201b;--good:#8fdcbc;--good-page:#16352a;
--s1:#98a3b1;--s2:#f0a06a;--s3:#7aa7f0;--s4:#63c7a6;--s5:#c79aea;--s6:#d9bd6a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",sans-serif;print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:1200px;margin:0 auto;padding:36px 28px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 14px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:20px;margin:44px 0 12px}
h3{font-size:14px;margin:22px 0 8px}
p{margin:8px 0}
a{color:inherit;text-decoration-color:rgb(var(--accent)/.6);text-underline-offset:3px}
small{font-size:.78em;font-weight:400}
.kicker{color:var(--muted);margin:0 0 4px;font-size:13px}
.lead{max-width:100ch;margin:14px 0}
.aid,.ci,.fold{color:var(--muted);font-size:12px}
.aid{max-width:100ch}
.badge{display:inline-block;vertical-align:2px;margin-left:8px;padding:1px 8px;border-radius:9px;
font-size:11.5px;
font-weight:600;letter-spacing:0;line-height:1.5;color:var(--warn);background:var(--warn-page);
white-space:nowrap}
.badge.strong{color:var(--alarm);background:var(--alarm-page)}
.badge.good{color:var(--good);background:var(--good-page)}
.note{border-left:4px solid var(--warn);padding:2px 0 2px 12px;max-width:100ch}
.note.strong{border-color:var(--alarm)}
.note .badge{margin-left:0;margin-right:4px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0 4px}
.tile{flex:1 1 200px;background:var(--panel);border-radius:10px;padding:14px 18px}
.tile-name{font-size:13px;color:var(--muted)}
.big{font-size:34px;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:12px 24px;margin:18px 0 0}
.facts dt{color:var(--muted);font-size:12px}
.facts dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:right;vertical-align:bottom}
td{text-align:right}
th,td{padding:6px 10px}
thead th{color:var(--muted);font-size:12.5px;border-bottom:1px solid var(--line)}
tbody th,thead tr:first-child th:first-child{text-align:left}
tbody tr+tr>*{border-top:1px solid var(--line)}
tbody th{font-weight:500;overflow-wrap:anywhere}
td.none{color:var(--muted)}
.results td,.results tbody th{vertical-align:top}
.results th.group{text-align:center}
.results thead th:last-child{max-width:90px}
.results td b{font-size:16px;font-weight:650}
.results .ci,.results .fold{display:block;white-space:nowrap}
.results td{min-width:104px}
.results tbody th{min-width:130px;max-width:280px;font-weight:600}
.results tbody th .badge{margin:4px 6px 0 0;display:table}
.results .baselines th,.baselines td{font-weight:400;color:var(--muted)}
.results .baselines th[scope=rowgroup]{font-weight:600;padding-top:14px}
.results .baselines th{max-width:340px}
.baselines{background:var(--panel);border-top:2px solid var(--line)}
.baselines .ci{font-size:11.5px}
.gain{color:var(--good);font-weight:600}
.loss{color:var(--alarm);font-weight:600}
.track{display:block;position:relative;height:8px;min-width:76px;margin:3px 4px}
.track::before{content:"";position:absolute;left:-4px;right:-4px;top:3.5px;height:1px;background:var(--line)}
.track i{position:absolute}
.track .bar{top:2px;height:4px;border-radius:2px;background:rgb(var(--accent)/.4)}
.track .dot{top:0;width:8px;height:8px;margin-left:-4px;border-radius:50%;background:rgb(var(--accent))}
.track .mark{top:-1px;width:2px;height:10px;margin-left:-1px;background:var(--s2)}
details>summary{cursor:pointer;padding:6px 0}
.scores tbody th{vertical-align:middle}
.scores th,.scores td{padding:4px 7px}
.scores thead th{max-width:86px}
.scores td{white-space:nowrap}
.scores .track{display:inline-block;width:44px;min-width:0;margin:0 10px 0 4px;vertical-align:-1px}
.setting{border-top:1px solid var(--line);padding:4px 0}
.setting[open]{padding-bottom:28px}
.setting>summary{font-size:16px;padding:8px 0}
.setting>summary .name{font-weight:650;overflow-wrap:anywhere}
.setting>summary .short{color:var(--muted);font-size:13.5px;margin-left:14px}
.setting .facts{grid-template-columns:repeat(auto-fill,minmax(120px,1fr));margin-top:6px}
.pair{display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start}
.pair>*{min-width:0;max-width:100%}
.pair .aid{width:0;min-width:100%}
.confusion td{--a:calc(var(--share)*.95);background:rgb(var(--heat)/var(--a));text-align:center;
min-width:50px;
border:1px solid var(--page);padding:4px 8px;line-height:1.25}
.confusion td small{display:block;opacity:.8}
.confusion td.strong{color:var(--on-heat)}
.confusion th{max-width:130px;overflow-wrap:anywhere}
.confusion tbody th,.confusion td{vertical-align:middle}
.confusion thead th{text-align:center}
.confusion tbody tr+tr>*{border-top:1px solid var(--page)}
.confusion td:last-child{background:none;color:var(--muted)}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:18px 22px}
figure{margin:0;max-width:420px}
figcaption{font-size:13px;display:flex;flex-wrap:wrap;justify-content:space-between;gap:2px 12px}
.legend{color:var(--muted);font-size:12px}
.legend span{margin-left:10px;white-space:nowrap}
.legend i{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:5px;vertical-align:3px}
svg{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
svg *{stroke-linejoin:round;stroke-linecap:butt}
.findings{list-style:none;padding:0;margin:0 0 12px}
.findings li{padding:2px 0 2px 24px;position:relative}
.findings li::before{position:absolute;left:2px;font-weight:700}
.findings .fine::before{content:"\\2713";color:var(--good)}
.findings .look::before{content:"!";left:6px;color:var(--warn)}
pre{background:var(--panel);border-radius:8px;padding:12px 16px;overflow-x:auto;font-size:12.5px;
line-height:1.45}
pre.command{white-space:pre-wrap;overflow-wrap:anywhere}
@media print{main{max-width:none;padding:0}body{font-size:12px}
details::details-content{content-visibility:visible;
display:block}figure,tr,.tile{break-inside:avoid}h2,h3,summary{break-after:avoid}.scroll{overflow:visible}}
"""
