"""What the runs of a study look at: explanations of test utterances, and the importance of parts of the input."""

import csv
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sejax.build import Study
from sejax.corpora.schema import DIMENSIONS
from sejax.data.one_length import OneLength
from sejax.data.types import Batch
from sejax.engine import devices
from sejax.engine.explain import look
from sejax.engine.feed import Feed, Tested
from sejax.engine.importance import parts_of, predict_permuted
from sejax.engine.program import Program
from sejax.evaluation.explanation import Explained, Reader, explain
from sejax.evaluation.importance import METRICS, Importance, describe_importance, importance_of
from sejax.evaluation.selection import trained_outputs
from sejax.features.audio import load_audio
from sejax.host.atomic import atomic_write
from sejax.host.json_files import write_json
from sejax.pretrained.base import Backbone
from sejax.workdir.gather import Part

EXPLANATIONS = "explanations.json"
IMPORTANCE = "importance.csv"


def measure_importance(study: Study, number: int, feed: Feed, learned: Part) -> list[Importance]:
    """Returns the importance of the inputs of runs, if the study asks for it.

    Args:
      number: of their program, from 1.
      feed: of the runs.
      learned: their parameters, on the host: of those that have not trained on their validation speakers.
    """
    if not study.importance:
        return []
    program = learned.program
    sizes = {name: x.shape[-1] for name, x in program.data.statistics.items()}
    backbones = _backbones(study)
    groups = {
        name: given.statistic_groups(sizes[name], backbones.get(name))
        for name, given in study.inputs[number - 1].items()
    }
    parts = parts_of(program.network.model, groups)
    params = feed.put_runs(feed.layout.scatter(np.asarray(feed.leaves.join(learned.params))))
    permuted = predict_permuted(feed, params, parts, split="val", repeats=study.importance)
    untrained = {run.number for run, epoch in zip(program.runs, learned.epochs, strict=True) if not epoch}
    found = importance_of(program, parts, permuted, np.array(study.corpus.label_numbers()))
    return [each for each in found if each.run not in untrained]


def _backbones(study: Study) -> dict[str, Backbone]:
    """Returns the pretrained models of a study, by stream."""
    return {name: checkpoint.backbone for name, checkpoint in study.checkpoints.items()}


