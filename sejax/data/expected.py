"""The features that a corpus would have, as shapes: for planning, before anything is computed."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sejax.corpora.schema import SAMPLING_RATE, Corpus
from sejax.data.compute import contents
from sejax.data.feature_files import FeatureFile
from sejax.data.prepare import statistics_alone
from sejax.data.stored import Stored
from sejax.data.types import Stream
from sejax.features.extract import Loaded
from sejax.features.settings import Settings

PROBE_SECONDS = 2.0


def expect_streams(
    corpus: Corpus,
    seconds: Mapping[str, float],
    *,
    features: Mapping[str, str],
    settings: Mapping[str, Settings],
    vectors: Mapping[str, FeatureFile],
    speeds: Sequence[float],
    corruptions: int,
) -> dict[str, Stream]:
    """Returns the streams that `sejax.data.prepare` would, whose values must not be read.

    An acoustic feature is computed of two seconds of noise, to see its shape. Of a pretrained model the description is
    read, without its weights.

    Args:
      corpus: utterances whose files can be used.
      seconds: the duration of each, by id.
      features: of each stream that is made from audio.
      settings: of each stream's feature.
      vectors: further streams by name, which feature files have the statistics of.
      speeds: factors of the speed perturbation, one per view.
      corruptions: number of further views.

    Raises:
      InputError: see `sejax.data.compute.contents` and `FeatureFile.of`.
    """
    samples = [round(seconds[utterance.id] * SAMPLING_RATE) for utterance in corpus.utterances]
    streams = {}
    for name, feature in features.items():
        frames_of, size, statistics, dtype = _shape(feature, settings[name])
        frames = [
            [_unread((max(0, frames_of(int(n / speed))), size), dtype) for n in samples]
            for speed in [*speeds, *[1.0] * corruptions]
        ]
        zero = np.zeros((), np.float16 if dtype == np.float16 else np.float32)
        streams[name] = Stream(frames, np.broadcast_to(zero, (len(samples), len(frames), statistics)))
    return streams | {name: statistics_alone(file.of(corpus)) for name, file in vectors.items()}


def _shape(feature: str, settings: Settings) -> tuple[Callable[[int], int], int, int, np.dtype]:
    """Returns how many frames so many samples have, the values of a frame, those of its statistics, and its type."""
    made_of = contents(feature, settings)
    dtype = np.dtype(made_of.dtype)
    if feature == "ssl":
        # Imports jax, which acoustic features do without.
        from sejax.pretrained.extract import read_settings

        wanted = read_settings(settings)
        frames = (lambda n: 0) if wanted.settings["pooled"] else wanted.backbone.frames
        return frames, made_of.size, 2 * made_of.size, dtype  # means and deviations
    assert made_of.compute is not None
    probed = int(PROBE_SECONDS * SAMPLING_RATE)
    noise = np.random.default_rng(0).normal(0.0, 0.1, probed).astype(np.float32)
    found = made_of.compute(Loaded("noise", noise, "", "", PROBE_SECONDS))
    hop_length = int(made_of.settings.get("hop_length", 1))

    def frames_of(n: int) -> int:
        return len(found.frames) + (n - probed) // hop_length if len(found.frames) else 0

    return frames_of, made_of.size, len(found.statistics), dtype


def _unread(shape: tuple[int, int], dtype: np.dtype) -> Stored:
    def read() -> np.ndarray:
        raise AssertionError("the values of expected features are read")

    return Stored(shape, dtype, read)
