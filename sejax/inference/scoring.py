"""The trained runs of a bundle as one function from utterances to outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.errors import FlaxError
from jaxtyping import Array, Float, Float32, Int, Num

from sejax.corpora.schema import DIMENSIONS
from sejax.data.buckets import ROUND_FRAMES
from sejax.data.compute import contents
from sejax.data.inputs import Input
from sejax.data.types import Batch, Scale
from sejax.engine.explain import look
from sejax.engine.step import Frozen, HParams, Run, frozen_forward, predict_above
from sejax.errors import InputError
from sejax.evaluation.explanation import Explained, Reader, explain
from sejax.features.extract import Collector, Contents, Extraction, Loaded
from sejax.features.registry import licences
from sejax.host.wording import first_line
from sejax.inference.records import Names, Outputs
from sejax.inference.scorer import Made, Scorer
from sejax.models.description import read_model
from sejax.models.joint import JointModel
from sejax.pretrained.convert import Pretrained, find_pretrained, load_checkpoint
from sejax.pretrained.finetune import Tuning, divide
from sejax.workdir import trained
from sejax.workdir.trained import Trained

ROWS = 16  # utterances in a batch, unless there is one alone
SHORTEST, LENGTH_RATIO = 64, 1.5  # of the numbers of frames to which batches are padded


@dataclass(frozen=True)
class Calibration:
    """How sure each run is: see `sejax.evaluation.calibration`."""

    temperature: Float[np.ndarray, " run"]
    half_width: Float[np.ndarray, "run dimension"]  # of the intervals of `DIMENSIONS`, NaN where there is none
    level: float | None  # the share of intervals that hold the truth; None: there are none


class _Utterance(NamedTuple):
    """What the model reads of an utterance, by stream."""

    frames: dict[str, Num[np.ndarray, "_time _feature"]]
    statistics: dict[str, Float[np.ndarray, " _statistic"]]
    note: str

    @property
    def lengths(self) -> tuple[int, ...]:
        """The numbers of frames to which its streams are padded."""
        return tuple(_padded(len(x)) for x in self.frames.values())


class Runs(Scorer):
    """The runs of a bundle.

    Attributes:
      inputs: what the model reads, by stream.
      classes, vad_scale: of the study's corpus.
      model: the model of every run.
      encoded: the streams whose frames are read.
      backbones: of its pretrained streams.
      label: whether each run predicts the class.
      columns: of `DIMENSIONS`, which some run predicts.
      predicted: whether each run predicts each of them.
      calibration: of the runs.
      arrays: parameters, scales and frozen pretrained models.
    """

    def __init__(self, folder: Path, found: Trained, calibration: Calibration, card: str) -> None:
        """Loads what the runs need.

        Args:
          folder: of the bundle, in which embedded checkpoints are.
          found: the runs.
          calibration: of these runs.
          card: the model card.

        Raises:
          InputError: a pretrained checkpoint is not there, or is another one than the runs were trained with; or the
            description of the model cannot be read.
        """
        pretrained = {name: _find(folder, name, wanted) for name, wanted in found.pretrained.items()}
        self.folder, self.card = folder, card
        self.contents = tuple(_contents(given, pretrained.get(name)) for name, given in found.inputs.items())
        self.inputs, self.classes, self.vad_scale = found.inputs, found.classes, found.vad_scale
        self.model = _read_model(folder, found, pretrained)
        self.backbones = {name: checkpoint.backbone for name, checkpoint in pretrained.items()}
        self.encoded = {spec.name for spec in self.model.streams if spec.encoder != "none"}
        self._collectors: dict[int, Collector] = {}
        self.label = np.array([run.label for run in found.runs], bool)
        predicted = np.array([run.dimensions for run in found.runs], bool)
        self.columns = np.flatnonzero(predicted.any(axis=0))
        self.predicted, self.calibration = predicted[:, self.columns], calibration
        self.arrays = jax.device_put((found.params, _runs(found), _frozen(self.model, pretrained)))

    @property
    def names(self) -> Names:
        """The names of the outputs."""
        return Names(
            self.classes if self.label.any() else (),
            tuple(DIMENSIONS[column] for column in self.columns),
            intervals=self.calibration.level is not None and bool(len(self.columns)),
            spread=len(self.label) > 1,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the outputs and the features that they are made of."""
        of_features = licences(given.feature for given in self.inputs.values())
        if not len(self.columns):
            return of_features
        low, high = self.vad_scale
        level = self.calibration.level
        intervals = f"; {100 * level:g} % of the intervals are meant to hold the truth" if level is not None else ""
        return (f"{', '.join(self.names.dimensions)} are on a scale from {low:g} to {high:g}{intervals}", *of_features)

    @property
    def scale(self) -> tuple[float, float] | None:
        """The least and the greatest value of the dimensions."""
        low, high = self.vad_scale
        return (float(low), float(high)) if len(self.columns) else None

    def score(self, group: Sequence[Made]) -> list[Outputs | InputError]:
        """Returns the outputs of each utterance, or why there are none.

        Args:
          group: what `self.contents` made of each utterance.
        """
        read = [self._read(made) for made in self._complete(group)]
        found: dict[int, Outputs | InputError] = {}
        by_lengths: dict[tuple[int, ...], list[tuple[int, _Utterance]]] = {}
        for place, each in enumerate(read):
            if isinstance(each, InputError):
                found[place] = each
            else:
                by_lengths.setdefault(each.lengths, []).append((place, each))
        for lengths, members in by_lengths.items():
            for first in range(0, len(members), ROWS):
                places, utterances = zip(*members[first : first + ROWS], strict=True)
                batch = _batch(utterances, lengths, rows=1 if len(group) == 1 else ROWS)
                logits, values = self._computed(batch)
                for row, (place, utterance) in enumerate(zip(places, utterances, strict=True)):
                    found[place] = self._outputs(logits[:, row], values[:, row], utterance.note)
        return [found[place] for place in range(len(group))]

    def require_explainable(self, task: str) -> None:
        """Checks that some run predicts the task."""
        if not len(self._runs_of(task)):
            known = [*(["class"] if self.label.any() else []), *self.names.dimensions]
            raise InputError(f"{self.folder}: does not predict {task}, expected one of {', '.join(known)}")

    def explain(
        self, made: Made, samples: Float32[np.ndarray, " samples"], task: str
    ) -> tuple[Outputs, dict[str, Any]]:
        """Returns the outputs, and what the runs that predict the task look at; see `Scorer.explain`."""
        (complete,) = self._complete([made])
        utterance = self._read(complete)
        (outputs,) = self.score([complete])
        if isinstance(utterance, InputError):
            raise utterance
        if isinstance(outputs, InputError):
            raise outputs
        runs = self._runs_of(task)
        if task == "class":
            explained = Explained.of_class(self.classes, int(outputs.prob[runs].mean(axis=0).argmax()))
        else:
            explained = Explained.of_dimension(task, self.model, self.vad_scale)
        batch = _batch((utterance,), utterance.lengths, rows=1)
        looked = jax.device_get(look(*self.arrays, batch, explained.direction(self.model), model=self.model))
        return outputs, explain(
            explained,
            looked,
            runs,
            reader=Reader(self.model, self.inputs, self.backbones),
            read={name: len(x) for name, x in utterance.frames.items()},
            samples=samples,
        )

    def _runs_of(self, task: str) -> Int[np.ndarray, " chosen"]:
        """Returns the places of the runs that predict a task."""
        if task == "class":
            return np.flatnonzero(self.label)
        return np.flatnonzero(self.predicted[:, self.columns == DIMENSIONS.index(task)].any(axis=1))

    def _computed(
        self, batch: Batch
    ) -> tuple[Float[np.ndarray, "run batch class"], Float[np.ndarray, "run batch dim"]]:
        """Runs the model.

        Raises:
          InputError: the arrays of the bundle are not those of the model that it describes.
        """
        try:
            return jax.device_get(_score(*self.arrays, batch, model=self.model))
        except (FlaxError, LookupError, TypeError, ValueError) as error:
            raise self._unfit(first_line(error)) from error

    def _unfit(self, problem: str) -> InputError:
        return InputError(
            f"{self.folder}: its {trained.ARRAYS} and its {trained.CONFIG} do not fit together ({problem}), expected "
            "the files of one bundle; export the study again"
        )

    def _complete(self, group: Sequence[Made]) -> list[list[Extraction]]:
        """Returns the features of every stream; those of pretrained models are computed here, in batches."""
        complete: list[list[Any]] = [list(made) for made in group]
        for stream, wanted in enumerate(self.contents):
            loaded = [(place, each) for place, made in enumerate(group) if isinstance(each := made[stream], Loaded)]
            if not loaded or wanted.collect is None:
                continue
            if stream not in self._collectors:
                self._collectors[stream] = wanted.collect()
            collector = self._collectors[stream]
            for place, each in loaded:
                for done, extraction in collector.add(place, each):
                    complete[done][stream] = extraction
            for done, extraction in collector.close():
                complete[done][stream] = extraction
        return complete

    def _read(self, made: Sequence[Extraction]) -> _Utterance | InputError:
        """Returns what the model reads of an utterance."""
        if errors := [extraction.error for extraction in made if extraction.error]:
            return InputError(errors[0])
        frames, statistics = {}, {}
        notes = dict.fromkeys(note for extraction in made for note in extraction.note.split("; ") if note)
        for (name, given), extraction in zip(self.inputs.items(), made, strict=True):
            statistics[name] = given.read_statistics(extraction.statistics)
            self._require_width("statistics", name, self.arrays[1].statistic_scale, len(statistics[name]))
            if name in self.encoded:
                frames[name] = given.read_frames(extraction.frames)
                self._require_width("values of a frame", name, self.arrays[1].frame_scale, frames[name].shape[1])
                if len(frames[name]) < len(extraction.frames):
                    read = len(frames[name]) / len(extraction.frames) * extraction.seconds
                    notes[f"only the first {read:.3g} s are encoded"] = None
        return _Utterance(frames, statistics, "; ".join(notes))

    def _require_width(self, what: str, stream: str, scales: Mapping[str, Scale], width: int) -> None:
        """Refuses a normalisation of other features: one of a single value would be taken for all of them."""
        if stream in scales and (found := scales[stream].mean.shape[-1]) != width:
            raise self._unfit(f"the stream {stream} has {width} {what}, its normalisation {found}")

    def _outputs(
        self, logits: Float[np.ndarray, "run class"], values: Float[np.ndarray, "run dim"], note: str
    ) -> Outputs | InputError:
        """Returns the outputs of an utterance, in the scale of the study's corpus."""
        logits = np.where(self.label[:, None], logits.astype(np.float64)[:, : len(self.classes)], np.nan)
        low, high = self.vad_scale
        scaled = values[:, self.columns].astype(np.float64) * (high - low) / 2 + (low + high) / 2
        if not (np.isfinite(logits[self.label]).all() and np.isfinite(scaled).all()):
            return InputError("the model gives values for it that are not finite, expected finite ones")
        return Outputs(
            prob=_softmax(logits),
            tempered=_softmax(logits / self.calibration.temperature[:, None]),
            values=np.where(self.predicted, scaled, np.nan),
            half_width=self.calibration.half_width[:, self.columns].mean(axis=0),
            note=note,
        )


