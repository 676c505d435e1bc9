"""The files of a finished workdir as typed records."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

import numpy as np
from jaxtyping import Float, Int

from sejax.errors import InputError
from sejax.evaluation.importance import METRICS as MEASURED
from sejax.evaluation.importance import Importance
from sejax.evaluation.nested import CHOICE, with_chosen
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.results import with_parts
from sejax.evaluation.selection import check_rows, comparable_scores, read_history, selection_scores
from sejax.evaluation.tables import COLUMNS, Column, describe_choice, remarks
from sejax.host.json_files import read_json
from sejax.host.wording import count
from sejax.workdir.data import digest
from sejax.workdir.files import CONFIG, DATA, LAYER_WEIGHTS, PREDICTIONS, RUNS
from sejax.workdir.insights import EXPLANATIONS, IMPORTANCE
from sejax.workdir.job import HISTORY
from sejax.workdir.trained import METRICS

FILES = (CONFIG, RUNS, PREDICTIONS, METRICS)
"""The files of a workdir that a report needs. LAYER_WEIGHTS is read too where hidden states are mixed; HISTORY, without
which there are no curves; DATA, which older versions did not write, without which there is no section of it; and
EXPLANATIONS and IMPORTANCE, where the study was asked for them."""

Record = TypeVar("Record")


@dataclass(frozen=True)
class Provenance:
    """The facts of config.json."""

    config: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    git: str | None
    device: str
    started: str


@dataclass(frozen=True)
class Protocol:
    """The conditions under which all numbers were obtained."""

    name: str
    description: str
    normalisation: str
    transductive: bool
    select_on_test: bool
    optimistic: bool
    seeds: int
    folds: int
    shared_speakers: bool = False
    within: Sequence[str] = ()  # the folds on the diagonal of a matrix of corpora

    @property
    def normalised_by(self) -> str:
        """Whose statistics normalise the features."""
        return "training speakers of the fold" if self.normalisation == "train" else f"per {self.normalisation}"


@dataclass(frozen=True)
class CorpusFacts:
    """The corpus after reading: its label scheme and its size."""

    name: str
    labels: str
    classes: Sequence[str]
    utterances: int
    speakers: int
    seconds: float


class SpeakersShared(TypedDict):
    """Speakers of a fold's test or training set who are in its validation set too."""

    fold: str
    speakers: list[str]


class TextsShared(TypedDict):
    """Test utterances of a fold: with a text, and with a text that is also in training."""

    fold: str
    with_text: int
    shared: int
    share: float


class CopyFound(TypedDict):
    """Two utterances of one recording whose samples are not equal."""

    ids: list[str]
    offset: float  # seconds of the first in front of the second
    seconds: float  # that both have
    correlation: float


class Duplicates(TypedDict):
    """Utterances of the same audio, how they were found, and the folds that have them on both sides, if any."""

    ids: list[str]
    found_by: NotRequired[str]
    copies: NotRequired[list[CopyFound]]
    folds: NotRequired[list[str]]


class ClaimedTwice(TypedDict):
    """Two speakers with the same audio, an utterance of each, and the folds that train on one and test the other."""

    speakers: list[str]
    corpora: list[str]
    ids: list[str]
    pairs: int
    folds: list[str]


class UnknownSpeakers(TypedDict):
    """Utterances of unknown speakers in each split of a fold."""

    fold: str
    train: int
    val: int
    test: int


class UntrainedClasses(TypedDict):
    """Classes of a fold's test set that its training set lacks."""

    fold: str
    classes: list[str]


class DroppedUtterance(TypedDict):
    """An utterance that could not be used."""

    id: str
    reason: str
    path: str
    kind: NotRequired[str]  # of the reason


