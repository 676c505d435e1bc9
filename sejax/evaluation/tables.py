"""Metrics as text: one way to write a number with its interval, and the table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.metrics import CLASS_METRICS
from sejax.host.wording import count


@dataclass(frozen=True)
class Column:
    """A metric as a column of a table: its key in metrics.json, its title, and how its numbers are written."""

    key: str
    title: str
    scale: int = 1  # factor between the metric and the number that is written
    digits: int = 3
    unit: str = ""

    def number(self, value: float) -> str:
        """Returns the rounded number."""
        # Adding 0.0 turns the -0.0 of a rounded small negative number into 0.0.
        return f"{round(self.scale * value, self.digits) + 0.0:.{self.digits}f}"

    def interval(self, bounds: Sequence[float]) -> str:
        """Returns `[low, high]`."""
        return f"[{', '.join(map(self.number, bounds))}]"

    def estimate(self, metric: Mapping[str, Any]) -> str:
        """Returns `value [low, high]`, or the value alone where the metric has no interval."""
        value = self.number(metric["pooled"])
        return f"{value} {self.interval(metric['ci95'])}" if "ci95" in metric else value


CLASS_COLUMNS = tuple(Column(name, metric.title, 100, 1, "%") for name, metric in CLASS_METRICS.items())
CCC_COLUMNS = tuple(Column(f"ccc_{name}", f"CCC {name}") for name in (*DIMENSIONS, "mean"))
COLUMNS = {column.key: column for column in (*CLASS_COLUMNS, *CCC_COLUMNS)}


def format_table(metrics: Mapping[str, Any]) -> str:
    """Returns the tree of metrics.json as a table for the terminal: each setting with its baselines below it."""
    titles = {"wa": "WA %", "ua": "UA %"} | {f"ccc_{d}": f"CCC {d[:3]}." for d in DIMENSIONS} | {"ccc_mean": "CCC mean"}
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for setting in metrics["settings"]:
        rows.append((setting["name"], setting["metrics"]))
        if "seeds_averaged" in setting:
            rows.append(("  seeds averaged", setting["seeds_averaged"]))
        if "class_mean_lookup" in setting["baselines"]:
            rows.append(("  class-mean look-up", setting["baselines"]["class_mean_lookup"]))
    if metrics["baselines"]["majority"]:
        rows.append(("majority class", metrics["baselines"]["majority"]))
    shown = {key: title for key, title in titles.items() if any(key in row for _, row in rows)}
    first = max(len("setting"), *(len(name) for name, _ in rows))
    lines = ["  ".join(["setting".ljust(first), *(title.center(19) for title in shown.values())]).rstrip()]
    for name, row in rows:
        cells = [COLUMNS[key].estimate(row[key]) if key in row else "-" for key in shown]
        lines.append("  ".join([name.ljust(first), *(cell.center(19) for cell in cells)]).rstrip())
    for setting in metrics["settings"]:
        for task, n in setting.get("unpredicted", {}).items():
            lines.append(
                f"{setting['name']}: {n} predictions of {task} are not finite, so it has no metrics: it diverged"
            )
    protocol = metrics["protocol"]
    lines.append(
        f"{protocol['description']}; {count(protocol['folds'], 'fold')}, {count(protocol['seeds'], 'seed')}; "
        "pooled over all test utterances, [95 % interval, bootstrap over speakers]"
    )
    return "\n".join(lines)
