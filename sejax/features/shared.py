"""What several features of an utterance are made of, computed once: MFCC need the mel spectrogram, as `mel` does.

    with sharing():
        log_mel(samples, n_mels=40)  # computed
        log_mel(samples, n_mels=40)  # the same array again

Outside `sharing`, functions that are marked `shared` compute every time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_COMPUTED: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar("_COMPUTED", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Makes functions that are marked `shared` remember, in this thread and until the end, what they have computed."""
    token = _COMPUTED.set({})
    try:
        yield
    finally:
        _COMPUTED.reset(token)


def shared(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Returns the function of an array and hashable settings, which computes once inside `sharing`.

    Its arrays cannot be written there, and the array that it is given must not be: it is told by its identity.
    """

    @wraps(function)
    def computed_once(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        computed = _COMPUTED.get()
        if computed is None:
            return function(*args, **options)
        array, *others = args
        key = function, id(array), tuple(others), tuple(sorted(options.items()))
        if key not in computed:
            result = function(*args, **options)
            for each in result if isinstance(result, tuple) else (result,):
                if isinstance(each, np.ndarray):
                    each.setflags(write=False)
            computed[key] = array, result  # the array lives as long as its identity counts
        return computed[key][1]

    return computed_once
