"""How features are computed: in this process, in worker processes, or by a pretrained model on the accelerator.

`CONTENTS` holds what can be computed. Nothing here knows where features are stored.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

import numpy as np

from sejax.errors import InputError
from sejax.features.audioprint import AUDIOPRINT_VERSION
from sejax.features.extract import (
    Collector,
    Contents,
    Extraction,
    Job,
    Loaded,
    Perturbation,
    Task,
    do_tasks,
    extract_loaded,
    print_loaded,
)
from sejax.features.registry import FEATURES, full_settings
from sejax.features.settings import Settings, complete_settings
from sejax.host.processes import map_in_processes, map_in_threads

# Time to start worker processes, in seconds: they are started where they save more than that.
STARTUP_SECONDS = 3.0
# Utterances that are computed first, to learn how long one takes.
PROBE = 8
# Utterances that a worker process takes at a time.
CHUNK = 8
# Utterances that threads decode ahead.
AHEAD = 16

Result = TypeVar("Result")


def contents(feature: str, settings: Settings) -> Contents:
    """Returns the description of a feature with these settings, completed by their defaults; nothing is computed.

    Raises:
      InputError: an unknown feature, a wrong setting, no such pretrained model.
    """
    if feature not in CONTENTS:
        raise InputError(f"the feature is {feature!r}, expected one of {tuple(CONTENTS)}")
    return CONTENTS[feature](settings)


def acoustic_contents(settings: Settings, *, feature: str) -> Contents:
    """Returns the description of an acoustic feature.

    Args:
      settings: Settings of the feature; those that are not given have their defaults.
      feature: A key of `FEATURES`.
    """
    complete, record = full_settings(feature, settings), FEATURES[feature]
    return Contents(
        feature=feature,
        settings=complete,
        identity=record.identity(complete),
        size=record.size(complete),
        dtype=record.dtype,
        window=record.window(complete),
        compute=partial(extract_loaded, name=feature, settings=complete),
    )


def _hidden_states(settings: Settings) -> Contents:
    """Returns the description of the hidden states of a pretrained model."""
    # Imports jax, which acoustic features do without.
    from sejax.pretrained.extract import HiddenStates, read_settings

    wanted = read_settings(settings)
    return Contents(
        feature="ssl",
        settings=wanted.settings,
        identity=wanted.content,
        size=wanted.size,
        dtype=np.float16,
        window=wanted.backbone.window,
        collect=partial(HiddenStates, wanted),
        fingerprint=wanted.fingerprint,
    )


def _audioprints(settings: Settings) -> Contents:
    """Returns the description of fingerprints of the audio, which have no settings."""
    return Contents(
        feature="audioprint",
        settings=complete_settings("audioprint", settings, {}),
        identity={"version": AUDIOPRINT_VERSION},
        size=1,
        dtype=np.uint32,
        window=1,  # audio that is too short for a word is none the worse for it
        compute=print_loaded,
        light=True,
    )


CONTENTS: Mapping[str, Callable[[Settings], Contents]] = {
    **{name: partial(acoustic_contents, feature=name) for name in FEATURES},
    "audioprint": _audioprints,
    "ssl": _hidden_states,
}


def compute(
    wanted: Sequence[tuple[Contents, Perturbation]],
    jobs: Sequence[Job],
    *,
    workers: int,
    collectors: dict[int, Collector] | None = None,
) -> Generator[tuple[int, int, Extraction], None, None]:
    """Yields the features of utterances, in any order, each with its number in `wanted` and its number in `jobs`.

    Each file is decoded once for all features and views. What a pretrained model computes is batched over views too.

    Args:
      wanted: contents, and what makes a view of the utterance. The same contents of several views are one object.
      jobs: utterances, and which of `wanted` each is for; one or more.
      workers: number of processes that decode and compute, or of threads where they hardly do more than decode.
      collectors: those of an earlier call with the same `wanted`, to which new ones are added.
    """
    makers = {id(each): each.collect for each, _ in wanted if each.collect}
    collectors = {} if collectors is None else collectors
    with closing(decode(wanted, jobs, workers=workers)) as results:
        for number, done in enumerate(results):
            for task, result in zip(jobs[number].tasks, done, strict=True):
                if isinstance(result, Extraction):
                    yield task, number, result
                else:
                    which = id(wanted[task][0])
                    if which not in collectors:
                        collectors[which] = makers[which]()
                    for key, extraction in collectors[which].add((task, number), result):
                        yield *key, extraction
    for collector in collectors.values():
        for key, extraction in collector.close():
            yield *key, extraction


def decode(
    wanted: Sequence[tuple[Contents, Perturbation]], jobs: Sequence[Job], *, workers: int, longest: float = math.inf
) -> Generator[list[Extraction | Loaded], None, None]:
    """Yields what is made of each utterance where it is decoded, in order: see `do_tasks`.

    Args:
      wanted: see `compute`.
      jobs: see `compute`.
      workers: see `compute`.
      longest: seconds above which an utterance is refused.
    """
    do = partial(do_tasks, tasks=[task_of(*each) for each in wanted], longest=longest)
    if all(each.compute is None or each.light for each, _ in wanted):
        return map_in_threads(do, jobs, threads=workers, ahead=AHEAD)
    return _in_this_process_first(do, jobs, workers=workers)


def task_of(contents: Contents, perturbation: Perturbation) -> Task:
    """Returns what is to be made of the samples of an utterance for these contents."""
    return Task(perturbation, contents.window, contents.size, contents.dtype, contents.compute)


def _in_this_process_first(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int
) -> Generator[Result, None, None]:
    """Yields `function` of every job, in order.

    The first jobs are done in this process, the others in worker processes where that saves more time than it takes to
    start them.
    """
    # The first job also imports librosa: its time says nothing about the others.
    yield function(jobs[0])
    seconds = []
    for job in jobs[1:PROBE]:
        began = time.perf_counter()
        result = function(job)
        seconds.append(time.perf_counter() - began)
        yield result
    rest = jobs[PROBE:]
    saved = len(rest) * float(np.mean(seconds or 0)) * (1 - 1 / workers)
    if rest and saved > STARTUP_SECONDS:
        with closing(map_in_processes(function, rest, workers=workers, chunk=CHUNK)) as results:
            yield from results
    else:
        yield from map(function, rest)