@dataclass(frozen=True)
class Audit:
    """The findings of `sejax.protocols.audit`."""

    speakers_shared: Sequence[Mapping[str, Any]]
    speakers_shared_with_validation: Sequence[SpeakersShared]
    texts_shared: Sequence[TextsShared]
    duplicates: Mapping[str, Sequence[Duplicates]]  # empty before the audio is decoded
    class_counts: Sequence[Mapping[str, Any]]  # fold; by split the number of each class; unlabelled by split
    dropped: Sequence[DroppedUtterance]
    notes: Mapping[str, int]
    corpus_notes: Sequence[str]
    # What an older metrics.json lacks.
    speakers_trained_and_validated: Sequence[SpeakersShared] = ()
    spellings_checked: Sequence[str] = ()
    classes_untrained: Sequence[UntrainedClasses] = ()
    speakers_claimed_twice: Sequence[ClaimedTwice] = ()
    unknown_speakers: Sequence[UnknownSpeakers] = ()


@dataclass(frozen=True)
class Estimate:
    """A metric over all test utterances, its interval, and its mean and deviation over folds."""

    pooled: float
    ci95: Sequence[float] = ()
    fold_mean: float | None = None
    fold_sd: float | None = None


@dataclass(frozen=True)
class Scores:
    """The metrics of one fold, one speaker or one gender."""

    name: str
    utterances: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Setting:
    """The results of one setting, as metrics.json has them."""

    name: str
    values: Mapping[str, Any]
    metrics: Mapping[str, Estimate]
    lookup: Mapping[str, Estimate]  # of the class-mean look-up; empty without one
    seeds_averaged: Mapping[str, Estimate]  # empty with one seed
    selection_score: float | None
    calibration: Mapping[str, Any]  # empty in an older metrics.json
    distributions: Mapping[str, Any]  # empty without raters' votes
    confusion: Int[np.ndarray, "class class"] | None  # counts [true, predicted]
    folds: Sequence[Scores]
    speakers: Sequence[Scores]
    genders: Sequence[Scores]  # empty where the corpus says none
    tests: Sequence[Mapping[str, Any]]  # the cells of a matrix, or the test sets; empty where there is but one
    choice: Mapping[str, str] = field(default_factory=dict)  # of the row `chosen` the setting of each fold
    about_choice: str = ""  # what it has cost

    @property
    def gain(self) -> float | None:
        """The difference between the mean CCC of the model and that of its class-mean look-up."""
        of_both = [[key for key in metrics if key.startswith("ccc_")] for metrics in (self.metrics, self.lookup)]
        if "ccc_mean" not in self.metrics or of_both[0] != of_both[1]:  # means over other dimensions do not compare
            return None
        return self.metrics["ccc_mean"].pooled - self.lookup["ccc_mean"].pooled


@dataclass(frozen=True)
class Run:
    """A run and the epoch that was chosen for it."""

    number: int
    fold: str
    setting: str
    best_epoch: int


@dataclass(frozen=True)
class Study:
    """Everything that a report shows."""

    provenance: Provenance
    protocol: Protocol
    corpus: CorpusFacts
    settings: Sequence[Setting]
    majority: Mapping[str, Estimate]  # empty without classes
    mean_votes: Mapping[str, Estimate]  # empty without raters' votes
    classical: Sequence[Setting]  # baselines, whose values are what their folds chose
    audit: Audit
    runs: Sequence[Run]
    history: Sequence[Mapping[str, Any]]  # rows of history.jsonl
    predictions: Predictions
    layer_weights: Mapping[tuple[str, str], Float[np.ndarray, "run layer"]]  # by setting and stream
    remarks: Sequence[str]  # about what is missing in the numbers
    data: Mapping[str, Any]  # of data.json; empty without one
    final_epochs: Sequence[int] = ()  # that the final runs have trained
    explanations: Sequence[Mapping[str, Any]] = ()  # of explanations.json
    importance: Sequence[Importance] = ()

    @property
    def columns(self) -> list[Column]:
        """The metrics that any setting has."""
        return [column for key, column in COLUMNS.items() if any(key in setting.metrics for setting in self.settings)]

    @property
    def n_settings(self) -> int:
        """The number of settings, of which the row `chosen` is none."""
        return sum(not setting.choice for setting in self.settings)

    def runs_of(self, setting: Setting) -> list[Run]:
        """Returns the runs of a setting, or those that the folds chose."""
        return [run for run in self.runs if run.setting == setting.choice.get(run.fold, setting.name)]

    @cached_property
    def comparable_scores(self) -> dict[str, float]:
        """The selection scores by setting, of the settings that can be compared."""
        return comparable_scores(
            {setting.name: setting.selection_score for setting in self.settings},
            {setting.name: setting.metrics for setting in self.settings},
        )

    @cached_property
    def best(self) -> Setting:
        """The setting with the highest of `comparable_scores`, the first of equals."""
        return max(self.settings, key=lambda setting: self.comparable_scores.get(setting.name, -np.inf))


