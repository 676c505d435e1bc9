"""From a workdir to a bundle: which runs, which pretrained checkpoints, and how sure they are.

python -m sejax.export --workdir W --to FOLDER
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sejax.data.inputs import VECTORS, Input
from sejax.errors import InputError
from sejax.evaluation.nested import CHOICE
from sejax.evaluation.selection import comparable_scores
from sejax.host.atomic import atomic_folder, require_replaceable
from sejax.host.wording import count
from sejax.inference import seen
from sejax.inference.bundle import CARD, PRETRAINED, choose_runs
from sejax.inference.card import write_card
from sejax.pretrained.convert import find_pretrained
from sejax.pretrained.hub import CONFIG, preprocessor_files, read_json, weight_files
from sejax.workdir import trained
from sejax.workdir.data import UTTERANCES
from sejax.workdir.trained import Pretrained, Trained, TrainedRun, read_description, read_trained


class Exported(NamedTuple):
    """A bundle that was written."""

    folder: Path
    setting: str
    runs: Sequence[TrainedRun]
    notes: Sequence[str]


def export_bundle(
    workdir: str,
    to: str,
    *,
    runs: Sequence[str] = ("final",),
    setting: str | None = None,
    checkpoints: str = "auto",
) -> Exported:
    """Writes a bundle of a finished study.

    Args:
      workdir: of the study. Its corpus need not be there.
      to: the folder of the bundle, which is made, or replaced if it holds a bundle.
      runs: ("final",), the model of all speakers; ("folds",), the ensemble of the folds; or runs by number or fold.
      setting: by default the one that scores best on validation speakers; where halving has left none to all folds,
        the one that most folds chose.
      checkpoints: one of `choices.CHECKPOINTS`.

    Raises:
      InputError: the workdir or the folder cannot be used, or the study has no such runs.
    """
    metrics = _read_metrics(workdir)
    chosen = _setting(metrics, setting, workdir)
    folder = Path(to).expanduser().resolve()
    own = {CARD, PRETRAINED, UTTERANCES, trained.ARRAYS, trained.CONFIG}
    require_replaceable(folder, what="a bundle", mark=CARD, own=own.__contains__)
    if folder.is_dir() and any(folder.iterdir()):
        read_description(folder)
    found, source = _read_program(workdir, chosen["name"])
    _require_audio(found.inputs, chosen["name"], workdir)
    places = _places(found.runs, runs, chosen["name"], workdir)
    found = found.select(places)
    with atomic_folder(folder) as partial:
        pretrained, notes = _bring_checkpoints(found.pretrained, partial, checkpoints)
        study = {
            "setting": chosen["name"],
            "values": chosen["values"],
            "protocol": metrics["protocol"],
            "corpus": metrics["corpus"],
            "versions": source.get("versions", {}),
        }
        if heard := seen.of_workdir(workdir, [run.number for run in found.runs]):
            rows, study[seen.HELD_OUT] = heard
            seen.write_rows(partial, rows)
        calibration = _calibration(chosen.get("calibration", {}), found.runs)
        found = replace(found, pretrained=pretrained, inputs=_without_places(found.inputs, pretrained))
        found.write(partial, {"calibration": calibration, "study": study})
        write_card(partial / CARD, found, chosen, metrics)
    return Exported(folder, chosen["name"], found.runs, notes)


def _read_metrics(workdir: str) -> dict[str, Any]:
    """Reads metrics.json of a finished study whose models predict from a single file."""
    if not Path(workdir, trained.METRICS).is_file():
        raise InputError(f"{workdir}: has no {trained.METRICS}, expected the workdir of a finished study")
    metrics = read_json(Path(workdir, trained.METRICS))
    try:
        if (whose := metrics["protocol"]["normalisation"]) != "train":
            raise InputError(
                f"{workdir}: its features are normalised by all audio of their {whose}, which a single file does not "
                "have, expected a study with config.normalisation='train'"
            )
        if not all(isinstance(entry["name"], str) for entry in metrics["settings"]):
            raise TypeError("a setting has no name")
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{Path(workdir, trained.METRICS)}: is not as sejax writes it ({type(error).__name__}: {error}), expected "
            "the metrics of a study; evaluate again (--mode evaluate)"
        ) from error
    return metrics


def _setting(metrics: Mapping[str, Any], name: str | None, workdir: str) -> Mapping[str, Any]:
    """Returns the entry of a setting in metrics.json: the one of that name, or the best on validation.

    Where halving has left no setting to all folds, each has a score over other folds. It is then the setting that most
    folds chose.
    """
    by_name = {entry["name"]: entry for entry in metrics["settings"] if CHOICE not in entry}
    if name is None and all(entry.get("stopped") for entry in by_name.values()):
        (in_fold,) = (entry[CHOICE]["folds"] for entry in metrics["settings"] if CHOICE in entry)
        return by_name[Counter(in_fold.values()).most_common(1)[0][0]]
    if name is None:
        scores = {entry: by_name[entry].get("selection_score") for entry in by_name}
        comparable = comparable_scores(scores, {entry: by_name[entry]["metrics"] for entry in by_name})
        return by_name[max(comparable, key=comparable.__getitem__) if comparable else next(iter(by_name))]
    if name not in by_name:
        raise InputError(f"{workdir}: has no setting {name!r}, expected one of {', '.join(map(repr, by_name))}")
    return by_name[name]


def _read_program(workdir: str, setting: str) -> tuple[Trained, dict[str, Any]]:
    """Reads the trained runs of the program that has a setting."""
    root = Path(workdir, trained.TRAINED)
    folders = [root] if (root / trained.CONFIG).is_file() else sorted(root.glob("program-*"))
    for folder in folders:
        tree = read_description(folder)
        if any(run["setting"] == setting for run in tree["runs"]):
            return read_trained(folder)
    raise InputError(
        f"{workdir}: has no trained runs of the setting {setting!r} in {trained.TRAINED}, expected what a study writes "
        "at its end; one of an older sejax writes it with --mode evaluate"
    )


def _require_audio(inputs: Mapping[str, Input], setting: str, workdir: str) -> None:
    """Refuses a model of which a stream cannot be made from audio."""
    own = [name for name, given in inputs.items() if given.feature == VECTORS]
    if own:
        raise InputError(
            f"{workdir}: the setting {setting!r} reads {', '.join(own)} from a feature file, which has no vector of a "
            "new recording, expected a setting whose streams are all made from audio"
        )


def _places(runs: Sequence[TrainedRun], names: Sequence[str], setting: str, workdir: str) -> list[int]:
    """Returns the places of the runs that are named, which have parameters."""
    of_setting = [place for place, run in enumerate(runs) if run.setting == setting]
    own = [runs[place] for place in of_setting]
    if tuple(names) == ("final",):
        chosen = [place for place in of_setting if runs[place].final]
        if not chosen:
            raise InputError(
                f"{workdir}: the study has no final model, expected one: train it with the study's command and "
                "--config.final=True (nothing else is trained again), or take the ensemble of the folds (--runs folds)"
            )
    elif tuple(names) == ("folds",):
        chosen = [place for place in of_setting if not runs[place].final]
    else:
        chosen = [of_setting[place] for place in choose_runs(own, names, workdir)]
    whole = [place for place in chosen if runs[place].epoch > 0]
    if not whole:
        raise InputError(f"{workdir}: the chosen runs diverged in their first epoch, expected trained ones")
    return whole


def _bring_checkpoints(
    given: Mapping[str, Pretrained], folder: Path, how: str
) -> tuple[dict[str, Pretrained], list[str]]:
    """Copies the pretrained checkpoints into the bundle, or says where they are."""
    brought, notes = {}, []
    for stream, wanted in given.items():
        found = find_pretrained(wanted.model, revision=wanted.revision)
        if found.digest != wanted.digest:
            raise InputError(
                f"{wanted.model}: is another checkpoint now than the study used for the stream {stream}, expected the "
                f"files of the digest {wanted.digest}"
            )
        local = Path(wanted.model).expanduser().is_dir()
        if how == "reference" and local:
            raise InputError(
                f"{wanted.model}: the stream {stream} has its checkpoint in a folder, expected a hub id to refer to it "
                "(--config.features.ssl.STREAM.model), or --checkpoints embed"
            )
        if how == "embed" or local:
            place = f"{PRETRAINED}/{stream}"
            (folder / place).mkdir(parents=True)
            files = [found.folder / CONFIG, *preprocessor_files(found.folder), *weight_files(found.folder)]
            for path in files:
                shutil.copyfile(path, folder / place / path.name)
            brought[stream] = replace(wanted, model=place, files=tuple(path.name for path in files))
        else:
            # A snapshot of the hub's cache has the name of its commit.
            commit = found.folder.name if found.folder.parent.name == "snapshots" else wanted.revision
            brought[stream] = replace(wanted, revision=commit)
            notes.append(f"the checkpoint of {stream} is {wanted.model} ({commit}) on the hub: it is not in the bundle")
    return brought, notes


def _without_places(inputs: Mapping[str, Input], pretrained: Mapping[str, Pretrained]) -> dict[str, Input]:
    """Returns the inputs with the place of a checkpoint in the bundle instead of that on this machine."""
    moved = dict(inputs)
    for name, checkpoint in pretrained.items():
        if inputs[name].settings:  # raw audio has none
            place = {"model": checkpoint.model, "revision": checkpoint.revision}
            moved[name] = replace(inputs[name], settings={**inputs[name].settings, **place})
    return moved


def _calibration(given: Mapping[str, Any], runs: Sequence[TrainedRun]) -> dict[str, Any] | None:
    """Returns the calibration of each run: of its fold, or of all folds together for one of all speakers."""

    found: dict[str, Any] = {}
    if temperature := given.get("temperature"):
        found["temperature"] = [temperature["all"] if run.final else temperature["folds"][run.fold] for run in runs]
    if intervals := given.get("intervals"):
        # A fold with few ratings has no half width of its own.
        widths = intervals["half_width"]
        found["level"] = intervals["level"]
        found["half_width"] = [
            widths["all"] if run.final else widths["all"] | widths["folds"][run.fold] for run in runs
        ]
    return found or None


def describe(exported: Exported) -> str:
    """Returns what was written, in a sentence."""
    folds = sum(not run.final for run in exported.runs)
    what = count(folds, "run") + " of folds" if folds else f"{count(len(exported.runs), 'run')} of all speakers"
    return f"{exported.folder}: {what}, setting {exported.setting}"
