"""A small source-filter speech synthesiser in numpy: the voices of the synthetic corpus.

A glottal pulse train (the KLGLOTT88 waveform, Klatt & Klatt, J. Acoust. Soc. Am. 87, 1990) and noise are
filtered, frame by frame, by a cascade of formant resonators and a spectral tilt, under the loudness of a
rhythm of syllables and pauses. Emotion enters through `express` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE

HOP = 160  # 10 ms
WINDOW = 3 * HOP  # a Hann window this long, shifted by a third of itself, adds up to 1.5 everywhere
N_FFT = 4 * HOP

# Formant frequencies of an adult male's vowels in hertz: a, e, i, o, u (after Peterson & Barney 1952).
VOWELS = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]], float)
HIGH_FORMANTS = (3500.0, 4500.0, 5500.0)
BANDWIDTHS = np.array([80.0, 100.0, 140.0, 220.0, 300.0, 400.0])
SYLLABLES_PER_SECOND = 5.0
SPEAKING_SHARE = 0.75  # of an utterance, at the usual syllable rate; the rest is pauses


@dataclass(frozen=True)
class Speaker:
    """A voice at rest."""

    pitch: float  # hertz
    formants: float  # factor on an adult male's formant frequencies
    level: float  # dB full scale, of the syllables
    tilt: float  # decibel per octave
    rate: float  # factor on SYLLABLES_PER_SECOND
    breath: float  # amplitude of the noise in the source


@dataclass(frozen=True)
class Expression:
    """How one utterance departs from its speaker's voice at rest."""

    pitch: float  # octaves
    pitch_range: float  # octaves, the standard deviation of the accents
    contour: float  # octaves that the pitch rises from the first to the last syllable
    level: float  # decibel
    tilt: float  # decibel per octave
    rate: float  # factor on the syllable rate
    formants: float  # factor on the formant frequencies
    smile: float  # factor on the second and third formant alone
    breath: float  # factor on the noise in the source
    roughness: float  # deviation of the period from pulse to pulse, relative


def draw_speaker(rng: np.random.Generator, gender: str) -> Speaker:
    """Draws a voice; `gender` is "F" or "M"."""
    female = gender == "F"
    return Speaker(
        pitch=(205.0 if female else 115.0) * 2 ** rng.normal(0, 0.13),
        formants=(1.16 if female else 1.0) * 2 ** rng.normal(0, 0.045),
        level=-36.0 + rng.normal(0, 1.5),
        tilt=-3.0 + rng.normal(0, 0.7),
        rate=2 ** rng.normal(0, 0.08),
        breath=0.05 * 2 ** rng.normal(0, 0.5),
    )


def express(
    rng: np.random.Generator, vad: Float[np.ndarray, " 3"], anger: float, joy: float, sorrow: float
) -> Expression:
    """Returns a random expression of an emotion: prosody and voice quality.

    Arousal moves pitch, its range, loudness and tempo; valence the spectral tilt and the contour; dominance
    loudness and formants. Beside these dimensions, anger roughens the voice, joy spreads the lips and sorrow
    lets breath through. `vad` is in standard deviations from the corpus mean; `anger`, `joy` and `sorrow` are
    from 0 to 1.
    """
    valence, arousal, dominance = (float(value) for value in vad)
    chance = rng.standard_normal(10)
    return Expression(
        pitch=0.20 * arousal + 0.24 * chance[0],
        pitch_range=0.13 * 2 ** (0.40 * arousal + 0.60 * chance[1]),
        contour=0.28 * valence + 0.25 * chance[2],
        level=1.8 * arousal + 1.6 * dominance + 3.0 * chance[3],
        tilt=1.2 * valence + 0.4 * arousal + 1.0 * chance[4],
        rate=2 ** (0.15 * arousal + 0.20 * chance[5]),
        formants=2 ** (-0.050 * dominance + 0.060 * chance[6]),
        smile=2 ** (0.085 * joy + 0.03 * chance[9]),
        breath=2 ** (2.2 * sorrow - 0.2 * arousal + 0.6 * chance[7]),
        roughness=0.006 * 2 ** (2.4 * anger + 0.6 * chance[8]),
    )