def read_study(workdir: str) -> Study:
    """Reads the files of a finished workdir.

    A metrics.json of an older version lacks the scores of folds and speakers, the confusion matrix and the selection
    scores. They are then computed from the other files, as they are for a new metrics.json.

    Raises:
      InputError: one of `FILES` is missing or cannot be read, or the metrics are of other data than the workdir's.
    """
    folder = Path(workdir)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{workdir}: has no {', '.join(missing)}, expected the files of a finished study")
    try:
        return _read_files(workdir, folder)
    except InputError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{workdir}: cannot be read ({type(error).__name__}: {error}), expected the files of a finished study; "
            "evaluate again (--mode evaluate)"
        ) from error


def _read_files(workdir: str, folder: Path) -> Study:
    tree, config = (
        read_json(folder / name, "a file of a finished study; evaluate again") for name in (METRICS, CONFIG)
    )
    _check_same_data(workdir, tree, config)
    predictions = Predictions.read(str(folder / PREDICTIONS))
    for setting in tree["settings"]:
        predictions = with_chosen(predictions, setting.get(CHOICE, {}).get("folds", {}))
    if diagonal := tree["protocol"].get("within"):  # in the cells of the matrix alone
        predictions = predictions.select(~np.isin(predictions.fold, diagonal))
    history = read_history(str(folder / HISTORY)) if (folder / HISTORY).is_file() else []
    rows = _read_csv(folder / RUNS)
    # Final runs test nobody.
    final = [row for row in rows if row.get("test_speakers") == ""]
    machines = tree["baselines"].get("classical", [])
    epochless = {machine["name"] for machine in machines}
    runs = [
        Run(int(row["run"]), row["fold"], row["setting"], int(row["best_epoch"]))
        for row in rows
        if row not in final and row["setting"] not in epochless
    ]
    of_runs = {run.number: (run.fold, run.setting) for run in runs}
    check_rows(history, of_runs, epochs=config["config"]["epochs"], path=str(folder / HISTORY))
    settings = tree["settings"]
    if not all("folds" in setting for setting in settings):
        scores = selection_scores(history, {run.number: run.best_epoch for run in runs})
        settings = with_parts(settings, predictions, scores)
    return Study(
        provenance=_record(Provenance, config),
        protocol=_record(Protocol, tree["protocol"]),
        corpus=_record(CorpusFacts, tree["corpus"]),
        settings=[_setting(setting) for setting in settings],
        majority=_estimates(tree["baselines"].get("majority", {})),
        mean_votes=_estimates(tree["baselines"].get("mean_votes", {})),
        classical=[_setting({**machine, "values": _choices(machine["chosen"])}) for machine in machines],
        audit=read_audit(tree["audit"]),
        runs=runs,
        final_epochs=[int(row["best_epoch"]) for row in final],
        history=history,
        predictions=predictions,
        layer_weights=_layer_weights(_read_csv(folder / LAYER_WEIGHTS)) if (folder / LAYER_WEIGHTS).is_file() else {},
        remarks=remarks(tree),
        data=read_json(folder / DATA, "a file of a finished study; evaluate again")
        if (folder / DATA).is_file()
        else {},
        explanations=read_json(folder / EXPLANATIONS, "a file of a finished study; evaluate again")
        if (folder / EXPLANATIONS).is_file()
        else [],
        importance=_importance(_read_csv(folder / IMPORTANCE)) if (folder / IMPORTANCE).is_file() else [],
    )


