"""Whisper's log-mel spectrogram, in the program of the model that reads it.

Equals transformers' WhisperFeatureExtractor, which computes in float64, to 1e-6. The quietest bins of a frame are a
hundred million times weaker than its loudest: a Fourier transform whose sums are float32 is wrong by 5e-5 there.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.pretrained.hub import without_warnings

WINDOW = 400  # samples of a frame, 25 ms
HOP = 160  # samples from one frame to the next, 10 ms
FLOOR = 1e-10  # of the power in a band
RANGE = 8.0  # decades below the loudest band of the utterance at which powers are cut
BINS = WINDOW // 2 + 1
EXACT_BITS = 9  # so many of a sample and of a factor make products of which a float32 can add 201 exactly


def log_mel(
    waveform: Float[Array, "batch samples"], valid: Bool[Array, "batch frames"], *, bands: int
) -> Float32[Array, "batch frames {bands}"]:
    """Computes log powers in mel bands; frames that are not valid are zeros, and change no others.

    Args:
      waveform: samples at 16 kHz, zeros behind an utterance's end; two frames or more.
      valid: the frames that belong to the utterance; frame i is centred on sample `HOP * i`.
      bands: mel bands, 80 or 128.
    """
    power = _power(_frames(waveform, valid.shape[1]))
    mel = jnp.matmul(power, jnp.asarray(_mel_filters(bands)), precision=lax.Precision.HIGHEST)
    log = jnp.log10(jnp.maximum(mel, FLOOR))
    loudest = jnp.where(valid[..., None], log, -jnp.inf).max(axis=(1, 2), keepdims=True)
    log = (jnp.maximum(log, loudest - RANGE) + 4.0) / 4.0
    return jnp.where(valid[..., None], log, 0.0)


def _frames(waveform: Float[Array, "batch samples"], frames: int) -> Float[Array, "batch {frames} 400"]:
    """Returns the frames of a waveform that is mirrored at both ends, as PyTorch's and librosa's centred frames."""
    half = WINDOW // 2
    padded = jnp.pad(waveform, ((0, 0), (half, half)), mode="reflect")
    step = WINDOW - 2 * HOP  # 80: a frame is five such blocks, and begins two behind the one before it
    needed = (2 * frames + 3) * step
    padded = jnp.pad(padded, ((0, 0), (0, max(needed - padded.shape[1], 0))))[:, :needed]
    blocks = padded.reshape(padded.shape[0], -1, step)
    return jnp.concatenate([blocks[:, i : i + 2 * frames - 1 : 2] for i in range(WINDOW // step)], axis=-1)


def _power(frames: Float[Array, "batch frames 400"]) -> Float[Array, "batch frames 201"]:
    """Returns the power spectrum of windowed frames.

    Cosines see the sums of samples that mirror each other in a frame, sines their differences: half of the products.
    """
    half = frames[..., :BINS]
    mirrored = jnp.pad(frames[..., : BINS - 1 : -1], ((0, 0), (0, 0), (1, 1)))  # of sample 0 and the middle one: none
    cosines, sines = _fourier()
    real, imaginary = _exact_product(half + mirrored, cosines), _exact_product(half - mirrored, sines)
    return real**2 + imaginary**2


def _exact_product(
    x: Float[Array, "batch frames 201"], factors: Float[np.ndarray, "201 201"]
) -> Float[Array, "batch frames 201"]:
    """Returns `x @ factors` as if it were summed in float64: the leading bits of both apart, whose sums are exact."""
    leading_factors = np.round(factors * 2**EXACT_BITS) / 2**EXACT_BITS
    _, exponent = jnp.frexp(jnp.abs(x).max(axis=-1, keepdims=True))
    unit = jnp.ldexp(jnp.float32(1.0), exponent - EXACT_BITS)
    leading = jnp.round(x / unit) * unit
    rest = jnp.concatenate([leading, x - leading], axis=-1)
    rest_factors = np.concatenate([factors - leading_factors, factors])
    product = [
        jnp.matmul(a, jnp.asarray(b, jnp.float32), precision=lax.Precision.HIGHEST)
        for a, b in ((leading, leading_factors), (rest, rest_factors))
    ]
    return product[0] + product[1]


@lru_cache(maxsize=1)
def _fourier() -> tuple[Float[np.ndarray, "201 201"], Float[np.ndarray, "201 201"]]:
    """Returns cosines and sines [sample, bin], times the window (a Hann window that begins with 0)."""
    sample, bin_ = np.arange(BINS)[:, None], np.arange(BINS)[None]
    angle = 2 * np.pi * (sample * bin_ % WINDOW) / WINDOW
    window = 0.5 - 0.5 * np.cos(2 * np.pi * sample / WINDOW)
    return np.cos(angle) * window, np.sin(angle) * window


@lru_cache
def _mel_filters(bands: int) -> Float32[np.ndarray, "201 {bands}"]:
    """Returns the weights of mel bands on Slaney's scale, each of area 1."""
    with without_warnings():
        from transformers.audio_utils import mel_filter_bank  # librosa's import takes 120 MB of memory

    weights = mel_filter_bank(BINS, bands, 0.0, SAMPLING_RATE / 2, SAMPLING_RATE, norm="slaney", mel_scale="slaney")
    return weights.astype(np.float32)
