"""What a server takes and for how long, and how it says no."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from sejax.errors import Check, number, whole

LEAST_EVERY = 0.1  # seconds from a row to the next: bounds the answer
LONGEST_WINDOW = 30.0  # seconds
CONNECTIONS = 256  # of which most wait for a next request
HEADER_SECONDS = 10.0  # for the head of a request
IDLE_SECONDS = 10.0  # between two pieces of a body


@dataclass(frozen=True)
class Limits:
    """The limits that are options.

    Raises:
      InputError: one of them makes no sense.
    """

    megabytes: float = 20.0  # of a body, in 10^6 bytes
    audio_seconds: float = 300.0
    requests: int = 16  # that are uploaded, wait or are predicted at once
    request_seconds: float = 60.0  # from the end of the upload to the answer
    upload_seconds: float = 60.0

    def __post_init__(self) -> None:
        for each in fields(self):
            CHECKS[each.name].require(f"--max-{each.name.replace('_', '-')}", getattr(self, each.name))

    @property
    def body_bytes(self) -> int:
        """The most bytes of a body."""
        return int(self.megabytes * 1e6)


CHECKS: Mapping[str, Check] = {
    "megabytes": number(0.001, 10_000),
    "audio_seconds": number(0.1, 86_400),
    "requests": whole(1, CONNECTIONS),
    "request_seconds": number(0.1, 86_400),
    "upload_seconds": number(0.1, 86_400),
}


class Refusal(Exception):
    """A request that is not answered with records: a status of HTTP, a sentence, and further headers."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})
