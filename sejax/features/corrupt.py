"""Corruptions of speech at 16 kHz, by name: noise, rooms, telephones, loudness, and chains of them.

| spelling | |
|---|---|
| `noise:10`, `pink:10`, `brown:10` | white, pink (1/f) or brown (1/f^2) Gaussian noise, 10 dB below the speech |
| `noise:10@FOLDER` | a part of one of the audio files in a folder, drawn at random, 10 dB below the speech |
| `rir:0.6` | a room of random size whose sound decays by 60 dB in 0.6 s (`sejax.features.rooms`) |
| `rir@FOLDER` | one of the impulse responses in a folder, drawn at random |
| `telephone` | the band from 300 to 3,400 Hz, at 8 kHz |
| `mulaw` | 8 kHz, in 8 bits on the logarithmic scale of telephones |
| `gain:-20` | -20 dB; what exceeds full scale is clipped |
| `rir:0.6+noise:10` | one after the other: this noise is 10 dB below the speech in the room |

What is random depends on a key (of the utterance), on the corruption and on its place in the chain alone, not on the
folder's place. Duration and beginning of the speech stay: what is said is where it was. Silence stays silence.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
import soxr
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import WORDS, Check, InputError, number, shown
from sejax.features.audio import audio_seconds, load_audio
from sejax.features.files import audio_files
from sejax.features.rooms import random_room_response

LOWEST_NOISE_HERTZ = 20.0  # pink and brown noise have most of their power where nobody hears
TELEPHONE_RATE = 8000  # hertz
TELEPHONE_BAND = (300.0, 3400.0)  # hertz
MU = 255  # of the logarithmic scale
MU_LEVELS = 127  # above 0, and below
# The parts of a noise file that are tried until one is not silent.
_TRIES = 10

Samples = Float[np.ndarray, " samples"]


@dataclass(frozen=True)
class Link:
    """One corruption: a key of `KINDS`, and what it takes."""

    kind: str
    value: float | None = None
    folder: str = ""

    @property
    def drawn_by(self) -> str:
        """The spelling without the folder's place: what is random depends on it."""
        return self.kind + ("" if self.value is None else f":{_written(self.value)}") + ("@" if self.folder else "")

    def __str__(self) -> str:
        return self.drawn_by + self.folder


