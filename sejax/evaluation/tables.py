"""Metrics as text: one way to write a number with its interval, and the table for the terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.metrics import CLASS_METRICS
from sejax.evaluation.nested import CHOICE
from sejax.host.wording import count, first_names

_MOST_NAMES = 3  # in a remark; metrics.json has all


@dataclass(frozen=True)
class Column:
    """A metric as a column of a table: its key in metrics.json, its title, and how its numbers are written."""

    key: str
    title: str
    scale: int = 1  # factor between the metric and the number that is written
    digits: int = 3
    unit: str = ""

    def number(self, value: float, *, signed: bool = False) -> str:
        """Returns the rounded number, that of a difference with its sign."""
        # Adding 0.0 turns the -0.0 of a rounded small negative number into 0.0.
        return f"{round(self.scale * value, self.digits) + 0.0:{'+' if signed else ''}.{self.digits}f}"

    def interval(self, bounds: Sequence[float], *, signed: bool = False) -> str:
        """Returns `[low, high]`."""
        return f"[{', '.join(self.number(bound, signed=signed) for bound in bounds)}]"

    def estimate(self, metric: Mapping[str, Any]) -> str:
        """Returns `value [low, high]`, or the value alone where the metric has no interval."""
        value = self.number(metric["pooled"])
        return f"{value} {self.interval(metric['ci95'])}" if "ci95" in metric else value


CLASS_COLUMNS = tuple(Column(name, metric.title, 100, 1, "%") for name, metric in CLASS_METRICS.items())
DISTRIBUTION_COLUMNS = (
    Column("js", "JS divergence", unit="bit"),
    Column("kl", "KL divergence", unit="nat"),
    Column("any_rater", "any rater", 100, 1, "%"),
)
CCC_COLUMNS = tuple(Column(f"ccc_{name}", f"CCC {name}") for name in (*DIMENSIONS, "mean"))
COLUMNS = {column.key: column for column in (*CLASS_COLUMNS, *CCC_COLUMNS)}


def classical_title(name: str) -> str:
    """Returns how a classical baseline is called in tables."""
    return f"{name} (classical)"


def format_table(metrics: Mapping[str, Any]) -> str:
    """Returns the tree of metrics.json as a table for the terminal: each setting with its baselines below it."""
    titles = {"wa": "WA %", "ua": "UA %"} | {f"ccc_{d}": f"CCC {d[:3]}." for d in DIMENSIONS} | {"ccc_mean": "CCC mean"}
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for setting in metrics["settings"]:
        if setting.get("stopped"):
            continue  # a remark counts them
        rows.append((setting["name"], setting["metrics"]))
        if "seeds_averaged" in setting:
            rows.append(("  seeds averaged", setting["seeds_averaged"]))
        if "class_mean_lookup" in setting["baselines"]:
            rows.append(("  class-mean look-up", setting["baselines"]["class_mean_lookup"]))
    machines = metrics["baselines"].get("classical", [])
    rows += [(classical_title(machine["name"]), machine["metrics"]) for machine in machines]
    if metrics["baselines"]["majority"]:
        rows.append(("majority class", metrics["baselines"]["majority"]))
    shown = {key: title for key, title in titles.items() if any(key in row for _, row in rows)}
    first = max(len("setting"), *(len(name) for name, _ in rows))
    lines = ["  ".join(["setting".ljust(first), *(title.center(19) for title in shown.values())]).rstrip()]
    for name, row in rows:
        cells = [COLUMNS[key].estimate(row[key]) if key in row else "-" for key in shown]
        lines.append("  ".join([name.ljust(first), *(cell.center(19) for cell in cells)]).rstrip())
    lines += _distributions(metrics)
    lines += [line for setting in (*metrics["settings"], *machines) for line in _test_sets(setting)]
    lines += [f"{setting['name']}: {describe_choice(setting)}" for setting in metrics["settings"] if CHOICE in setting]
    lines += [*remarks(metrics), *_calibration([setting.get("calibration", {}) for setting in metrics["settings"]])]
    protocol = metrics["protocol"]
    lines.append(
        f"{protocol['description']}; {count(protocol['folds'], 'fold')}, {count(protocol['seeds'], 'seed')}; "
        "pooled over all test utterances, [95 % interval, bootstrap over speakers]"
        + "; * other speakers of the corpus that is trained on"
        * any(_is_matrix(s) for s in metrics["settings"])
    )
    return "\n".join(lines)


def _distributions(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the table of the settings' probabilities against the raters' votes; nothing without votes."""
    rows = [(s["name"], s["distributions"]["metrics"]) for s in metrics["settings"] if "distributions" in s]
    if not rows:
        return []
    if prior := metrics["baselines"].get("mean_votes"):
        rows.append(("mean votes in training", prior))
    first = max(len("against raters' votes"), *(len(name) for name, _ in rows))
    titles = [f"{column.title} {column.unit}".center(20) for column in DISTRIBUTION_COLUMNS]
    lines = ["  ".join(["against raters' votes".ljust(first), *titles]).rstrip()]
    for name, row in rows:
        cells = [column.estimate(row[column.key]).center(20) for column in DISTRIBUTION_COLUMNS]
        lines.append("  ".join([name.ljust(first), *cells]).rstrip())
    return lines


