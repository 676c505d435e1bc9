"""Any utterances side by side, whatever their buckets: frames are padded to the longest of the corpus."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Num

from sejax.data.types import Data


@dataclass(frozen=True)
class OneLength:
    """Reads the originals of utterances (view 0) of a corpus whose frames are `Padded`."""

    data: Data

    @cached_property
    def _places(self) -> Int[np.ndarray, "utterance 2"]:
        """The bucket of each utterance, and its row there."""
        places = np.zeros((len(self.data.target), 2), int)
        for number, bucket in enumerate(self.data.buckets):
            places[bucket.utterance, 0], places[bucket.utterance, 1] = number, np.arange(len(bucket.utterance))
        return places

    @property
    def encoded(self) -> list[str]:
        """The streams that have frames."""
        return list(self.data.buckets[0].frames)

    def shape(self, stream: str) -> tuple[int, int]:
        """Returns the number of frames to which a stream is padded, and the values of a frame."""
        shapes = [bucket.frames[stream].shape for bucket in self.data.buckets]
        return max(shape[2] for shape in shapes), shapes[0][3]

    def frames(
        self, stream: str, utterances: Int[np.ndarray, " row"]
    ) -> tuple[Num[np.ndarray, "row _time _feature"], Int[np.ndarray, " row"]]:
        """Reads the frames of utterances, padded with zeros, and how many each has."""
        found = np.zeros((len(utterances), *self.shape(stream)), self.data.buckets[0].frames[stream].dtype)
        lengths = np.zeros(len(utterances), np.int32)
        for place, (bucket, row) in enumerate(self._places[utterances].tolist()):
            frames = self.data.buckets[bucket].frames[stream].valid(row, 0)
            found[place, : len(frames)], lengths[place] = frames, len(frames)
        return found, lengths

    def statistics(self, stream: str, utterances: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row _statistic"]:
        """Returns the statistics of utterances."""
        return np.asarray(self.data.statistics[stream][utterances, 0])
