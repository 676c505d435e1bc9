"""MFCC and log-mel spectrograms, as librosa computes them.

Frames are centred (librosa's default): frame t is around sample t * hop_length, the signal is padded with zeros,
and n samples give 1 + n // hop_length frames. The power of a window (Hann, `win_length` samples, zero-padded to
`n_fft`) passes through Slaney's mel filters from 0 to 8 kHz. Each clip is converted to decibel relative to a power
of 1, and cut off 80 dB below its own maximum and at -100 dB (`power_to_db` with ref=1, amin=1e-10, top_db=80).

128 filters need n_fft = 1024, which has bins every 16 Hz: the lowest filters are 23 Hz apart, and at 512 and below
many of them would cover a single bin.
"""

import warnings
from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.sparse
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.settings import Settings
from sejax.features.shared import shared


def mfcc(
    samples: Float32[np.ndarray, " samples"],
    *,
    n_mfcc: int = 40,
    n_mels: int = 128,
    n_fft: int = 1024,
    win_length: int = 400,
    hop_length: int = 160,
) -> Float32[np.ndarray, "frames n_mfcc"]:
    """Computes mel-frequency cepstral coefficients of samples at 16 kHz: the orthonormal DCT-II of `log_mel`.

    Equal to `librosa.feature.mfcc(y=samples, sr=16000, ...)`, transposed. The first coefficient is the loudness.

    Args:
      samples: Signal at 16 kHz.
      n_mfcc: Number of coefficients.
      n_mels: Number of mel filters.
      n_fft: Length of the Fourier transform, in samples.
      win_length: Length of the window, in samples.
      hop_length: Distance between frames, in samples.
    """
    decibel = log_mel(samples, n_mels=n_mels, n_fft=n_fft, win_length=win_length, hop_length=hop_length)
    return np.ascontiguousarray(scipy.fft.dct(decibel, type=2, norm="ortho")[:, :n_mfcc])


@shared
def log_mel(
    samples: Float32[np.ndarray, " samples"],
    *,
    n_mels: int = 128,
    n_fft: int = 1024,
    win_length: int = 400,
    hop_length: int = 160,
) -> Float32[np.ndarray, "frames n_mels"]:
    """Computes the mel spectrogram of samples at 16 kHz, in decibel; see `mfcc` for the settings.

    Equal to `librosa.power_to_db(librosa.feature.melspectrogram(y=samples, sr=16000, ...))`, transposed. It is
    built from librosa's parts because importing `librosa.feature` takes 0.7 s in every worker process.
    """
    from librosa.core.spectrum import power_to_db, stft

    with warnings.catch_warnings():
        # A clip shorter than n_fft is padded with zeros like any other edge.
        warnings.filterwarnings("ignore", message=r"n_fft=\d+ is too large", category=UserWarning)
        spectrum = stft(samples, n_fft=n_fft, win_length=win_length, hop_length=hop_length)
    power = np.square(np.abs(spectrum))
    return np.ascontiguousarray(power_to_db(_mel_filters(n_fft, n_mels) @ power).T)


def check(settings: Settings) -> dict[str, str]:
    """Returns what is expected of settings of `mfcc` or `log_mel` that do not fit together."""
    bins = 1 + int(settings["n_fft"]) // 2
    expected = {"n_mels": f"at most the {bins} bins of n_fft"} if int(settings["n_mels"]) > bins else {}
    return expected | {
        smaller: f"at most {larger} ({settings[larger]})"
        for smaller, larger in (("win_length", "n_fft"), ("n_mfcc", "n_mels"))
        if smaller in settings and int(settings[smaller]) > int(settings[larger])
    }


@lru_cache(maxsize=8)
def _mel_filters(n_fft: int, n_mels: int) -> scipy.sparse.csr_array:
    """Returns librosa's filters `[n_mels, bins]`, of whose weights 98 % are 0.

    The sparse product takes a third of the time of the dense one. It also uses no second BLAS thread, which the
    first has to wait for on a busy machine.
    """
    from librosa.filters import mel

    return scipy.sparse.csr_array(mel(sr=SAMPLING_RATE, n_fft=n_fft, n_mels=n_mels))