@partial(jax.jit, static_argnames="model")
def _score(
    params: Any, runs: Run, frozen: Frozen, batch: Batch, *, model: JointModel
) -> tuple[Float[Array, "run batch class"], Float[Array, "run batch dim"]]:
    """Returns logits, and dimensions in half scales, of all runs; each utterance is the same to all of them."""
    batch = frozen_forward(model, frozen, batch, None)
    predict = partial(predict_above, model, frozen, batch=batch)
    # Runs side by side are no faster on a CPU, and take more memory.
    one_by_one = {"batch_size": 1} if jax.default_backend() == "cpu" else {}
    return jax.lax.map(lambda own: predict(*own), (params, runs), **one_by_one)


def _batch(utterances: Sequence[_Utterance], lengths: Sequence[int], *, rows: int) -> Batch:
    """Returns a batch of so many rows, of which the last ones repeat the last utterance."""
    filled = [*utterances, *[utterances[-1]] * (rows - len(utterances))]
    frames = {}
    for (name, first), length in zip(filled[0].frames.items(), lengths, strict=True):
        frames[name] = np.zeros((rows, length, first.shape[1]), first.dtype)
        for row, utterance in enumerate(filled):
            frames[name][row, : len(utterance.frames[name])] = utterance.frames[name]
    return Batch(
        utterance=np.zeros(rows, np.int32),
        frames=frames,
        lengths={name: np.array([len(each.frames[name]) for each in filled], np.int32) for name in frames},
        statistics={name: np.stack([each.statistics[name] for each in filled]) for name in filled[0].statistics},
        target=np.zeros((rows, 1), np.float32),
        vad=np.zeros((rows, len(DIMENSIONS)), np.float32),
    )


