"""Results as text tables."""

from collections.abc import Mapping
from typing import Any

from sejax.corpora.schema import DIMENSIONS


def format_table(metrics: Mapping[str, Any]) -> str:
    """The results as a table for the terminal: per setting, and the baselines under it."""
    columns = (
        {"wa": "WA %", "ua": "UA %"} | {f"ccc_{d}": f"CCC {d[:3]}." for d in DIMENSIONS} | {"ccc_mean": "CCC mean"}
    )
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for setting in metrics["settings"]:
        rows.append((setting["name"], setting["metrics"]))
        if "seeds_averaged" in setting:
            rows.append(("  seeds averaged", setting["seeds_averaged"]))
        if "class_mean_lookup" in setting["baselines"]:
            rows.append(("  class-mean look-up", setting["baselines"]["class_mean_lookup"]))
    if metrics["baselines"]["majority"]:
        rows.append(("majority class", metrics["baselines"]["majority"]))
    shown = {key: title for key, title in columns.items() if any(key in found for _, found in rows)}
    first = max(len("setting"), *(len(name) for name, _ in rows))
    lines = ["  ".join(["setting".ljust(first), *(title.center(19) for title in shown.values())]).rstrip()]
    for name, found in rows:
        cells = [_cell(found.get(key), percent=key in ("wa", "ua")) for key in shown]
        lines.append("  ".join([name.ljust(first), *(cell.center(19) for cell in cells)]).rstrip())
    for setting in metrics["settings"]:
        for what, n in setting.get("unpredicted", {}).items():
            lines.append(
                f"{setting['name']}: {n} predictions of {what} are not finite, so it has no metrics: it diverged"
            )
    protocol = metrics["protocol"]
    lines.append(
        f"{protocol['description']}; {protocol['folds']} folds, {protocol['seeds']} "
        f"seed{'s' * (protocol['seeds'] != 1)}; pooled over all test utterances, "
        "[95 % interval, bootstrap over speakers]"
    )
    return "\n".join(lines)


def _cell(metric: Mapping[str, Any] | None, *, percent: bool) -> str:
    if metric is None:
        return "-"
    scale, digits = (100, 1) if percent else (1, 3)
    numbers = [metric["pooled"], *metric.get("ci95", ())]
    value, *interval = (f"{scale * number:.{digits}f}" for number in numbers)
    return f"{value} [{', '.join(interval)}]" if interval else value