@dataclass(frozen=True)
class Corruption:
    """One or more corruptions, one after the other. `str` gives the spelling that `parse` reads."""

    links: tuple[Link, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of audio that it draws from, in order."""
        return tuple(link.folder for link in self.links if link.folder)

    @property
    def drawn_by(self) -> str:
        """The spelling without the places of folders."""
        return "+".join(link.drawn_by for link in self.links)

    def __str__(self) -> str:
        return "+".join(map(str, self.links))


def corrupt(samples: Float32[np.ndarray, " samples"], spec: Corruption, key: str) -> Float32[np.ndarray, " samples"]:
    """Returns corrupted speech, as long as it was. The same arguments give the same samples.

    Noise may exceed full scale, which is not clipped.

    Args:
      samples: at 16 kHz, full scale at -1 and 1.
      spec: what is done to them.
      key: of the utterance: others get other noise, rooms and files.

    Raises:
      InputError: a file of a folder cannot be used.
    """
    changed: Samples = samples
    for place, link in enumerate(spec.links):
        if np.ptp(changed) == 0:
            break
        seed = hashlib.blake2b(f"{place} {link.drawn_by} {key}".encode(), digest_size=16).digest()
        random = np.random.default_rng(int.from_bytes(seed))
        changed = KINDS[link.kind].apply(changed.astype(np.float64), link, random)
    return changed.astype(np.float32)


def parse(text: str) -> Corruption:
    """Returns the corruption of that spelling (see the module).

    Raises:
      InputError: the spelling is none.
    """
    parts = [part for joined in _JOINT.split(text) for part in ([joined] if "@" in joined else joined.split("+"))]
    return Corruption(tuple(_parse_link(part, text) for part in parts))


def parse_all(texts: Sequence[str]) -> tuple[Corruption, ...]:
    """Returns the corruptions of `config.corruptions`.

    Raises:
      InputError: a spelling is none, or two are of one corruption.
    """
    try:
        found = tuple(map(parse, texts))
    except InputError as error:
        raise InputError(f"config.corruptions: {error}") from error
    if len(set(found)) < len(found):
        raise InputError(f"config.corruptions is {shown(texts)}, expected each corruption once")
    return found


def files_of(folder: str) -> list[str]:
    """Returns the files that a folder's corruption draws from, sorted.

    Raises:
      InputError: there is no such folder, or no audio in it.
    """
    found = audio_files(os.path.expanduser(folder))
    if not found:
        raise InputError(f"{folder}: has no audio files in it, expected some (wav, flac, ogg, mp3 and the like)")
    return found


def _parse_link(part: str, text: str) -> Link:
    name, at, folder = part.partition("@")
    kind, colon, written = name.partition(":")
    place = f"the corruption is {shown(text)}" if part == text else f"the corruption {shown(text)} has {shown(part)}"
    if kind not in KINDS:
        raise InputError(f"{place}, expected one of {', '.join(KINDS)}, or several with + between")
    form = KINDS[kind]
    takes_value = form.value is not None and not (at and form.folder == "instead")
    if bool(colon) != takes_value or (at and not (form.folder and folder.strip() and "\0" not in folder)):
        raise InputError(f"{place}, expected {form.spelling}")
    if form.value is None or not takes_value:
        return Link(kind, None, folder)
    try:
        value = float(written) + 0.0  # -0 is 0
    except ValueError:
        raise InputError(f"{place}, expected {form.spelling}") from None
    if not form.value.holds(value):
        raise InputError(f"{place}, expected {form.spelling}: {form.value.expected}")
    return Link(kind, value, folder)


def _written(value: float) -> str:
    return repr(value).removesuffix(".0")


def add_noise(samples: Samples, noise: Samples, snr: float) -> Samples:
    """Returns speech with noise, `snr` decibels below it.

    Both are measured over the whole utterance, pauses included, as the variance of the samples: an offset is neither
    speech nor noise. (Measured over active speech alone, noise would be louder in an utterance with long pauses.)
    """
    power = np.var(samples) / np.var(noise)
    return samples + noise * np.sqrt(power / 10 ** (snr / 10))


def coloured_noise(n: int, exponent: float, random: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Returns Gaussian noise at 16 kHz whose power falls with the frequency to this exponent, from 20 Hz on."""
    size = scipy.fft.next_fast_len(n, real=True)
    spectrum = scipy.fft.rfft(random.standard_normal(size))
    hertz = scipy.fft.rfftfreq(size, 1 / SAMPLING_RATE)
    heard = hertz >= LOWEST_NOISE_HERTZ
    spectrum[heard] *= hertz[heard] ** (-exponent / 2)
    spectrum[~heard] = 0
    return scipy.fft.irfft(spectrum, size)[:n]


def reverberate(samples: Samples, response: Float[np.ndarray, " response"]) -> Samples:
    """Returns speech in a room: convolved, from the loudest sound of the response on, and as loud as it was."""
    loudest = int(np.argmax(np.abs(response)))
    there = scipy.signal.fftconvolve(samples, response)[loudest : loudest + len(samples)]
    return there * np.sqrt(np.var(samples) / np.var(there))


def to_mulaw(samples: Samples) -> Samples:
    """Returns samples rounded to 8 bits on a logarithmic scale, mu-law with mu = 255 (ITU-T G.711 approximates it).

    `F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)` is rounded to one of 127 levels above and below 0; 0 stays 0, and what
    exceeds full scale is clipped.
    """
    compressed = np.log1p(MU * np.minimum(np.abs(samples), 1)) / np.log1p(MU)
    return np.sign(samples) * np.expm1(np.rint(MU_LEVELS * compressed) / MU_LEVELS * np.log1p(MU)) / MU


def _coloured(exponent: float) -> "Apply":
    def apply(samples: Samples, link: Link, random: np.random.Generator) -> Samples:
        assert link.value is not None
        return add_noise(samples, coloured_noise(len(samples), exponent, random), link.value)

    return apply


def _white_or_recorded(samples: Samples, link: Link, random: np.random.Generator) -> Samples:
    if not link.folder:
        return _coloured(0.0)(samples, link, random)
    assert link.value is not None
    return add_noise(samples, _part_of_a_file(link.folder, len(samples), random), link.value)


def _part_of_a_file(folder: str, n: int, random: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Returns so many samples of a random file from a random place on; a shorter file is repeated."""
    path = _a_file(folder, random)
    with _names_folder(folder):
        lasts, wanted = audio_seconds(path), n / SAMPLING_RATE
        for start in random.uniform(0, max(0.0, lasts - wanted), _TRIES):
            try:
                part = load_audio(path, start=start, end=min(lasts, start + wanted)).samples
                break
            except InputError as error:  # it may be silent there
                refused = error
        else:
            raise refused
    return np.resize(part, n).astype(np.float64)


def _in_a_room(samples: Samples, link: Link, random: np.random.Generator) -> Samples:
    if link.value is not None:
        return reverberate(samples, random_room_response(link.value, random))
    with _names_folder(link.folder):
        response = load_audio(_a_file(link.folder, random)).samples
    return reverberate(samples, response.astype(np.float64))


def _a_file(folder: str, random: np.random.Generator) -> str:
    files = files_of(folder)
    return files[random.integers(len(files))]


@contextmanager
def _names_folder(folder: str) -> Iterator[None]:
    """Says in errors why a file was read that is none of the corpus."""
    try:
        yield
    except InputError as error:
        raise InputError(f"a corruption from {folder} cannot use a file: {error}") from error


def _telephone(samples: Samples, link: Link, random: np.random.Generator) -> Samples:
    band = scipy.signal.butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")

    def filtered(narrow: Samples) -> Samples:
        return scipy.signal.sosfiltfilt(band, narrow, padlen=min(27, len(narrow) - 1))

    return _at_8_khz(samples, filtered)


def _mulaw(samples: Samples, link: Link, random: np.random.Generator) -> Samples:
    return _at_8_khz(samples, to_mulaw)


def _at_8_khz(samples: Samples, change: Callable[[Samples], Samples]) -> Samples:
    """Changes samples at the rate of telephones; the length stays."""
    narrow = change(soxr.resample(samples, SAMPLING_RATE, TELEPHONE_RATE, quality="HQ"))
    wide = soxr.resample(narrow, TELEPHONE_RATE, SAMPLING_RATE, quality="HQ")[: len(samples)]
    return np.pad(wide, (0, len(samples) - len(wide)))


def _gain(samples: Samples, link: Link, random: np.random.Generator) -> Samples:
    assert link.value is not None
    return np.clip(samples * 10 ** (link.value / 20), -1, 1)


Apply = Callable[[Samples, Link, np.random.Generator], Samples]


@dataclass(frozen=True)
class Kind:
    """A kind of corruption.

    Attributes:
      apply: Changes samples in float64, which are not silent; the length stays.
      spelling: For errors.
      value: What its number may be; None if it takes none.
      folder: Whether a folder may be named: "" for no, "also" beside the number, "instead" of it.
    """

    apply: Apply
    spelling: str
    value: Check | None = None
    folder: str = ""


_SNR = number(-30, 60)  # dB
KINDS: Mapping[str, Kind] = {
    "noise": Kind(_white_or_recorded, "noise:SNR or noise:SNR@FOLDER, SNR in dB", _SNR, "also"),
    "pink": Kind(_coloured(1.0), "pink:SNR, SNR in dB", _SNR),
    "brown": Kind(_coloured(2.0), "brown:SNR, SNR in dB", _SNR),
    "rir": Kind(_in_a_room, "rir:RT60, RT60 in seconds, or rir@FOLDER", number(0.2, 2), "instead"),
    "telephone": Kind(_telephone, "telephone alone"),
    "mulaw": Kind(_mulaw, "mulaw alone"),
    "gain": Kind(_gain, "gain:DB", number(-60, 60)),
}
"""The corruptions by name."""

# A folder may have a + in its name.
_JOINT = re.compile(rf"\+(?=(?:{'|'.join(KINDS)})(?:[:@+]|$))")

_MOST = 16
CORRUPTIONS = Check(
    lambda texts: isinstance(texts, tuple) and all(map(WORDS.holds, texts)) and len(texts) <= _MOST,
    f"a tuple of up to {_MOST} corruptions, such as ('noise:10', 'rir:0.6')",
)
"""What `config.corruptions` may be, before it is parsed."""