def _check_same_data(workdir: str, metrics: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Checks that the metrics are of the data with which the workdir was begun; older versions did not store that."""
    there = metrics["corpus"].get("digest")
    if there and "data" in config and there != digest(config["data"]):
        raise InputError(
            f"{workdir}: {METRICS} was made from other data than {CONFIG} names, expected the same; evaluate again "
            "(--mode evaluate)"
        )


def _record(record: type[Record], tree: Mapping[str, Any]) -> Record:
    """Returns a dataclass whose fields are entries of a JSON object; other entries are ignored."""
    return record(**{field.name: tree[field.name] for field in fields(record) if field.name in tree})  # type: ignore[arg-type]


def read_audit(tree: Mapping[str, Any]) -> Audit:
    """Returns the findings that `sejax.protocols.audit.audit` returns as a tree."""
    return _record(Audit, tree)


def _setting(tree: Mapping[str, Any]) -> Setting:
    return Setting(
        name=tree["name"],
        values=tree["values"],
        metrics=_estimates(tree["metrics"]),
        lookup=_estimates(tree["baselines"].get("class_mean_lookup", {})),
        seeds_averaged=_estimates(tree.get("seeds_averaged", {})),
        selection_score=tree.get("selection_score"),
        calibration=tree.get("calibration", {}),
        distributions=tree.get("distributions", {}),
        confusion=np.array(tree["confusion"]["counts"]) if "confusion" in tree else None,
        folds=[Scores(entry["fold"], entry["utterances"], entry["metrics"]) for entry in tree["folds"]],
        speakers=[Scores(entry["speaker"], entry["utterances"], entry["metrics"]) for entry in tree["speakers"]],
        genders=[Scores(entry["gender"], entry["utterances"], entry["metrics"]) for entry in tree.get("genders", ())],
        tests=tree.get("tests", ()),
        choice=tree[CHOICE]["folds"] if CHOICE in tree else {},
        about_choice=describe_choice(tree) if CHOICE in tree else "",
    )


def _choices(chosen: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """Returns how many folds chose each value, by task and option: `{"class C": "0.001 (6 folds), 0.01 (4 folds)"}`."""
    found: dict[str, Counter[float]] = {}
    for of_fold in chosen.values():
        for task, options in of_fold.items():
            for option, value in options.items():
                found.setdefault(f"{task} {option}", Counter())[value] += 1
    return {
        name: ", ".join(f"{value:g} ({count(n, 'fold')})" for value, n in sorted(values.items()))
        for name, values in found.items()
    }


def _estimates(metrics: Mapping[str, Any]) -> dict[str, Estimate]:
    return {key: _record(Estimate, metric) for key, metric in metrics.items()}


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _layer_weights(
    rows: Iterable[Mapping[str, str]],
) -> dict[tuple[str, str], Float[np.ndarray, "run layer"]]:
    weights: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        by_run = weights.setdefault((row["setting"], row["stream"]), {})
        by_run.setdefault(row["run"], []).append(float(row["weight"]))
    return {key: np.array(list(by_run.values())) for key, by_run in weights.items()}


def _importance(rows: Iterable[Mapping[str, str]]) -> list[Importance]:
    def numbers(row: Mapping[str, str], suffix: str) -> dict[str, float]:
        return {name: float(row[name + suffix]) for name in MEASURED if row[name + suffix]}

    return [
        Importance(
            int(row["run"]), row["setting"], row["stream"], row["part"], numbers(row, ""), numbers(row, "_permuted")
        )
        for row in rows
    ]