class Insights:
    """What the runs of a study look at, gathered program by program."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._explanations: list[dict[str, Any]] = []
        self._importance: list[Importance] = []

    def add_importance(self, measured: Sequence[Importance]) -> None:
        """Takes the importance of the inputs of a program's runs."""
        self._importance += measured

    def explain(self, number: int, tested: Sequence[Tested], learned: Part) -> None:
        """Explains test utterances of a program, if the study asks for it.

        Args:
          number: of the program, from 1.
          tested: the predictions of its runs.
          learned: the parameters of the runs that are tested, on the host.
        """
        program, study = learned.program, self._study
        if study.explain and devices.leads():
            reader = Reader(program.network.model, study.inputs[number - 1], _backbones(study))
            for setting in dict.fromkeys(run.setting.name for run in program.runs):
                for chosen in _chosen(study, program, tested, learned, setting):
                    self._explanations.append(_explained(study, learned, reader, chosen))

    def write(self, workdir: str) -> list[str]:
        """Writes explanations.json and importance.csv, or removes those of an earlier start that had the option.

        Returns:
          What the terminal says of the importance, in lines.
        """
        study, paths = self._study, [Path(workdir, name) for name in (EXPLANATIONS, IMPORTANCE)]
        for path, wanted in zip(paths, (study.explain, study.importance), strict=True):
            if not wanted:
                path.unlink(missing_ok=True)
        if study.explain:
            order = {setting.name: place for place, setting in enumerate(study.settings)}
            write_json(paths[0], sorted(self._explanations, key=lambda tree: order[tree["setting"]]))
        if study.importance:
            self._write_importance(paths[1])
        return list(describe_importance(self._importance))

    def _write_importance(self, path: Path) -> None:
        runs = {run.number: run for run in self._study.runs}
        with atomic_write(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            columns = [name for metric in METRICS for name in (metric, f"{metric}_permuted")]
            writer.writerow(["run", "fold", "seed", "setting", "stream", "part", *columns])
            for each in self._importance:
                run = runs[each.run]
                cells = [of.get(metric) for metric in METRICS for of in (each.whole, each.permuted)]
                writer.writerow(
                    [
                        each.run,
                        self._study.fold_of(run).name,
                        run.seed,
                        each.setting,
                        each.stream,
                        each.part,
                        *("" if x is None else f"{x:.6g}" for x in cells),
                    ]
                )


class _Chosen(NamedTuple):
    """A test utterance that is explained, and the run that held it out."""

    place: int  # of the run in its program
    utterance: int
    kind: str
    output: str  # the class, or a dimension
    confidence: float | None


def _chosen(study: Study, program: Program, tested: Sequence[Tested], learned: Part, setting: str) -> list[_Chosen]:
    """Returns the test utterances of a setting that are explained, in turn of two kinds, each utterance once.

    With a class they are those that are most confidently right, and most confidently wrong. Without, those whose
    dimensions are predicted nearest to the ratings, and farthest from them.
    """
    candidates: dict[str, list[tuple[float, str, _Chosen]]] = {"right": [], "wrong": [], "nearest": [], "farthest": []}
    for place, run in enumerate(program.runs):
        if run.setting.name != setting or not learned.epochs[place]:
            continue
        with_label, with_vad = trained_outputs(run, program.learnable[place])
        of_run = tested[place]
        for column in np.flatnonzero((of_run.split == "test") & (of_run.utterance >= 0)):
            number = int(of_run.utterance[column])
            utterance, prob = study.corpus.utterances[number], of_run.prob[column]
            rated = with_vad & np.isfinite(program.data.vad[number])
            if with_label and utterance.label is not None:
                best = int(prob[: len(study.corpus.classes)].argmax())
                kind = "right" if study.corpus.classes[best] == utterance.label else "wrong"
                own = _Chosen(place, number, kind, study.corpus.classes[best], float(prob[best]))
                candidates[kind].append((-float(prob[best]), utterance.id, own))
            elif not with_label and rated.any():
                error = float(np.abs(of_run.vad[column] - program.data.vad[number])[rated].mean())
                output = DIMENSIONS[int(np.flatnonzero(rated)[0])]
                for kind, key in (("nearest", error), ("farthest", -error)):
                    candidates[kind].append((key, utterance.id, _Chosen(place, number, kind, output, None)))
    ordered = [[own for *_, own in sorted(of_kind, key=lambda x: x[:2])] for of_kind in candidates.values()]
    found: dict[int, _Chosen] = {}
    for own in (own for of_rank in zip_longest(*ordered) for own in of_rank if own is not None):
        if len(found) < study.explain:
            found.setdefault(own.utterance, own)
    return list(found.values())


def _explained(study: Study, learned: Part, reader: Reader, chosen: _Chosen) -> dict[str, Any]:
    """Returns the explanation of an utterance, with what is known of it."""
    program, utterance = learned.program, study.corpus.utterances[chosen.utterance]
    run = program.runs[chosen.place]
    taken, of_all = np.array([chosen.utterance]), OneLength(program.data)
    frames = {name: of_all.frames(name, taken) for name in of_all.encoded}
    batch = Batch(
        np.zeros(1, np.int32),
        {name: x for name, (x, _) in frames.items()},
        {name: length for name, (_, length) in frames.items()},
        {name: of_all.statistics(name, taken) for name in program.data.statistics},
        np.asarray(program.data.target[taken]),
        np.asarray(program.data.vad[taken]),
    )
    if chosen.output in DIMENSIONS and chosen.confidence is None:
        explained = Explained.of_dimension(chosen.output, reader.model, study.corpus.vad_scale)
    else:
        explained = Explained.of_class(study.corpus.classes, study.corpus.classes.index(chosen.output))
    only = slice(chosen.place, chosen.place + 1)
    params, of_run = jax.tree.map(lambda x: x[only], (learned.params, program.per_run))
    arrays = jax.device_put((params, of_run, program.frozen, batch))
    looked = jax.device_get(look(*arrays, explained.direction(reader.model), model=reader.model))
    audio = load_audio(utterance.path, start=utterance.start, end=utterance.end)
    known = {
        "setting": run.setting.name,
        "run": run.number,
        "fold": study.fold_of(run).name,
        "seed": run.seed,
        "id": utterance.id,
        "speaker": utterance.speaker,
        "kind": chosen.kind,
        "label": utterance.label,
        "confidence": chosen.confidence,
    }
    return known | explain(
        explained,
        looked,
        np.zeros(1, int),
        reader=reader,
        read={name: int(length[0]) for name, (_, length) in frames.items()},
        samples=audio.samples,
    )