def _test_sets(setting: Mapping[str, Any]) -> list[str]:
    """Returns the table of a setting's test sets: a row for what is trained on, a column for what is tested on."""
    cells = setting.get("tests", ())
    trained = list(dict.fromkeys(cell["train"] for cell in cells))
    tested = list(dict.fromkeys(cell["test"] for cell in sorted(cells, key=lambda cell: cell["test"])))
    lines = []
    for column in (COLUMNS["ua"], COLUMNS["ccc_mean"]):
        of_metric = {(c["train"], c["test"]): c for c in cells if column.key in c["metrics"]}
        if not of_metric:
            continue
        title = f"{setting['name']}: {column.title}{f' {column.unit}' * bool(column.unit)}"
        texts = [[_test_cell(of_metric.get((train, test)), column) for test in tested] for train in trained]
        names = [f"  trained on {train}" if train else "  tested on" for train in trained]
        first = max(map(len, (title, *names)))
        widths = [max(map(len, of_test)) for of_test in zip(tested, *texts, strict=True)]
        for name, row in zip((title, *names), (tested, *texts), strict=True):
            padded = (text.rjust(width) for text, width in zip(row, widths, strict=True))
            lines.append("  ".join([name.ljust(first), *padded]))
    return lines


def _is_matrix(setting: Mapping[str, Any]) -> bool:
    return any(cell["within"] for cell in setting.get("tests", ()))


def _test_cell(cell: Mapping[str, Any] | None, column: Column) -> str:
    """Returns a cell of the table of test sets; own speakers of the corpus have a star."""
    return "-" if cell is None else column.estimate(cell["metrics"][column.key]) + "*" * cell["within"]


