"""The one thread that calls the model: jax computes one thing at a time, on all cores."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.extract import Segment
from sejax.inference.model import WINDOWS_AT_ONCE, Model
from sejax.inference.records import Record

# What is compiled before it is asked for, in this order: whether over time, and the seconds of a window or of a file.
WARM = ((False, 3.0), (True, 3.0), (False, 4.5), (True, 1.0), (False, 2.0), (False, 6.5))
READY = 2  # of them are there when the server calls itself ready: those of a short utterance


class Wanted(NamedTuple):
    """What a request asks for."""

    every: float | None = None  # seconds from a record to the next; None: one record of all
    window: float = 3.0  # seconds that each of them is about
    abstain: float = 0.0
    name: str = ""  # of the audio


class Stopped(Exception):
    """Nobody waits for the records any more."""


class Worker:
    """Predicts in a thread of its own, one request after the other."""

    def __init__(self, model: Model, longest: float) -> None:
        """Takes a model.

        Args:
          model: which nothing else uses from now on.
          longest: seconds above which audio is refused.
        """
        self._model, self._longest = model, longest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._warm = 0  # how many of `WARM` are compiled

    def start(self) -> None:
        """Begins to compile what requests need, and does it behind those that wait by then."""
        self._warm_next(0)

    def end(self) -> None:
        """Takes no more, and drops what waits; what is being predicted goes on."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether the model is compiled: a request waits for it otherwise."""
        return self._warm >= READY

    def submit(self, path: str, wanted: Wanted, stopped: threading.Event) -> Future[list[Record]]:
        """Returns the future records of a file.

        Args:
          path: of the file.
          wanted: what is asked for; its `name` is not read.
          stopped: set it when nobody waits any more.
        """
        return self._thread.submit(self._predict, path, wanted, stopped)

    def _predict(self, path: str, wanted: Wanted, stopped: threading.Event) -> list[Record]:
        segment, records = Segment(path, None, None), []
        if wanted.every is None:
            found = self._model.predict_each([segment], abstain=wanted.abstain, workers=1, longest=self._longest)
        else:
            found = self._model.predict_windows(
                segment, every=wanted.every, window=wanted.window, abstain=wanted.abstain, longest=self._longest
            )
        with closing(found):
            for record in found:
                records.append(record)
                if stopped.is_set():
                    raise Stopped
        return records

    def _warm_next(self, number: int) -> None:
        self._warm = number
        if number < len(WARM):
            with suppress(RuntimeError):  # the server has ended
                next_one = self._thread.submit(self._warm_up, *WARM[number])
                next_one.add_done_callback(lambda _: self._warm_next(number + 1))

    def _warm_up(self, over_time: bool, seconds: float) -> None:
        """Predicts a signal, as a file or over time."""
        signal = _signal(seconds)
        with suppress(InputError):  # a model that refuses the signal says so of a user's file too
            if over_time:
                stream = self._model.stream(SAMPLING_RATE, every=seconds, window=seconds)
                stream.add(np.tile(signal, WINDOWS_AT_ONCE))
            else:
                self._model.predict_samples(signal, SAMPLING_RATE)


def _signal(seconds: float) -> Float32[np.ndarray, " samples"]:
    """Returns something like a voice: harmonics of 120 Hz that swell three times a second, and noise."""
    time_ = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tones = sum(np.sin(2 * np.pi * 120 * number * time_) / number for number in range(1, 12))
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time_))
    return (0.2 * tones * (1.1 + np.sin(2 * np.pi * 3 * time_)) / 2 + noise).astype(np.float32)