def synthesise(
    rng: np.random.Generator, speaker: Speaker, expression: Expression, vowels: Sequence[int], seconds: float
) -> Float32[np.ndarray, " samples"]:
    """Returns one utterance of `len(vowels)` syllables in `seconds` seconds at 16 kHz.

    `vowels` are rows of `VOWELS`. Syllables that do not fit at the expression's syllable rate are spoken faster. The
    remaining time is pause.
    """
    n_samples = round(seconds * SAMPLING_RATE)
    n_frames = -(-n_samples // HOP) + 3
    onset, length = _rhythm(rng, len(vowels), seconds, SYLLABLES_PER_SECOND * speaker.rate * expression.rate)
    time = np.arange(n_frames) * (HOP / SAMPLING_RATE)
    syllable = np.clip(np.searchsorted(onset, time, side="right") - 1, 0, len(vowels) - 1)
    position = (time - onset[syllable]) / length[syllable]
    inside = (position >= 0) & (position < 1)
    position = np.clip(position, 0, 1)

    # Loudness: one hump per syllable; its start is a consonant, voiceless in some syllables.
    accent = rng.standard_normal(len(vowels))
    loudness = np.sin(np.pi * position**0.7) ** 0.6 * 10 ** ((1.5 * accent[syllable]) / 20) * inside
    voiceless = (rng.random(len(vowels)) < 0.35)[syllable] & (position < 0.3) & inside
    voicing = np.where(voiceless, 0.0, 1.0)

    # Pitch: declination, the utterance's contour, accents, micro-prosody.
    through = time / max(seconds, 0.5)
    centre = onset + 0.5 * length
    octaves = (
        np.log2(speaker.pitch)
        + expression.pitch
        - 0.15 * through
        + expression.contour * (through - 0.5)
        + expression.pitch_range * np.interp(time, centre, accent)
        + 0.01 * rng.standard_normal(n_frames)
    )
    source = _source(rng, speaker, expression, 2 ** np.clip(octaves, 5.6, 9.3), voicing, n_samples)

    # The vocal tract glides from vowel to vowel.
    targets = VOWELS[np.asarray(vowels)] * 2 ** (0.04 * rng.standard_normal((len(vowels), 3)))
    glide = [np.interp(time, centre, targets[:, formant]) for formant in range(3)]
    glide += [np.full(n_frames, frequency) for frequency in HIGH_FORMANTS]
    formants = np.stack(glide, 1) * (speaker.formants * expression.formants)
    formants[:, 1:3] *= expression.smile
    tilt = np.where(voiceless, 0.0, speaker.tilt + expression.tilt)
    envelope = _vocal_tract(formants, tilt) * loudness[:, None].astype(np.float32)
    samples = _filter_frames(source, envelope)

    voiced_power = np.mean(np.square(samples)) * n_frames / max(1, inside.sum())
    level = speaker.level + expression.level
    samples *= 10 ** (level / 20) / np.sqrt(voiced_power + 1e-12)
    return samples.astype(np.float32)


def _rhythm(
    rng: np.random.Generator, n_syllables: int, seconds: float, rate: float
) -> tuple[Float[np.ndarray, " syllable"], Float[np.ndarray, " syllable"]]:
    """Returns the start and the length of each syllable in seconds."""
    length = 2 ** (0.25 * rng.standard_normal(n_syllables)) / rate
    length *= min(1.0, 0.97 * seconds / length.sum())
    # The remaining time goes before, behind and, about every eighth syllable, between the syllables.
    gap = np.where(rng.random(n_syllables + 1) < 1 / 8, rng.gamma(2.0, 0.5, n_syllables + 1), 0.0)
    gap[[0, -1]] = 0.2 + 0.2 * rng.random(2)
    gap *= (seconds - length.sum()) / gap.sum()
    onset = np.cumsum(gap[:-1]) + np.concatenate([[0.0], np.cumsum(length)[:-1]])
    return onset, length


def _source(
    rng: np.random.Generator,
    speaker: Speaker,
    expression: Expression,
    pitch: Float[np.ndarray, " frames"],
    voicing: Float[np.ndarray, " frames"],
    n_samples: int,
) -> Float32[np.ndarray, " samples"]:
    """Returns the excitation: pulses at `pitch` hertz where voiced, noise elsewhere, a little noise everywhere."""
    frame_of_sample = np.arange(n_samples) / HOP
    frames = np.arange(len(pitch))
    phase = np.cumsum(np.interp(frame_of_sample, frames, pitch)) / SAMPLING_RATE
    pulse = phase.astype(np.int64)
    irregular = rng.standard_normal(int(pulse[-1]) + 2)
    # Roughness shortens and lengthens single periods (jitter) and moves their strength (shimmer).
    opening = (phase - pulse) * (1 + expression.roughness * irregular[pulse]) / 0.6
    glottal = np.where(opening < 1, 2 * opening - 3 * opening**2, 0.0)
    glottal *= 1 + 6 * expression.roughness * irregular[pulse + 1]
    hiss = np.diff(rng.standard_normal(n_samples + 1, dtype=np.float32))  # rises by 6 dB per octave
    voiced = np.interp(frame_of_sample, frames, voicing)
    breath = min(0.6, speaker.breath * expression.breath)
    return (glottal * voiced + hiss * (breath * voiced + 0.4 * (1 - voiced))).astype(np.float32)


def _vocal_tract(
    formants: Float[np.ndarray, "frames formant"], tilt: Float[np.ndarray, " frames"]
) -> Float32[np.ndarray, "frames frequency"]:
    """Returns the gain of a cascade of two-pole resonators (1 at 0 Hz) and of a tilt in dB per octave.

    |1 - 2 r cos(theta) z^-1 + r^2 z^-2|^2 = (1 - 2 r cos(w - theta) + r^2) (1 - 2 r cos(w + theta) + r^2).
    """
    frequency = np.fft.rfftfreq(N_FFT, 1 / SAMPLING_RATE)
    omega = (2 * np.pi / SAMPLING_RATE) * frequency
    cos_omega, sin_omega = np.cos(omega).astype(np.float32), np.sin(omega).astype(np.float32)
    power = np.ones((len(formants), len(frequency)), np.float32)
    for centre, bandwidth in zip(formants.T, BANDWIDTHS, strict=True):
        radius = np.float32(np.exp(-np.pi * bandwidth / SAMPLING_RATE))
        theta = (2 * np.pi / SAMPLING_RATE) * np.minimum(centre, 7500.0)[:, None]
        cosine, sine = np.cos(theta).astype(np.float32), np.sin(theta).astype(np.float32)
        # (x - y)(x + y) with x = 1 + r^2 - 2 r cos(w) cos(theta), y = 2 r sin(w) sin(theta)
        x = 1 + radius**2 - 2 * radius * cosine * cos_omega
        y = 2 * radius * sine * sin_omega
        power *= (1 + radius**2 - 2 * radius * cosine) ** 2 / (x * x - y * y)
    octaves = np.log2(np.maximum(frequency, 100.0) / 500.0)
    decibel = (tilt[:, None] * octaves).astype(np.float32)
    return np.sqrt(power) * np.float32(10) ** (decibel / 20)


def _filter_frames(
    source: Float32[np.ndarray, " samples"], envelope: Float32[np.ndarray, "frames frequency"]
) -> Float32[np.ndarray, " samples"]:
    """Multiplies the short-time spectrum of `source` by `envelope` and overlaps and adds."""
    n_frames = len(envelope)
    padded = np.zeros((n_frames + 2) * HOP, np.float32)
    padded[HOP : HOP + len(source)] = source
    window = (np.hanning(WINDOW + 1)[:-1] / 1.5).astype(np.float32)
    margin = (N_FFT - WINDOW) // 2  # room for the filter to ring on both sides of the window
    frames = np.zeros((n_frames, N_FFT), np.float32)
    frames[:, margin : margin + WINDOW] = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * window
    filtered = np.fft.irfft(np.fft.rfft(frames) * envelope, N_FFT)
    hops = N_FFT // HOP
    blocks = np.zeros((n_frames + hops - 1, HOP), np.float32)
    for block in range(hops):
        blocks[block : block + n_frames] += filtered[:, block * HOP : (block + 1) * HOP]
    return blocks.ravel()[HOP + margin : HOP + margin + len(source)]