def _calibration(of_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line about how sure the models are and how right they are then, for all settings together."""
    errors = [calibration["ece"] for calibration in of_settings if "ece" in calibration]
    intervals = [c["intervals"] for c in of_settings if "coverage" in c.get("intervals", {})]
    parts = []
    if errors:
        before, after = (_range([error[when] for error in errors], ".3f") for when in ("before", "after"))
        parts.append(f"calibration error (ECE) {after} at the temperature of validation speakers, {before} without")
    if intervals:
        covered = _range([100 * share for found in intervals for share in found["coverage"].values()], ".1f")
        parts.append(f"{100 * intervals[0]['level']:g} % intervals cover {covered} % of the ratings")
    return ["; ".join(parts)] if parts else []


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def describe_choice(setting: Mapping[str, Any]) -> str:
    """Returns what the row `chosen` is, and what the choice has cost, given its entry in metrics.json."""
    often = Counter(setting[CHOICE]["folds"].values()).most_common()
    names = first_names([f"{name} in {count(n, 'fold')}" for name, n in often], _MOST_NAMES)
    found = setting[CHOICE]["hindsight"]
    gaps = [
        f"{COLUMNS[key].title} {COLUMNS[key].number(found[key]['pooled'])} ({found[key]['setting']}, "
        f"{COLUMNS[key].number(found[key]['gap'])} more)"
        for key in ("ua", "ccc_mean")
        if key in found
    ]
    hindsight = f". The best row in hindsight has {' and '.join(gaps)}: nobody can claim it" if gaps else ""
    return f"each fold takes the setting that is best on its own validation speakers: {names}{hindsight}"


def remarks(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence about everything that is missing in the numbers of the tree of metrics.json."""
    runs = metrics["protocol"]["folds"] * metrics["protocol"]["seeds"]  # of a setting
    sentences = [*_unfinished(metrics["settings"]), *_halved(metrics["settings"])]
    machines = metrics.get("baselines", {}).get("classical", [])
    sentences += [
        f"{setting['name']}: {what}" for setting in (*metrics["settings"], *machines) for what in _gaps(setting, runs)
    ]
    cells = [(setting["name"], cell) for setting in metrics["settings"] for cell in setting.get("tests", ())]
    sentences += [_exchanged(name, cell) for name, cell in cells if "exchanged" in cell]
    if all(len(setting.get("diverged", ())) == runs for setting in metrics["settings"]):
        sentences.append("every run of this study diverged: a smaller config.learning_rate may help")
    return sentences


def _exchanged(setting: str, cell: Mapping[str, Any]) -> str:
    """Returns what a cell says of labels that may not mean the same in two corpora."""
    found, ua = cell["exchanged"], COLUMNS["ua"]
    pairs = ", ".join(f"{label} were {named}" for label, named in found["classes"].items())
    whose = f"trained on {cell['train']}, tested on {cell['test']}" if cell["train"] else f"tested on {cell['test']}"
    then, now = ua.number(found["ua"]), ua.number(cell["metrics"]["ua"]["pooled"])
    return (
        f"{setting}, {whose}: UA would be {then} instead of {now} if {pairs}: do the labels of the corpora mean the "
        "same? No number uses this"
    )


def _unfinished(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for the settings of which so many epochs are trained."""
    names: dict[tuple[int, int], list[str]] = {}
    for setting in settings:
        if unfinished := setting.get("unfinished"):
            names.setdefault((unfinished["trained"], unfinished["epochs"]), []).append(setting["name"])
    found = []
    for (trained, epochs), of_these in names.items():
        whose = "" if len(of_these) == len(settings) else f"{first_names(of_these, _MOST_NAMES)}: "
        are = "is" if trained == 1 else "are"
        found.append(f"{whose}only {trained} of {count(epochs, 'epoch')} {are} trained (--mode train continues)")
    return found


def _halved(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for the settings that halving has stopped."""
    stopped = [setting for setting in settings if setting.get("stopped")]
    if not stopped:
        return []
    epochs = sorted({int(epoch) for setting in stopped for epoch in setting["stopped"]})
    when = " or ".join(map(str, epochs))
    n = sum(CHOICE not in setting for setting in settings)
    return [
        f"{len(stopped)} of {count(n, 'setting')} have no row of their own: halving stopped them after epoch {when} in "
        "some folds or all, each by its validation speakers"
    ]


def _gaps(setting: Mapping[str, Any], runs: int) -> list[str]:
    """Returns what is missing in one setting."""
    found = []
    if diverged := setting.get("diverged"):
        places = [f"fold {run['fold']}, seed {run['seed']}, in epoch {run['epoch']}" for run in diverged]
        where = first_names(places, _MOST_NAMES, "; ")
        untested = sum(not run["best_epoch"] for run in diverged)
        rest = "tested at the best epoch before"
        if untested:
            rest = f"{untested} without an epoch before, the others {rest}"
        if untested == len(diverged):
            rest = "without an epoch before, so they predict nothing"
        found.append(f"{len(diverged)} of {count(runs, 'run')} diverged ({where}), {rest}")
    for task, folds in setting.get("untrained", {}).items():
        where = f"{count(len(folds), 'fold')} ({first_names(folds, _MOST_NAMES)})"
        found.append(f"too few labels of {task} to learn from in {where}")
    if folds := setting.get("unselected"):
        where = f"{count(len(folds), 'fold')} ({first_names(folds, _MOST_NAMES)})"
        found.append(f"no labels to choose the epoch by in {where}, so the last one is tested there")
    for task, n in ({} if setting.get("stopped") else setting.get("unpredicted", {})).items():
        lack = f"{count(n, 'test prediction')} of {task} {'is' if n == 1 else 'are'} missing"
        found.append(f"no metrics of {task} over all folds, because {lack}")
    if over := setting.get("ccc_mean_over"):
        found.append(f"the mean CCC is that of {' and '.join(over)}, because other ratings have none")
    return found


def describe_final(epochs: Sequence[int]) -> str:
    """Returns what the final runs of a study are, as a sentence.

    Args:
      epochs: those that each has trained.
    """
    low, high = min(epochs), max(epochs)
    trained = count(low, "epoch") if low == high else f"{low:,} to {high:,} epochs"
    return (
        f"{count(len(epochs), 'final run')} trained on every speaker for {trained}, the median over the folds of each "
        "setting and seed. No number is of a final run."
    )
