import time
from pathlib import Path

import numpy as np
import pytest

from sejax.errors import InputError
from sejax.features.stf import STF_NAMES, stf
from tools import golden_stf

RATE = 16_000
GOLDEN = Path(__file__).parents[1] / "golden" / "stf_pyaudioanalysis.npz"


def column(name: str) -> int:
    return STF_NAMES.index(name)


def sine(hertz: float, seconds: float = 0.3, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def noise(seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(seconds * RATE)).astype(np.float32)


def test_names() -> None:
    assert len(STF_NAMES) == len(set(STF_NAMES)) == 68
    with np.load(GOLDEN) as golden:
        theirs = [name.replace("delta ", "delta_") for name in golden["names"]]
    assert list(STF_NAMES) == theirs


@pytest.mark.parametrize("name", list(golden_stf.signals()))
@pytest.mark.parametrize(("win_length", "hop_length"), golden_stf.WINDOWS)
def test_the_variant_pyaudioanalysis_is_that_librarys_output(name: str, win_length: int, hop_length: int) -> None:
    with np.load(GOLDEN) as golden:
        samples, theirs = golden[f"{name}_samples"], golden[f"{name}_{win_length}_{hop_length}"]
    ours = stf(
        (samples / 32768).astype(np.float32),
        variant="pyaudioanalysis",
        win_length=win_length,
        hop_length=hop_length,
    )
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_the_golden_file_is_what_its_tool_writes() -> None:
    """The signals are remade; the features need the other library."""
    with np.load(GOLDEN) as golden:
        assert any(version.startswith("pyAudioAnalysis ") for version in golden["versions"])
        for name, samples in golden_stf.signals().items():
            # Functions of the machine's mathematical library may round otherwise.
            assert np.abs(golden[f"{name}_samples"].astype(int) - samples).max() <= 1
    assert GOLDEN.stat().st_size < 300_000

    def library(samples: np.ndarray, rate: int, window: int, step: int) -> tuple[np.ndarray, list[str]]:
        return np.zeros((68, 3)), ["zcr"]

    arrays = golden_stf.golden(library)
    assert arrays["sine_400_160"].shape == (3, 68)


def test_the_tool_says_what_it_lacks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="1"):
        golden_stf.main(["--out", str(tmp_path / "golden.npz")])
    assert "pyAudioAnalysis is not installed here" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["standard", "pyaudioanalysis"])
