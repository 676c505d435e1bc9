"""Corruptions: their spellings, and what they do in closed form."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sejax.errors import InputError
from sejax.features.corrupt import KINDS, Corruption, Link, corrupt, parse, to_mulaw

RATE = 16_000
SPEECH = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * np.float32(0.05)
SPEECH[4000:8000] = 0  # a pause
EVERY = ("noise:10", "pink:5", "brown:0", "rir:0.3", "telephone", "mulaw", "gain:-20", "rir:0.2+noise:10+gain:6")


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.var(samples, dtype=np.float64)))


def band_power(samples: np.ndarray, low: float, high: float) -> float:
    """The mean power of the frequencies of a band, in dB."""
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return float(10 * np.log10(spectrum[(hertz >= low) & (hertz < high)].mean()))


# ---------------------------------------------------------------------------------------------------- spelling

_NUMBERS = {name: kind.value for name, kind in KINDS.items() if kind.value is not None}
_FOLDERS = st.text("abz/+@.: -_0", min_size=1).filter(lambda x: x.strip() and not re.search(r"\+(\w|$)", x))


@st.composite
def links(draw: st.DrawFn) -> Link:
    kind = draw(st.sampled_from(sorted(KINDS)))
    value = draw(st.floats(0.25, 1.9) if kind == "rir" else st.floats(-20, 40)) if kind in _NUMBERS else None
    if KINDS[kind].folder == "also" and draw(st.booleans()):
        return Link(kind, value, draw(_FOLDERS))
    if KINDS[kind].folder == "instead" and draw(st.booleans()):
        return Link(kind, None, draw(_FOLDERS))
    return Link(kind, value)


@given(st.lists(links(), min_size=1, max_size=4))
def test_what_is_spelled_is_read_again(chain: list[Link]):
    corruption = Corruption(tuple(chain))
    assert parse(str(corruption)) == corruption


@given(st.one_of(st.text(), st.text("noisepkrgatlmuwb:+@-.019/ ")))
def test_every_spelling_is_read_or_refused_by_a_sentence(text: str):
    try:
        corruption = parse(text)
    except InputError as error:
        assert re.search(r"the corruption .+, expected [^\n]+[^.\n]$", str(error))
    else:
        assert parse(str(corruption)) == corruption


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nois:5", "the corruption is 'nois:5', expected one of noise, pink, brown, rir, telephone, mulaw, gain, or"),
        ("rir:0.6+nois:5", "the corruption 'rir:0.6+nois:5' has 'nois:5', expected one of noise, pink"),
        ("noise", "the corruption is 'noise', expected noise:SNR or noise:SNR@FOLDER, SNR in dB"),
        (
            "noise:nan",
            "the corruption is 'noise:nan', expected noise:SNR or noise:SNR@FOLDER, SNR in dB: a number from",
        ),
        ("pink:5@/a", "the corruption is 'pink:5@/a', expected pink:SNR, SNR in dB"),
        ("rir:9", "the corruption is 'rir:9', expected rir:RT60, RT60 in seconds, or rir@FOLDER: a number from 0.2 to"),
        ("rir:0.3@/a", "the corruption is 'rir:0.3@/a', expected rir:RT60, RT60 in seconds, or rir@FOLDER"),
        ("telephone:8", "the corruption is 'telephone:8', expected telephone alone"),
        ("noise:10+", "the corruption 'noise:10+' has '', expected one of"),
    ],
)
def test_a_wrong_spelling_is_refused(text: str, sentence: str):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        parse(text)


# ------------------------------------------------------------------------------------------- what all have in common


@pytest.mark.parametrize("text", EVERY)
def test_a_corruption_is_a_function_of_samples_spelling_and_key(text: str):
    given, spec = SPEECH.copy(), parse(text)
    found = corrupt(given, spec, "a")
    assert_array_equal(given, SPEECH)
    assert found.dtype == np.float32
    assert found.shape == SPEECH.shape
    assert np.isfinite(found).all()
    assert np.abs(found - SPEECH).max() > 1e-4
    assert_array_equal(corrupt(SPEECH, parse(text), "a"), found)
    random = any(name in text for name in ("noise", "pink", "brown", "rir"))
    assert np.array_equal(corrupt(SPEECH, spec, "b"), found) != random


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_stays_silence(text: str, level: float):
    silence = np.full(1000, level, np.float32)
    assert_array_equal(corrupt(silence, parse(text), "a"), silence)


# ------------------------------------------------------------------------------------------------------- each one


@pytest.mark.parametrize("snr", [20.0, 0.0, -7.5])
@pytest.mark.parametrize("kind", ["noise", "pink", "brown"])
def test_noise_is_as_far_below_the_speech_as_asked_for(kind: str, snr: float):
    shifted = SPEECH + np.float32(0.1)  # an offset is no speech
    noise = corrupt(shifted, parse(f"{kind}:{snr}"), "a") - shifted
    assert_allclose(power_db(SPEECH) - power_db(noise), snr, atol=1e-3)


@pytest.mark.parametrize(("kind", "per_octave"), [("noise", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_the_power_of_noise_falls_with_the_frequency_as_its_colour_says(kind: str, per_octave: float):
    long = np.tile(SPEECH, 20)
    noise = corrupt(long, parse(f"{kind}:0"), "a") - long
    octaves = [band_power(noise, low, 2 * low) for low in (125, 250, 500, 1000, 2000)]
    assert_allclose(np.diff(octaves), per_octave, atol=0.4)
    assert band_power(noise, 0, 19) < octaves[0] - 40


def test_a_telephone_has_the_band_of_telephones():
    found = corrupt(SPEECH, parse("telephone"), "a")
    loss = {low: band_power(found, low, high) - band_power(SPEECH, low, high) for low, high in _BANDS}
    assert loss[50] < -60
    assert abs(loss[500]) < 0.3
    assert abs(loss[2500]) < 1.0
    assert loss[4200] < -60
    time = np.arange(-100, 101)
    lag = time[np.argmax([np.dot(np.roll(SPEECH, shift), found) for shift in time])]
    assert lag == 0


_BANDS = [(50, 120), (500, 2500), (2500, 3200), (4200, 8000)]


def test_mulaw_rounds_to_255_levels_that_are_dense_near_zero():
    tone = (0.9 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)).astype(np.float32)
    found = to_mulaw(tone.astype(np.float64))
    assert len(np.unique(np.rint(found * 1e9))) <= 255
    # Half a step of F(x) = ln(1 + 255 |x|) / ln(256), whose slope at x is 255 / ((1 + 255 |x|) ln 256).
    half = 0.5 / 127 * np.log(256) * (1 + 255 * np.abs(tone)) / 255
    assert (np.abs(found - tone) <= 1.03 * half).all()
    assert_allclose(to_mulaw(np.array([0.0, 1.0, -1.0, 7.0])), [0.0, 1.0, -1.0, 1.0], rtol=1e-15)
    quantised = corrupt(tone, parse("mulaw"), "a")[200:-200] - tone[200:-200]
    assert 30 < power_db(tone) - power_db(quantised) < 45  # of G.711: about 38 dB


def test_gain_clips_at_full_scale():
    assert_allclose(corrupt(SPEECH, parse("gain:-20"), "a"), SPEECH / 10, rtol=1e-6)
    loud = corrupt(SPEECH, parse("gain:30"), "a")
    assert np.abs(loud).max() == 1
    assert_allclose(loud, np.clip(SPEECH * 10**1.5, -1, 1), rtol=1e-6)


def test_a_chain_does_one_after_the_other():
    """And the noise in a room is as far below the speech in that room."""
    room = corrupt(SPEECH, parse("rir:0.3"), "a")
    noise = corrupt(SPEECH, parse("rir:0.3+pink:5"), "a") - room
    assert_allclose(power_db(room) - power_db(noise), 5, atol=1e-3)
    assert_allclose(power_db(room), power_db(SPEECH), atol=1e-3)


# -------------------------------------------------------------------------------------------------------- folders


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")


def test_noise_from_a_folder_is_a_part_of_one_of_its_files(tmp_path: Path):
    pulses = {name: np.zeros(5 * RATE) for name in ("a", "b")}
    pulses["a"][::100], pulses["b"][::160] = 0.5, 0.5
    for name, samples in pulses.items():
        write(tmp_path / "noises" / "deep" / f"{name}.wav", samples)
    (tmp_path / "noises" / "LICENSE.txt").write_text("no audio")
    spec = parse(f"noise:5@{tmp_path}/noises")
    heard, places = set(), set()
    for key in map(str, range(12)):
        noise = corrupt(SPEECH, spec, key) - SPEECH
        assert_allclose(power_db(SPEECH) - power_db(noise), 5, atol=1e-3)
        at = np.flatnonzero(noise > noise.max() / 2)
        heard.add(int(np.diff(at)[0]))
        places.add(int(at[0]))
        assert len(set(np.diff(at))) == 1
    assert heard == {100, 160}
    assert len(places) > 4
    (tmp_path / "noises").rename(tmp_path / "moved")
    assert_array_equal(corrupt(SPEECH, parse(f"noise:5@{tmp_path}/moved"), "11") - SPEECH, noise)


def test_a_short_noise_is_repeated_and_a_silent_part_is_not_taken(tmp_path: Path):
    write(tmp_path / "short" / "a.wav", np.sin(np.arange(800.0)))
    noise = corrupt(SPEECH, parse(f"noise:0@{tmp_path}/short"), "a") - SPEECH
    assert_allclose(noise[:800], noise[800:1600], atol=1e-6)
    half_silent = np.zeros(20 * RATE)
    half_silent[: 10 * RATE] = 0.1 * np.sin(np.arange(10.0 * RATE))
    write(tmp_path / "half" / "a.wav", half_silent)
    for key in map(str, range(8)):
        noise = corrupt(SPEECH, parse(f"noise:0@{tmp_path}/half"), key) - SPEECH
        assert_allclose(power_db(noise), power_db(SPEECH), atol=1e-3)


def test_a_response_from_a_folder_is_convolved_from_its_loudest_sample_on(tmp_path: Path):
    response = np.zeros(600)
    response[[30, 50, 400]] = 0.1, 0.8, -0.4
    write(tmp_path / "a.wav", response)
    found = corrupt(SPEECH, parse(f"rir@{tmp_path}"), "a")
    expected = 0.8 * SPEECH.astype(float)
    expected[350:] -= 0.4 * SPEECH[:-350]
    expected[:-20] += 0.1 * SPEECH[20:]
    assert_allclose(found, expected * SPEECH.std() / expected.std(), atol=1e-5)


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"none: cannot be listed \(No such file or directory\), expected a folder"):
        corrupt(SPEECH, parse(f"noise:5@{tmp_path}/none"), "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: has no audio files in it, expected some"):
        corrupt(SPEECH, parse(f"rir@{tmp_path}/empty"), "a")
    write(tmp_path / "silent" / "a.wav", np.zeros(3 * RATE))
    for text in ("noise:5", "rir"):
        with pytest.raises(InputError, match=r"a corruption from .*silent cannot use a file: .*a\.wav: is silent"):
            corrupt(SPEECH, parse(f"{text}@{tmp_path}/silent"), "a")