def _padded(frames: int) -> int:
    """Returns the least of a few lengths that holds so many frames: each compiles a program."""
    length = SHORTEST
    while length < frames:
        length = -(-int(length * LENGTH_RATIO) // ROUND_FRAMES) * ROUND_FRAMES
    return length


def _softmax(logits: Float[np.ndarray, "run class"]) -> Float[np.ndarray, "run class"]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _find(folder: Path, stream: str, wanted: trained.Pretrained) -> Pretrained:
    """Locates the checkpoint of a stream: in the bundle's folder, or where the bundle says."""
    embedded = folder / wanted.model
    found = find_pretrained(str(embedded) if embedded.is_dir() else wanted.model, revision=wanted.revision)
    if found.digest != wanted.digest:
        raise InputError(
            f"{found.folder}: its files have the digest {found.digest}, expected {wanted.digest}: the checkpoint that "
            f"the stream {stream} of {folder} was trained with"
        )
    return found._replace(backbone=found.backbone.in_context(wanted.context))


def _contents(given: Input, checkpoint: Pretrained | None) -> Contents:
    """Returns how the features of a stream are computed."""
    if given.feature != "ssl" or checkpoint is None:
        return contents(given.feature, given.settings)
    return contents(given.feature, {**given.settings, "model": str(checkpoint.folder)})


def _read_model(folder: Path, found: Trained, pretrained: Mapping[str, Pretrained]) -> JointModel:
    try:
        return read_model(found.model, {name: checkpoint.backbone for name, checkpoint in pretrained.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / trained.CONFIG}: its 'model' cannot be read ({type(error).__name__}: {error}), expected what "
            "sejax writes; export the study again"
        ) from error


def _runs(found: Trained) -> Run:
    """Returns the runs as the engine takes them; what only training reads is 0."""
    number = np.zeros(len(found.runs), np.float32)
    return Run(
        HParams(*[number] * len(HParams._fields)),
        trained=np.zeros((len(number), 1), bool),
        class_weight=np.ones((len(number), 1), np.float32),
        frame_scale=dict(found.frame_scale),
        statistic_scale=dict(found.statistic_scale),
    )


def _frozen(model: JointModel, pretrained: Mapping[str, Pretrained]) -> Frozen:
    """Returns the arrays of the pretrained models that no run has changed."""
    tuned: dict[str, Tuning] = {spec.name: spec.tuning for spec in model.streams if spec.tuning is not None}
    parts = {name: divide(load_checkpoint(str(pretrained[name].folder)).params, tuned[name]) for name in tuned}
    return Frozen(
        {name: part.lower for name, part in parts.items()}, {name: part.upper for name, part in parts.items()}
    )
