"""A model that predicts: a bundle of a study, or a published model, behind one interface."""

import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Num

from sejax.data.compute import decode, task_of
from sejax.errors import InputError
from sejax.features.audio import Audio, convert_samples, load_audio, open_blocks
from sejax.features.corrupt import Corruption
from sejax.features.extract import Extraction, Job, Loaded, Perturbation, Segment, do_with
from sejax.host.wording import one_line
from sejax.inference.records import Names, Outputs, Record, make_record
from sejax.inference.scorer import Made, Scorer
from sejax.inference.seen import Heard
from sejax.inference.windows import Window, Windows

GROUP, GROUP_SECONDS = 64, 600.0  # utterances, and seconds of audio, that are scored together
UTTERANCE_SECONDS = 900.0  # longer audio is a recording: it is predicted over time
WINDOW_SECONDS = 3.0
WINDOWS_AT_ONCE = 16  # of a file


class Scored(NamedTuple):
    """The outputs of a model's runs for one utterance under each corruption, or why there are none."""

    digest: str  # of the decoded samples
    outputs: tuple[Outputs | InputError, ...]


class Model:
    """A trained model.

    Example:
      >>> model = Model.load("my-bundle")
      >>> model.predict(["a.wav", "b.wav"])[0].label
      'happy'
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @classmethod
    def load(
        cls, source: str | Path, *, revision: str = "main", runs: Sequence[str] = (), problem_type: str | None = None
    ) -> "Model":
        """Loads a bundle (`python -m sejax.export`) or a published emotion model.

        Args:
          source: a folder, or a hub id.
          revision: branch, tag or commit on the hub.
          runs: of a bundle, the runs that predict, by number or fold; by default all that it holds.
          problem_type: of a published model: what its outputs are, a key of `sejax.pretrained.labels.PROBLEM_TYPES`;
            by default what its config.json or its labels say.

        Raises:
          InputError: there is no model, it cannot be read, or it has no such run.
        """
        from sejax.inference.bundle import find_bundle, load_bundle

        if folder := find_bundle(str(source), revision):
            if problem_type:
                raise InputError(f"{source}: is a bundle, which says what its outputs are, expected no problem_type")
            return cls(load_bundle(folder, runs=runs))
        if runs:
            raise InputError(f"{source}: is a published model, expected no names of runs, which only bundles have")
        from sejax.inference.published import Published
        from sejax.pretrained.heads.classifier import load_classifier

        return cls(Published(load_classifier(str(source), revision=revision, problem_type=problem_type)))

    @property
    def digest(self) -> str:
        """A digest of the model's files: equal digests, equal predictions."""
        return self._scorer.digest

    @property
    def names(self) -> Names:
        """The names of the outputs."""
        return self._scorer.names

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the model and its outputs."""
        return self._scorer.notes

    @property
    def scale(self) -> tuple[float, float] | None:
        """The least and the greatest value of the dimensions; None where the model does not say it."""
        return self._scorer.scale

    @property
    def trained_on(self) -> str:
        """The name of the corpus of the model's study; empty where it has none, as a published model."""
        return self._scorer.trained_on

    @property
    def labels(self) -> str:
        """The option `labels` of the model's study; empty where it has none."""
        return self._scorer.labels

    @property
    def heard(self) -> Heard | None:
        """The speakers and the audio that the model's runs have heard; None where the model does not know them."""
        return self._scorer.heard

    @property
    def card(self) -> str:
        """The model card, in Markdown; empty if there is none."""
        return self._scorer.card

    def predict(self, paths: Iterable[str | Path | Segment], *, abstain: float = 0.0) -> list[Record]:
        """Returns a record per file, in their order. A file that cannot be used is a record with an error.

        Args:
          paths: audio files, or parts of them, each one utterance.
          abstain: the least confidence with which a class is named; below it the label is "unsure".
        """
        if isinstance(paths, str | Path):
            raise InputError(f"predict was given {str(paths)!r}, expected a list of files")
        segments = [path if isinstance(path, Segment) else Segment(os.fspath(path), None, None) for path in paths]
        return list(self.predict_each(segments, abstain=abstain))

    def predict_each(
        self,
        segments: Sequence[Segment],
        *,
        abstain: float = 0.0,
        workers: int | None = None,
        longest: float = UTTERANCE_SECONDS,
    ) -> Generator[Record, None, None]:
        """Yields the record of each utterance, in their order, as they are done.

        Args:
          segments: files, or parts of files.
          abstain: see `predict`.
          workers: processes or threads that decode; None: one per core.
          longest: seconds above which an utterance is refused.
        """
        with closing(self.score_each(segments, workers=workers, longest=longest)) as scored:
            for segment, each in zip(segments, scored, strict=True):
                yield self._record(each.outputs[0], segment, abstain)

    def score_each(
        self,
        segments: Sequence[Segment],
        *,
        corruptions: Sequence[Corruption | None] = (None,),
        workers: int | None = None,
        longest: float = UTTERANCE_SECONDS,
    ) -> Generator[Scored, None, None]:
        """Yields the outputs of all runs for each utterance, in their order; a file is decoded once.

        Args:
          segments: files, or parts of files.
          corruptions: what is done to the decoded samples before anything is computed, one or more; None: nothing.
          workers: see `predict_each`.
          longest: see `predict_each`.

        Raises:
          InputError: a file that a corruption draws from cannot be used.
        """
        contents = self._scorer.contents
        wanted = [(each, Perturbation(corruption=corruption)) for corruption in corruptions for each in contents]
        jobs = [Job(segment, range(len(wanted))) for segment in segments]
        if not jobs:
            return
        number = workers or os.cpu_count() or 1
        with closing(decode(wanted, jobs, workers=number, longest=longest)) as made:
            for group in _groups(made, GROUP_SECONDS / len(corruptions)):
                views = [
                    self._score([each[first : first + len(contents)] for each in group])
                    for first in range(0, len(wanted), len(contents))
                ]
                for each, *outputs in zip(group, *views, strict=True):
                    yield Scored(each[0].digest, tuple(outputs))

    def predict_samples(
        self, samples: Num[np.ndarray, "samples *channels"], rate: int, *, abstain: float = 0.0
    ) -> Record:
        """Returns the record of one utterance in memory, whose `file` is "".

        Args:
          samples: full scale at -1 and 1; of several channels the mean.
          rate: of the samples, in hertz.
          abstain: see `predict`.

        Raises:
          InputError: the samples cannot be used.
        """
        samples = np.asarray(samples)
        if samples.ndim not in (1, 2) or not samples.size or not np.issubdtype(samples.dtype, np.floating):
            raise InputError(
                f"the samples are {samples.dtype} of shape {list(samples.shape)}, expected floats [samples] or "
                "[samples, channels], full scale at -1 and 1"
            )
        audio = convert_samples("the samples", samples.astype(np.float32).reshape(len(samples), -1), rate)
        (outputs,) = self._score([self._made(audio, "the samples")])
        if isinstance(outputs, InputError):
            raise outputs
        return make_record(self.names, outputs, file="", start=None, end=None, abstain=abstain)

    def explain(
        self,
        paths: Iterable[str | Path | Segment],
        *,
        task: str = "class",
        abstain: float = 0.0,
        longest: float = UTTERANCE_SECONDS,
    ) -> Iterator[Record]:
        """Returns records, as they are done, each with the explanation of an output.

        Args:
          paths: audio files, or parts of them, each one utterance.
          task: what is explained: the class that is named, or a dimension (`choices.EXPLAINED`).
          abstain: see `predict`.
          longest: seconds above which an utterance is refused.

        Raises:
          InputError: the model does not predict the task, or is no bundle.
        """
        self._scorer.require_explainable(task)
        segments = (path if isinstance(path, Segment) else Segment(os.fspath(path), None, None) for path in paths)
        return (self._explained(segment, task, abstain, longest) for segment in segments)

    def _explained(self, segment: Segment, task: str, abstain: float, longest: float) -> Record:
        try:
            audio = load_audio(segment.path, start=segment.start, end=segment.end, longest=longest)
            outputs, explanation = self._scorer.explain(self._made(audio, segment.path), audio.samples, task)
        except InputError as error:
            return self._record(error, segment, abstain)
        return replace(self._record(outputs, segment, abstain), explanation=explanation)

    def stream(
        self, rate: int, *, every: float = 0.5, window: float = WINDOW_SECONDS, abstain: float = 0.0
    ) -> "Stream":
        """Begins a recording whose samples come in pieces: see `Stream`.

        Args:
          rate: of the samples, in hertz.
          every: seconds from a record to the next.
          window: seconds that each record is about.
          abstain: see `predict`.

        Raises:
          InputError: an argument makes no sense.
        """
        return Stream(self, Windows(rate, every=every, length=window), abstain)

    def predict_windows(
        self,
        segment: Segment,
        *,
        every: float = 0.5,
        window: float = WINDOW_SECONDS,
        abstain: float = 0.0,
        longest: float = math.inf,
    ) -> Generator[Record, None, None]:
        """Yields the records over time of a file of any length, which is read in blocks; see `stream`.

        A file that cannot be used, or not to its end, or is longer than `longest` seconds, ends with a record of the
        error.
        """
        begin, waiting = segment.start or 0.0, []
        try:
            with open_blocks(segment.path, start=segment.start, end=segment.end, longest=longest) as (
                rate,
                blocks,
            ):
                windows = Windows(rate, every=every, length=window, name=segment.path)
                for found in _all_windows(windows, blocks):
                    waiting.append(found)
                    if len(waiting) == WINDOWS_AT_ONCE:
                        yield from self.score_windows(waiting, segment.path, begin, abstain)
                        waiting = []
                yield from self.score_windows(waiting, segment.path, begin, abstain)
        except InputError as error:
            yield Record(segment.path, segment.start, segment.end, error=str(error))

    def score_windows(self, windows: Sequence[Window], name: str, begin: float, abstain: float) -> Iterator[Record]:
        """Yields the records of windows of a recording that begins `begin` seconds after its file's first sample.

        A window without any sound has a record without outputs, whose note says so.
        """
        sounds = [np.ptp(window.samples) > 0 for window in windows]
        sounding = [window.samples for window, sound in zip(windows, sounds, strict=True) if sound]
        scored = iter(self._score([self._made(Audio(samples, ""), name) for samples in sounding]))
        for window, sound in zip(windows, sounds, strict=True):
            segment = Segment(name, begin + window.start, begin + window.end)
            if sound:
                yield self._record(next(scored), segment, abstain)
            else:
                yield Record(*segment, note="silence")

    def _made(self, audio: Audio, name: str) -> list[Extraction | Loaded]:
        return do_with(audio, name, [task_of(contents, Perturbation()) for contents in self._scorer.contents])

    def _score(self, group: Sequence[Made]) -> list[Outputs | InputError]:
        """Scores a group; utterances that memory does not hold together are scored one by one."""
        try:
            return self._scorer.score(group) if group else []
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if len(group) > 1:
                return [outputs for each in group for outputs in self._score([each])]
            return [InputError(f"the model cannot be run on it ({one_line(error, most=200)}), expected enough memory")]

    def _record(self, outputs: Outputs | InputError, segment: Segment, abstain: float) -> Record:
        if isinstance(outputs, InputError):
            return Record(*segment, error=_about(str(outputs), segment.path))
        return make_record(
            self.names, outputs, file=segment.path, start=segment.start, end=segment.end, abstain=abstain
        )


