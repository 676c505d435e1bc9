"""How features are computed: in this process, in worker processes, or by a pretrained model on the accelerator.

`CONTENTS` holds what can be computed. Nothing here knows where features are stored.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial

import numpy as np

from sejax.errors import InputError
from sejax.features.extract import Contents, Extraction, Segment, extract_utterance
from sejax.features.registry import FEATURES, full_settings
from sejax.features.settings import Settings
from sejax.host.processes import map_in_processes

# Time to start worker processes, in seconds: they are started where they save more than that.
STARTUP_SECONDS = 3.0
# Utterances that are computed first, to learn how long one takes.
PROBE = 8
# Utterances that a worker process takes at a time.
CHUNK = 8


def contents(feature: str, settings: Settings) -> Contents:
    """Returns the description of a feature with these settings, completed by their defaults; nothing is computed.

    Raises:
      InputError: an unknown feature, a wrong setting, no such pretrained model.
    """
    if feature not in CONTENTS:
        raise InputError(f"the feature is {feature!r}, expected one of {tuple(CONTENTS)}")
    return CONTENTS[feature](settings)


def acoustic_contents(settings: Settings, *, feature: str, startup_seconds: float = STARTUP_SECONDS) -> Contents:
    """Returns the description of an acoustic feature, computed in this process or in worker processes.

    Args:
      settings: Settings of the feature; those that are not given have their defaults.
      feature: A key of `FEATURES`.
      startup_seconds: Time to start worker processes, see `compute`.
    """
    complete, record = full_settings(feature, settings), FEATURES[feature]
    return Contents(
        feature=feature,
        settings=complete,
        identity=record.identity(complete),
        size=record.size(complete),
        dtype=record.dtype,
        extract=partial(_extract, feature=feature, settings=complete, startup_seconds=startup_seconds),
    )


def _extract(
    segments: Sequence[Segment],
    *,
    speed: float,
    workers: int,
    feature: str,
    settings: Settings,
    startup_seconds: float,
) -> Generator[tuple[int, Extraction], None, None]:
    function = partial(extract_utterance, name=feature, settings=settings, speed=speed)
    return compute(function, segments, workers=workers, startup_seconds=startup_seconds)


def _hidden_states(settings: Settings) -> Contents:
    """Returns the description of the hidden states of a pretrained model."""
    # Imports jax, which acoustic features do without.
    from sejax.pretrained.extract import extract_hidden_states, read_settings

    wanted = read_settings(settings)

    def extract(
        segments: Sequence[Segment], *, speed: float, workers: int
    ) -> Generator[tuple[int, Extraction], None, None]:
        return extract_hidden_states(segments, wanted=wanted, speed=speed, loaders=workers)

    return Contents(
        feature="ssl",
        settings=wanted.settings,
        identity=wanted.content,
        size=wanted.size,
        dtype=np.float16,
        extract=extract,
        fingerprint=wanted.fingerprint,
    )


CONTENTS: Mapping[str, Callable[[Settings], Contents]] = {
    **{name: partial(acoustic_contents, feature=name) for name in FEATURES},
    "ssl": _hidden_states,
}


def compute(
    function: Callable[[Segment], Extraction],
    segments: Sequence[Segment],
    *,
    workers: int,
    startup_seconds: float = STARTUP_SECONDS,
) -> Generator[tuple[int, Extraction], None, None]:
    """Yields `function` of every segment with its number, in order.

    The first segments are computed in this process, the others in worker processes where that saves more time than it
    takes to start them.

    Args:
      function: Picklable.
      segments: One or more.
      workers: Number of worker processes.
      startup_seconds: Time to start worker processes.
    """
    # The first segment also imports librosa: its time says nothing about the others.
    yield 0, function(segments[0])
    seconds = []
    for number, segment in enumerate(segments[1:PROBE], start=1):
        began = time.perf_counter()
        extraction = function(segment)
        seconds.append(time.perf_counter() - began)
        yield number, extraction
    rest = segments[PROBE:]
    saved = len(rest) * float(np.mean(seconds or 0)) * (1 - 1 / workers)
    if rest and saved > startup_seconds:
        with closing(map_in_processes(function, rest, workers=workers, chunk=CHUNK)) as results:
            yield from enumerate(results, start=PROBE)
    else:
        yield from enumerate(map(function, rest), start=PROBE)
