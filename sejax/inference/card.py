"""The model card of a bundle: what the model is, what its study measured, and what it is not for."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.tables import COLUMNS
from sejax.features.registry import licences
from sejax.host.atomic import atomic_write
from sejax.host.wording import count
from sejax.workdir.trained import Trained

_PARTS = ("wa", "ua", "ccc_mean")  # the metrics of speakers and genders


def write_card(path: Path, found: Trained, setting: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Writes the card, in the form of the Hugging Face hub.

    Args:
      path: of the file.
      found: the bundle's runs.
      setting: their entry in metrics.json.
      metrics: the tree of metrics.json.
    """
    predicted = [name for place, name in enumerate(DIMENSIONS) if any(run.dimensions[place] for run in found.runs)]
    labelled = any(run.label for run in found.runs)
    text = _template().render(
        name=f"{metrics['corpus']['name']} {setting['name']}",
        classes=found.classes if labelled else (),
        dimensions=predicted,
        scale="{:g} to {:g}".format(*found.vad_scale),
        streams=list(found.inputs),
        checkpoints=[f"{name} ({given.model}, {given.revision})" for name, given in found.pretrained.items()],
        licences=licences(given.feature for given in found.inputs.values()),
        final=all(run.final for run in found.runs),
        runs=count(len(found.runs), "run"),
        epochs=sorted({run.epoch for run in found.runs}),
        corpus=metrics["corpus"],
        protocol=metrics["protocol"],
        results=_results(setting, metrics),
        speakers=_parts(setting.get("speakers", ()), "speaker"),
        genders=_parts(setting.get("genders", ()), "gender"),
        calibration=setting.get("calibration", {}),
    )
    with atomic_write(path) as file:
        file.write(text)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("sejax.inference"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2")


def _results(setting: Mapping[str, Any], metrics: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Returns a table: a row for each metric, a column for the model and for each baseline."""
    columns: dict[str, Mapping[str, Any]] = {"this setting": setting["metrics"]}
    if averaged := setting.get("seeds_averaged"):
        columns["seeds averaged"] = averaged
    if majority := metrics["baselines"].get("majority"):
        columns["majority class"] = majority
    if lookup := setting["baselines"].get("class_mean_lookup"):
        columns["class-mean look-up"] = lookup
    rows = [["", *columns]]
    for key, column in COLUMNS.items():
        if key in setting["metrics"]:
            cells = [column.estimate(own[key]) if key in own else "" for own in columns.values()]
            rows.append([_title(key), *cells])
    return rows


def _parts(parts: Sequence[Mapping[str, Any]], kind: str) -> Sequence[Sequence[str]]:
    """Returns a table of the scores of each speaker or gender; empty without any."""
    keys = [key for key in _PARTS if any(key in part["metrics"] for part in parts)]
    if not keys:
        return []
    rows = [[kind, "utterances", *map(_title, keys)]]
    for part in parts:
        cells = [COLUMNS[key].number(part["metrics"][key]) if key in part["metrics"] else "" for key in keys]
        rows.append([str(part[kind]), str(part["utterances"]), *cells])
    return rows


def _title(key: str) -> str:
    """Returns the title of a metric with its unit."""
    column = COLUMNS[key]
    return f"{column.title} ({column.unit})" if column.unit else column.title
