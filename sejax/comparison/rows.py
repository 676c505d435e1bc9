"""The settings that are compared: which ones a command line names, and their predictions and marks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sejax.errors import InputError
from sejax.evaluation.intervals import summarise
from sejax.evaluation.nested import CHOSEN
from sejax.evaluation.predictions import Predictions
from sejax.host.wording import first_names
from sejax.report.page import Mark, marks
from sejax.report.read import Study, read_study

MOST_NAMES = 10  # in an error or a note
_CHOSEN_MARK = Mark(
    CHOSEN,
    False,
    "In each fold it is the setting that scores best on the fold's own validation speakers, among all of its study.",
)


@dataclass(frozen=True)
class Row:
    """A setting of a study."""

    name: str  # of the row, which no other has
    study: str
    setting: str
    predictions: Predictions  # of test utterances
    metrics: Mapping[str, Mapping[str, Any]]  # as metrics.json has them
    marks: Sequence[Mark]


def read_rows(places: Sequence[str]) -> tuple[dict[str, Study], list[Row]]:
    """Returns the studies by name, and the settings to compare, in the order in which they are named.

    A study is named by its folder, by its whole path if another folder has that name. With one study a row has the name
    of its setting, with several `STUDY: SETTING`.

    Args:
      places: each WORKDIR, for all of its settings, or WORKDIR:SETTING.

    Raises:
      InputError: a workdir is not of a finished study, or lacks the setting.
    """
    given: dict[str, str] = {}  # each folder as it is written first
    wanted: dict[str, list[str | None]] = {}  # settings by folder; None for all
    for workdir, setting in map(_split, places):
        given.setdefault(os.path.realpath(workdir), workdir)
        wanted.setdefault(os.path.realpath(workdir), []).append(setting)
    short = [Path(folder).name for folder in wanted]
    studies, rows = {}, []
    for folder, settings in wanted.items():
        workdir = given[folder]
        name = Path(folder).name if short.count(Path(folder).name) == 1 else workdir
        studies[name] = study = read_study(workdir)
        there = study.predictions.by("setting")
        for setting in dict.fromkeys(each for one in settings for each in (there if one is None else [one])):
            if setting not in there:
                known = first_names(there, MOST_NAMES)
                raise InputError(f"{workdir}: has no predictions of a setting {setting!r}, expected one of {known}")
            rows.append(_row(study, name, there[setting], setting, alone=len(wanted) == 1))
    return studies, rows


def find_row(rows: Sequence[Row], place: str) -> Row:
    """Returns the row that a name, a setting, WORKDIR:SETTING, or the WORKDIR of a single setting means.

    Raises:
      InputError: none of the rows, or several.
    """
    workdir, setting = _split(place)
    found = [row for row in rows if row.name == place]
    found = found or [row for row in rows if row.setting == place]
    if not found and os.path.isdir(workdir):
        name = os.path.basename(os.path.realpath(workdir))
        found = [row for row in rows if row.study in (name, workdir) and setting in (None, row.setting)]
    if len(found) != 1:
        names = first_names([row.name for row in rows], MOST_NAMES)
        which = f"is {len(found)} of the settings" if found else "is none of the settings"
        raise InputError(f"--against is {place!r}, which {which}, expected one of {names}")
    return found[0]


def _row(study: Study, name: str, predictions: Predictions, setting: str, *, alone: bool) -> Row:
    (entry,) = summarise(predictions, n_bootstrap=study.provenance.config["bootstrap"])
    return Row(
        name=setting if alone else f"{name}: {setting}",
        study=name,
        setting=setting,
        predictions=predictions,
        metrics=entry["metrics"],
        marks=[*marks(study.protocol), *([_CHOSEN_MARK] if setting == CHOSEN else [])],
    )


def _split(place: str) -> tuple[str, str | None]:
    """Returns the workdir and the setting, if any, that a place names; a folder's name may have colons."""
    if not os.path.isdir(place):
        for number, character in enumerate(place):
            if character == ":" and os.path.isdir(place[:number]):
                return place[:number], place[number + 1 :].strip()
    return place, None