def test_frames_are_not_centred(variant: str) -> None:
    for n, frames in ((400, 1), (559, 1), (560, 2), (16_000, 98)):
        assert stf(noise(2)[:n], variant=variant).shape == (frames, 68)
    # A click in the very last sample of frame 3 is in frame 3, and in the later ones that hold it.
    samples = np.zeros(RATE // 10, np.float32)
    samples[3 * 160 + 399] = 1
    energy = stf(samples, variant=variant)[:, column("energy")]
    assert energy[3] > 100 * energy[2]


def test_a_sine_of_1_khz_in_closed_form() -> None:
    features = stf(sine(1000))

    def value(name: str) -> np.ndarray:
        return features[:, column(name)]

    # 25 periods to a window: 49 or 50 sign changes, and half of one where a sample is exactly 0.
    np.testing.assert_allclose(value("zcr"), 2 * 1000 / RATE, rtol=0.02)
    np.testing.assert_allclose(value("energy"), 0.5, rtol=1e-3)
    np.testing.assert_allclose(value("energy_entropy"), np.log2(10), rtol=1e-3)
    np.testing.assert_allclose(value("spectral_centroid"), 1000 / 8000, rtol=1e-3)
    np.testing.assert_allclose(value("spectral_spread"), 0, atol=1e-3)
    np.testing.assert_allclose(value("spectral_entropy"), 0, atol=1e-3)
    np.testing.assert_allclose(value("spectral_flux"), 0, atol=1e-6)
    np.testing.assert_allclose(value("spectral_rolloff"), 1000 / 8000, rtol=1e-6)
    # 12 log2(1000 / 27.5) = 62.2, and 62 mod 12 = 2: B.
    chroma = features[:, column("chroma_1") : column("chroma_std")]
    np.testing.assert_allclose(chroma, np.broadcast_to(np.eye(12)[2], chroma.shape), atol=1e-5)
    np.testing.assert_allclose(value("chroma_std"), np.sqrt(11) / 12, rtol=1e-4)
    deltas = np.delete(features[:, 34:], [column(f"mfcc_{i}") for i in range(1, 14)], axis=1)
    np.testing.assert_allclose(deltas, 0, atol=3e-3)


@pytest.mark.parametrize(
    ("hertz", "pitch_class"),
    [(440, 0), (480, 2), (520, 3), (560, 4), (600, 5), (680, 8), (720, 9), (760, 9), (800, 10), (840, 11)],
)
def test_pitch_classes(hertz: int, pitch_class: int) -> None:
    """All are bins of a 25 ms window; A is 0, C is 3."""
    chroma = stf(sine(hertz))[0, column("chroma_1") : column("chroma_std")]
    assert chroma.argmax() == pitch_class
    assert chroma[pitch_class] == pytest.approx(1, abs=1e-4)


def test_white_noise_in_closed_form() -> None:
    features = stf(noise(20)).mean(axis=0)
    assert features[column("zcr")] == pytest.approx(0.5, abs=0.01)
    assert features[column("spectral_centroid")] == pytest.approx(0.5, abs=0.01)
    # Of a uniform distribution over 0 to 1.
    assert features[column("spectral_spread")] == pytest.approx(np.sqrt(1 / 12), abs=0.01)
    assert features[column("spectral_rolloff")] == pytest.approx(0.9, abs=0.01)
    assert features[column("spectral_entropy")] == pytest.approx(np.log2(10), abs=0.05)
    chroma = features[column("chroma_1") : column("chroma_std")]
    assert chroma.sum() == pytest.approx(1, abs=0.01)


def test_mfcc_filters_sit_at_their_frequencies() -> None:
    """A sine at the centre of filter k has the cepstrum of a spectrum whose only entry is k.

    The first 13 cepstra see a peak at filter k as a cosine; its phase gives k back.
    """
    centres = np.concatenate((133.33 + 200 / 3 * np.arange(1, 13), 933.33 * 1.0711703 ** np.arange(1, 29)))
    for hertz in (400, 1000, 2000, 4000):
        cepstrum = stf(sine(hertz))[0, column("mfcc_1") : column("mfcc_13") + 1]
        basis = np.cos(np.pi * np.outer(np.arange(13), np.arange(40) + 0.5) / 40)
        smoothed = basis[1:].T @ cepstrum[1:]
        nearest = int(np.abs(centres - hertz).argmin())
        assert abs(int(smoothed.argmax()) - nearest) <= 1
    # The library's own sit at half their frequency: 1 kHz lies in what was meant for 2 kHz.
    cepstrum = stf(sine(1000), variant="pyaudioanalysis")[0, column("mfcc_1") : column("mfcc_13") + 1]
    assert abs(int((basis[1:].T @ cepstrum[1:]).argmax()) - int(np.abs(centres - 2000).argmin())) <= 1


def test_against_the_definitions_frame_by_frame() -> None:
    """`standard` against a plain loop over frames."""
    samples = (noise(0.2) + sine(700, 0.2) * np.linspace(0, 4, 3200)).astype(np.float32)
    signal = samples.astype(np.float64) - samples.astype(np.float64).mean()
    signal /= np.abs(signal).max() + 1e-10
    features, window = stf(samples), 400
    hertz = np.arange(201) * 40.0
    previous = None
    for frame, start in enumerate(range(0, 3200 - window + 1, 160)):
        x = signal[start : start + window]
        magnitude = np.abs(np.fft.rfft(x))
        power = magnitude**2
        share = (x.reshape(10, 40) ** 2).sum(axis=1) / (x**2).sum()
        centroid = (hertz * magnitude).sum() / magnitude.sum()
        normalised = magnitude / magnitude.sum()
        blocks = power[:200].reshape(10, 20).sum(axis=1) / power.sum()
        chroma = np.zeros(12)
        for k in range(1, 201):
            chroma[round(12 * np.log2(hertz[k] / 27.5)) % 12] += power[k] / power.sum()
        expected = {
            "zcr": np.abs(np.diff(np.sign(x))).sum() / 2 / 399,
            "energy": (x**2).sum() / 400,
            "energy_entropy": -(share * np.log2(share)).sum(),
            "spectral_centroid": centroid / 8000,
            "spectral_spread": np.sqrt(((hertz - centroid) ** 2 * normalised).sum()) / 8000,
            "spectral_entropy": -(blocks * np.log2(blocks)).sum(),
            "spectral_flux": 0 if previous is None else ((normalised - previous) ** 2).sum(),
            "spectral_rolloff": np.flatnonzero(np.cumsum(power) > 0.9 * power.sum())[0] / 200,
            "chroma_std": chroma.std(),
            **{f"chroma_{i + 1}": chroma[i] for i in range(12)},
        }
        for name, value in expected.items():
            assert features[frame, column(name)] == pytest.approx(value, rel=1e-5, abs=1e-7), (name, frame)
        previous = normalised


@pytest.mark.parametrize("variant", ["standard", "pyaudioanalysis"])
def test_deltas_are_differences_to_the_frame_before(variant: str) -> None:
    features = stf(noise(), variant=variant)
    assert (features[0, 34:] == 0).all()
    np.testing.assert_allclose(features[1:, 34:], np.diff(features[:, :34], axis=0), atol=1e-5)


@pytest.mark.parametrize("variant", ["standard", "pyaudioanalysis"])
@pytest.mark.parametrize("win_length", [20, 96, 160, 199, 200, 401, 1024])
def test_every_window_gives_finite_features_of_silence_too(variant: str, win_length: int) -> None:
    """10 ms at 16 kHz included, where the library fails."""
    for samples in (noise(0.2), np.zeros(3200, np.float32), np.eye(1, 3200, 1600, dtype=np.float32)[0]):
        features = stf(samples, variant=variant, win_length=win_length)
        assert features.shape == (1 + (3200 - win_length) // 160, 68)
        assert np.isfinite(features).all()
    # Loudness and offset do not count.
    scaled = stf(np.float32(0.1) * noise(0.2) + np.float32(0.3), variant=variant, win_length=win_length)
    np.testing.assert_allclose(scaled, stf(noise(0.2), variant=variant, win_length=win_length), atol=2e-2, rtol=1e-3)


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="variant is 'Standard', expected one of"):
        stf(noise(), variant="Standard")
    with pytest.raises(InputError, match="the signal has 399 samples, expected at least a window of 400"):
        stf(noise()[:399])
    with pytest.raises(InputError, match="win_length is 19, expected 20 samples or more"):
        stf(noise(), win_length=19)


def test_four_seconds_take_milliseconds() -> None:
    """pyAudioAnalysis takes 250 ms and more; a loaded machine is allowed for."""
    samples = noise(4)
    stf(samples)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        stf(samples)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.06