class Stream:
    """One recording whose samples come in pieces of any size: a microphone's, a socket's.

    A record is about the last seconds that were heard. The same samples give the same records, whatever the pieces, and
    whether they come from a file (`Model.predict_windows`) or not.

    Example:
      >>> stream = model.stream(48_000)
      >>> for piece in microphone:
      ...     for record in stream.add(piece):
      ...         print(record.end, record.label)
    """

    def __init__(self, model: Model, windows: Windows, abstain: float) -> None:
        self._model, self._windows, self._abstain, self._ended = model, windows, abstain, False

    def add(self, samples: Float[np.ndarray, " samples"]) -> list[Record]:
        """Takes the next samples, full scale at -1 and 1, and returns the records that they complete.

        Raises:
          InputError: they are no floats [samples], or a sample is NaN, infinite or far above full scale.
        """
        self._require_open()
        return self._records(list(self._windows.add(samples)))

    def close(self) -> list[Record]:
        """Ends the recording, and returns the records that are left."""
        self._require_open()
        self._ended = True
        return self._records(list(self._windows.close()))

    def _require_open(self) -> None:
        if self._ended:
            raise InputError("the stream is closed, expected a new one for further samples: Model.stream")

    def _records(self, windows: Sequence[Window]) -> list[Record]:
        return list(self._model.score_windows(windows, "", 0.0, self._abstain))


def _all_windows(windows: Windows, blocks: Iterable[Float[np.ndarray, " samples"]]) -> Iterator[Window]:
    for block in blocks:
        yield from windows.add(block)
    yield from windows.close()


def _groups(made: Iterable[Made], most: float) -> Iterator[list[Made]]:
    """Yields the utterances in groups that last so many seconds at most, but for the last utterance of each."""
    group: list[Made] = []
    seconds = 0.0
    for each in made:
        group.append(each)
        seconds += max(part.seconds for part in each)
        if len(group) == GROUP or seconds > most:
            yield group
            group, seconds = [], 0.0
    if group:
        yield group


def _about(error: str, path: str) -> str:
    """Returns an error as a sentence that begins with the file."""
    return error if error.startswith(path) else f"{path}: {error}"
