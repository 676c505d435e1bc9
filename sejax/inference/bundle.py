"""A bundle: the trained runs of a study in a folder that one takes away.

config.json         what `sejax.workdir.trained` writes, and "calibration", "protocol", "study"
model.safetensors   the arrays of the runs
utterances.csv      the speakers and the audio of the study, as digests: `sejax.inference.seen`
README.md           a model card
pretrained/         the checkpoints of pretrained streams, unless config.json names them on the hub
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError
from sejax.host.wording import count
from sejax.inference.scoring import Calibration, Runs
from sejax.inference.seen import read_heard
from sejax.pretrained.hub import locate_file, read_json
from sejax.workdir import trained
from sejax.workdir.data import UTTERANCES
from sejax.workdir.trained import Trained, TrainedRun, read_description, read_trained

CARD = "README.md"
CARD_CHARACTERS = 1 << 20  # that are read of it
PRETRAINED = "pretrained"  # the folder of embedded checkpoints


def find_bundle(source: str, revision: str) -> Path | None:
    """Returns the folder of a bundle, after downloading it if `source` is a hub id; None for another kind of model.

    Raises:
      InputError: `source` is the workdir of a study, no folder or hub id, or a file of the bundle is missing.
    """
    path = locate_file(source, revision, trained.CONFIG)
    if path is None:
        return None
    folder, tree = path.parent, read_json(path)
    if (folder / trained.METRICS).is_file():
        raise InputError(
            f"{source}: is the workdir of a study, expected a bundle: python -m sejax.export --workdir {source} "
            "--to FOLDER writes one"
        )
    if tree.get("format") != trained.FORMAT:
        return None
    read_description(folder)
    try:
        embedded = [f"{given['model']}/{name}" for given in tree["pretrained"].values() for name in given["files"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: its 'pretrained' cannot be read ({type(error).__name__}: {error}), expected what sejax writes; "
            "export the study again"
        ) from error
    for name in (trained.ARRAYS, *embedded):
        if locate_file(source, revision, name) is None:
            raise InputError(f"{source}: has no {name}, expected the files of a bundle; export the study again")
    for name in (CARD, UTTERANCES):
        locate_file(source, revision, name)  # which may be missing
    return folder


def load_bundle(folder: Path, *, runs: Sequence[str] = ()) -> Runs:
    """Loads the runs of a bundle.

    Args:
      folder: of the bundle.
      runs: names for `choose_runs`; none: all.

    Raises:
      InputError: the bundle cannot be read, or has no such run.
    """
    found, tree = read_trained(folder)
    _check(folder, found)
    places = choose_runs(found.runs, runs, str(folder)) if runs else list(range(len(found.runs)))
    loaded = Runs(folder, found.select(places), _calibration(folder, tree, found, places), _read_card(folder / CARD))
    corpus = tree.get("study", {}).get("corpus", {})
    loaded.trained_on, loaded.labels = str(corpus.get("name", "")), str(corpus.get("labels", ""))
    if heard := read_heard(folder, tree, [run.fold for run in found.runs]):
        loaded.heard = heard.select(places)
    return loaded


def _read_card(path: Path) -> str:
    """Returns the model card; a bundle whose card was deleted predicts as before."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(CARD_CHARACTERS)
    except OSError:
        return ""


def choose_runs(runs: Sequence[TrainedRun], names: Sequence[str], where: str) -> list[int]:
    """Returns the places of the runs that are named: by their fold (its runs of all seeds), or by their number.

    A name that is a fold is not a number too: speakers are often called so.

    Raises:
      InputError: there is no such run.
    """
    places: dict[int, None] = {}
    for name in names:
        of_fold = [place for place, run in enumerate(runs) if name == run.fold]
        own = of_fold or [place for place, run in enumerate(runs) if name == str(run.number)]
        if not own:
            folds = list(dict.fromkeys(run.fold for run in runs))
            shown = ", ".join(folds[:12]) + (", ..." if len(folds) > 12 else "")
            numbers = f"{min(run.number for run in runs)} to {max(run.number for run in runs)}"
            raise InputError(
                f"{where}: has no run {name!r}, expected a fold ({shown}) or the number of one of its "
                f"{count(len(runs), 'run')} (from {numbers})"
            )
        places |= dict.fromkeys(own)
    return list(places)


def _check(folder: Path, found: Trained) -> None:
    """Refuses what would be numbers of something else: the model clips what is not finite, and XLA hides it then."""
    if not found.runs:
        raise InputError(f"{folder / trained.CONFIG}: has no runs, expected some; export the study again")
    trees = (found.params, dict(found.frame_scale), dict(found.statistic_scale))
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(trees)):
        raise InputError(f"{folder / trained.ARRAYS}: has values that are not finite, expected finite ones")
    if any(run.label for run in found.runs):
        outputs = found.params["head"]["label"]["bias"].shape[-1]
        if not len(found.classes) == len(set(found.classes)) == outputs:
            raise InputError(
                f"{folder / trained.CONFIG}: has the classes {', '.join(found.classes)}, expected {outputs} different "
                "ones, as the model has outputs; export the study again"
            )


def _calibration(folder: Path, tree: Mapping[str, Any], found: Trained, places: Sequence[int]) -> Calibration:
    """Returns the calibration of the chosen runs; a bundle without any has probabilities as they are."""
    given = tree.get("calibration") or {}
    try:
        temperature = np.array(given.get("temperature") or [1.0] * len(found.runs), float)[list(places)]
        widths = given.get("half_width") or [{}] * len(found.runs)
        half_width = [[float(widths[place].get(name, math.nan)) for name in DIMENSIONS] for place in places]
        level = given.get("level")
        if not ((temperature > 0) & (temperature < math.inf)).all() or not (level is None or 0 < level < 1):
            raise ValueError("a temperature or a level is out of range")
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / trained.CONFIG}: its 'calibration' cannot be read ({error}), expected what sejax writes; "
            "export the study again"
        ) from error
    return Calibration(temperature, np.array(half_width), level)
