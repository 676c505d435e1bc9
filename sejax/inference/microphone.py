"""What a microphone hears, predicted as it comes (extra `mic`: sounddevice)."""

import queue
from collections.abc import Iterator
from typing import Any

from sejax.errors import InputError
from sejax.inference.model import Model
from sejax.inference.records import Record

PIECE_SECONDS = 0.1
WAIT_SECONDS = 5.0  # for the next piece


def listen(model: Model, *, every: float, window: float, abstain: float) -> Iterator[Record]:
    """Yields records of the default microphone without an end; see `Model.stream`.

    Raises:
      InputError: sounddevice is not installed, or there is no microphone or it falls silent.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio itself is absent
        raise InputError(
            f"the microphone cannot be used ({error}), expected sounddevice: pip install 'sejax[mic]'"
        ) from error
    pieces: queue.Queue[Any] = queue.Queue()
    try:
        rate = int(sounddevice.query_devices(kind="input")["default_samplerate"])
        stream = model.stream(rate, every=every, window=window, abstain=abstain)
        microphone = sounddevice.InputStream(
            samplerate=rate,
            channels=1,
            dtype="float32",
            blocksize=int(PIECE_SECONDS * rate),
            callback=lambda piece, frames, time, status: pieces.put(piece[:, 0].copy()),
        )
        with microphone:
            while True:
                yield from stream.add(pieces.get(timeout=WAIT_SECONDS))
    except (sounddevice.PortAudioError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the microphone cannot be used ({error}), expected one that can be recorded") from error
    except queue.Empty as error:
        raise InputError(f"the microphone gave nothing for {WAIT_SECONDS:g} s, expected samples") from error
