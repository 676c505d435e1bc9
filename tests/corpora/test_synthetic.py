"""The synthetic corpus: its statistics, its sound, and how it is written to disk."""

import itertools
import math
import os
import signal
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path

import librosa
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from tiny_study import ROOT, environment

from sejax.corpora.read import read_corpus
from sejax.corpora.readers.iemocap import SYNTHETIC_MARKER, iemocap_shape
from sejax.corpora.schema import Corpus
from sejax.corpora.synthetic import voice
from sejax.corpora.synthetic.turns import SyntheticTurn, plan_turns, recordings
from sejax.corpora.synthetic.write import UTTERANCES_PER_PROCESS, prepare_synthetic, speak_turn, write_synthetic
from sejax.errors import InputError

CLASS_OF_CODE = {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ccc(a: np.ndarray, b: np.ndarray) -> float:
    covariance = np.mean((a - a.mean()) * (b - b.mean()))
    return float(2 * covariance / (a.var() + b.var() + (a.mean() - b.mean()) ** 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "deep" / "corpus"
    write_synthetic(str(path), fraction=0.02, seed=0)
    return path


@pytest.fixture(scope="module")
def corpus(folder) -> Corpus:
    return read_corpus("synthetic", str(folder))


@pytest.fixture(scope="module")
def full_plan() -> tuple[SyntheticTurn, ...]:
    return plan_turns(1.0, seed=0)


# ---- what is written


def test_the_reader_finds_every_speaker_and_class(corpus):
    assert corpus.name == "synthetic"
    assert corpus.classes == ("angry", "happy", "sad", "neutral")
    assert 105 <= len(corpus.utterances) <= 115
    counts = Counter((utterance.speaker, utterance.label) for utterance in corpus.utterances)
    for speaker, facts in iemocap_shape()["speakers"].items():
        for label, count in facts["counts"].items():
            assert counts[speaker, label] == max(1, round(0.02 * count))
    assert {utterance.gender for utterance in corpus.utterances} == {"F", "M"}
    assert {utterance.session for utterance in corpus.utterances} == {f"Ses0{i}" for i in range(1, 6)}
    assert {utterance.corpus for utterance in corpus.utterances} == {"synthetic"}
    assert corpus.dropped == ()
    assert not any("not a full release" in note for note in corpus.notes)


def test_votes_agree_with_the_labels(corpus):
    for utterance in corpus.utterances:
        assert utterance.distribution is not None
        assert max(utterance.distribution, key=utterance.distribution.__getitem__) == utterance.label
        assert sum(utterance.distribution.values()) == pytest.approx(1)
    assert any(max(utterance.distribution.values()) < 1 for utterance in corpus.utterances)


def test_audio_is_16_khz_mono_pcm16_of_the_stated_length(corpus):
    for utterance in corpus.utterances:
        with wave.open(utterance.path) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert utterance.duration == pytest.approx(len(samples) / 16_000, abs=1e-4)
        assert 200 < np.abs(samples).max() < 32_767  # heard, not clipped


def test_schemes_have_something_to_filter(folder, corpus):
    sizes = {
        scheme: len(read_corpus("synthetic", str(folder), labels=scheme).utterances)
        for scheme in ("four", "four_hap", "four_exc", "four_improvised", "five", "six", "soft")
    }
    assert sizes["four"] == len(corpus.utterances)
    assert sizes["four_hap"] < sizes["four"] and sizes["four_exc"] < sizes["four"]
    assert 0.3 < sizes["four_improvised"] / sizes["four"] < 0.7
    assert sizes["five"] == sizes["six"] > sizes["four"]
    assert sizes["soft"] > sizes["four"]


def test_it_reads_as_a_release_tree_and_not_as_iemocap(folder):
    release = str(folder / "IEMOCAP_full_release")
    assert read_corpus("synthetic", release) == read_corpus("synthetic", str(folder))
    for data_dir in (release, str(folder)):
        with pytest.raises(InputError, match="holds the synthetic corpus, not IEMOCAP"):
            read_corpus("iemocap", data_dir)
    with pytest.raises(InputError, match=f"{SYNTHETIC_MARKER} is missing"):
        read_corpus("synthetic", str(folder / "IEMOCAP_full_release" / "Session1"))


# ---- how it is written


def test_writing_again_changes_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_synthetic(str(folder) + "/", fraction=0.02, seed=0, workers=2)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.parametrize(("fraction", "seed"), [(0.03, 0), (0.02, 1)])
def test_other_settings_are_refused(folder, fraction, seed):
    with pytest.raises(InputError) as caught:
        write_synthetic(str(folder), fraction=fraction, seed=seed)
    assert f'"fraction": {fraction}, "seed": {seed}' in str(caught.value)
    assert '"fraction": 0.02, "seed": 0' in str(caught.value)


def test_foreign_content_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is no synthetic corpus"):
        write_synthetic(str(tmp_path), fraction=0.02, seed=0)
    with pytest.raises(InputError, match="exists and is no synthetic corpus"):
        write_synthetic(str(tmp_path / "thesis.txt"), fraction=0.02, seed=0)
    with pytest.raises(InputError, match="no folder can be made in"):
        write_synthetic(str(tmp_path / "thesis.txt" / "corpus"), fraction=0.02, seed=0)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fraction": 0.0, "seed": 0}, "fraction is 0.0"),
        ({"fraction": 1.5, "seed": 0}, "fraction is 1.5"),
        ({"fraction": math.nan, "seed": 0}, "fraction is nan"),
        ({"fraction": 0.1, "seed": -1}, "seed is -1"),
        ({"fraction": 0.1, "seed": 0, "workers": 0}, "workers is 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        write_synthetic(str(tmp_path / "corpus"), **settings)


# Writes the corpus of seed 0 to a folder, and sends itself a signal as it opens its `number`-th audio file.
WRITER = """
import os, signal, sys

opened = []

def count(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".wav"):
        opened.append(arguments[0])
        if len(opened) == number:
            os.kill(os.getpid(), getattr(signal, name))

folder, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
from sejax.corpora.synthetic.write import write_synthetic
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(count)
write_synthetic(folder, fraction=0.02, seed=0, workers=1)
"""


def start_writer(folder: Path, signal_name: str, number: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WRITER, str(folder), signal_name, str(number)]
    return subprocess.Popen(arguments, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def test_an_interrupted_write_leaves_nothing(tmp_path):
    _, errors = start_writer(tmp_path / "corpus", "SIGINT", 4).communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == []


def test_a_killed_write_leaves_nothing_that_is_read(tmp_path, folder):
    writer = start_writer(tmp_path / "corpus", "SIGKILL", 4)
    writer.communicate(timeout=120)
    assert writer.returncode == -signal.SIGKILL
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith("corpus.partial-")
    assert list(partial.rglob("*.wav"))
    with pytest.raises(InputError, match=f"{SYNTHETIC_MARKER} is missing"):
        read_corpus("synthetic", str(partial))
    write_synthetic(str(tmp_path / "corpus"), fraction=0.02, seed=0)
    assert contents(tmp_path / "corpus") == contents(folder)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_writers_at_once_leave_one_corpus(tmp_path, folder, seed):
    """A writer is stopped in the middle, another one finishes, and the first one goes on."""
    path = tmp_path / "corpus"
    writer = start_writer(path, "SIGSTOP", 4)
    try:
        _, status = os.waitpid(writer.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert not path.exists()
        write_synthetic(str(path), fraction=0.02, seed=seed)
        before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    finally:
        writer.send_signal(signal.SIGCONT)
    _, errors = writer.communicate(timeout=120)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert os.listdir(tmp_path) == ["corpus"]
    if seed == 0:
        assert writer.returncode == 0
        assert contents(path) == contents(folder)
    else:
        assert writer.returncode == 1
        assert '"seed": 1}, expected {' in errors


def test_an_empty_folder_is_filled_and_processes_make_no_difference(tmp_path):
    assert len(plan_turns(0.04, 0)) >= UTTERANCES_PER_PROCESS  # enough for two processes
    (tmp_path / "two").mkdir()
    write_synthetic(str(tmp_path / "two"), fraction=0.04, seed=0, workers=2)
    write_synthetic(str(tmp_path / "one"), fraction=0.04, seed=0, workers=1)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_the_corpus_is_prepared_in_data_dir_or_below_cache_dir(tmp_path, folder):
    settings = {"fraction": 0.02, "seed": 0}
    assert prepare_synthetic(str(folder), str(tmp_path), settings) == str(folder)
    assert os.listdir(tmp_path) == []
    written = prepare_synthetic("", str(tmp_path), settings)
    assert written == str(tmp_path / "synthetic-0.02-0")
    assert contents(Path(written)) == contents(folder)


# ---- the plan, at full size


def test_the_full_corpus_has_the_published_counts(full_plan):
    turns = [turn for turn in full_plan if turn.code in CLASS_OF_CODE]
    assert len(turns) == 5531
    shape = iemocap_shape()
    speaker = {turn.id: turn.id[:5] + turn.id[-4] for turn in turns}
    counts = Counter((speaker[turn.id], CLASS_OF_CODE[turn.code]) for turn in turns)
    scripted = Counter(speaker[turn.id] for turn in turns if "_script" in turn.id)
    for name, facts in shape["speakers"].items():
        assert {label: counts[name, label] for label in shape["classes"]} == facts["counts"]
        assert scripted[name] == facts["scripted"]
    seconds = sum(turn.end - turn.start for turn in turns)
    assert seconds == pytest.approx(25_160, rel=0.03)
    codes = Counter(turn.code for turn in full_plan)
    assert codes["hap"] / 1636 == pytest.approx(595 / 1636, abs=0.04)
    assert 250 < codes["fru"] < 300 and 250 < codes["xxx"] < 300


def test_vad_has_the_published_means_and_covariances(full_plan):
    shape = iemocap_shape()
    looked_up, rated = [], []
    for name, facts in shape["by_class"].items():
        vad = np.array([turn.vad for turn in full_plan if CLASS_OF_CODE.get(turn.code) == name])
        np.testing.assert_allclose(vad.mean(axis=0), facts["vad_mean"], atol=0.05)
        np.testing.assert_allclose(np.cov(vad.T), facts["vad_cov"], atol=0.06)
        looked_up.append(np.tile(vad.mean(axis=0), (len(vad), 1)))
        rated.append(vad)
    # What the class alone says about VAD is what it says in IEMOCAP.
    for index, expected in enumerate(shape["class_mean_lookup_ccc_with_true_class"].values()):
        found = ccc(np.concatenate(looked_up)[:, index], np.concatenate(rated)[:, index])
        assert found == pytest.approx(expected, abs=0.03)


def test_vad_is_the_mean_of_two_or_three_raters_on_the_integer_grid(full_plan):
    for turn in full_plan[::7]:
        lines = [line for line in turn.raters if line.startswith("A-E")]
        assert len(lines) in (2, 3)
        ratings = [[int(field.split()[1]) for field in line.split("\t")[1].split(";")[:3]] for line in lines]
        np.testing.assert_allclose(np.mean(ratings, axis=0), turn.vad)
        assert np.min(ratings) >= 1 and np.max(ratings) <= 5


def test_half_of_the_turns_carry_the_other_actors_letter(full_plan):
    other = np.mean([turn.id[5] != turn.id[-4] for turn in full_plan])
    assert 0.47 < other < 0.53


def test_the_recordings_are_those_of_the_release(full_plan):
    names = [name for session in range(1, 6) for part in recordings(session) for name in part]
    assert len(names) == len(set(names)) == 151
    assert {"Ses03M_impro05a", "Ses03M_impro05b", "Ses03M_impro08a", "Ses05M_script01_1b"} < set(names)
    assert {turn.recording for turn in full_plan} == set(names)
    assert len({turn.id for turn in full_plan}) == len(full_plan)


def test_turns_of_a_recording_follow_each_other(full_plan):
    for before, after in itertools.pairwise(full_plan):
        assert before.start < before.end
        if before.recording == after.recording:
            assert before.end < after.start


def test_scripted_lines_are_shared_across_sessions(corpus):
    sessions: dict[str, set[str | None]] = {}
    for utterance in corpus.utterances:
        assert (utterance.text is None) == ("_impro" in utterance.id)
        if utterance.text is not None:
            sessions.setdefault(utterance.text, set()).add(utterance.session)
    assert sum(len(names) > 1 for names in sessions.values()) >= 3


def test_plans_depend_on_the_seed_alone():
    assert plan_turns(0.02, 3) == plan_turns(0.02, 3)
    assert plan_turns(0.02, 3) != plan_turns(0.02, 4)


# ---- the sound


def test_a_turn_sounds_the_same_each_time_and_unlike_any_other():
    first, second = plan_turns(0.02, 0)[:2]
    np.testing.assert_array_equal(speak_turn(first, 0), speak_turn(first, 0))
    assert not np.array_equal(speak_turn(first, 0), speak_turn(first, 1))
    assert len(speak_turn(first, 0)) != len(speak_turn(second, 0))


@pytest.mark.parametrize(
    ("dimension", "rises", "falls"),
    [
        (0, {"tilt", "contour"}, set()),
        (1, {"pitch", "pitch_range", "level", "rate", "tilt"}, {"breath"}),
        (2, {"level"}, {"formants"}),
    ],
)
def test_each_dimension_moves_its_own_part_of_the_voice(dimension, rises, falls):
    calm = voice.express(np.random.default_rng(0), np.zeros(3), 0.0, 0.0, 0.0)
    moved = voice.express(np.random.default_rng(0), np.eye(3)[dimension], 0.0, 0.0, 0.0)
    for name in vars(calm):
        difference = getattr(moved, name) - getattr(calm, name)
        assert (difference > 0) == (name in rises), name
        assert (difference < 0) == (name in falls), name


def test_women_speak_higher_than_men():
    def pitch(gender: str) -> float:
        rng = np.random.default_rng(0)
        speaker = voice.draw_speaker(rng, gender)
        expression = voice.Expression(0.0, 0.05, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.2, 0.003)
        samples = voice.synthesise(rng, speaker, expression, [0, 1, 2, 3, 4] * 2, 2.5)
        assert len(samples) == 40_000
        found = librosa.yin(samples, fmin=60, fmax=500, sr=16_000, frame_length=1024)
        assert np.median(found) == pytest.approx(speaker.pitch, rel=0.15)
        return float(np.median(found))

    assert pitch("F") > 1.4 * pitch("M")


def utterance_statistics(turn: SyntheticTurn) -> np.ndarray:
    samples = speak_turn(turn, seed=0)
    mel = librosa.power_to_db(
        librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=40),
        amin=1e-8,
        top_db=None,
    )
    frames = np.concatenate([mel, librosa.feature.mfcc(S=mel, n_mfcc=20)])
    parts = [frames.mean(axis=1), frames.std(axis=1), np.diff(frames).std(axis=1)]
    return np.concatenate([*parts, *np.percentile(frames, [10, 50, 90], axis=1)])


def test_the_task_is_neither_trivial_nor_hopeless_and_dimensions_are_heard_within_a_class():
    """Linear models on utterance statistics, one session of speakers left out."""
    turns = [turn for turn in plan_turns(0.08, seed=0) if turn.code in CLASS_OF_CODE]
    names = iemocap_shape()["classes"]
    features = np.stack([utterance_statistics(turn) for turn in turns])
    label = np.array([names.index(CLASS_OF_CODE[turn.code]) for turn in turns])
    vad = np.array([turn.vad for turn in turns])
    session = np.array([turn.session for turn in turns])
    predicted, pred_vad, looked_up = np.zeros_like(label), np.zeros_like(vad), np.zeros_like(vad)
    for held_out in range(1, 6):
        test, train = session == held_out, session != held_out
        scaled = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
        classifier = LogisticRegression(C=0.01, max_iter=300).fit(scaled[train], label[train])
        predicted[test] = classifier.predict(scaled[test])
        pred_vad[test] = Ridge(300.0).fit(scaled[train], vad[train]).predict(scaled[test])
        means = np.stack([vad[train][label[train] == index].mean(axis=0) for index in range(4)])
        looked_up[test] = means[predicted[test]]
    recall = np.mean([np.mean(predicted[label == index] == index) for index in range(4)])
    regression = np.mean([ccc(pred_vad[:, index], vad[:, index]) for index in range(3)])
    look_up = np.mean([ccc(looked_up[:, index], vad[:, index]) for index in range(3)])
    assert 0.55 < recall < 0.85
    assert 0.5 < regression < 0.8
    assert regression > look_up + 0.08
    class_means = np.stack([vad[label == index].mean(axis=0) for index in range(4)])[label]
    pred_means = np.stack([pred_vad[label == index].mean(axis=0) for index in range(4)])[label]
    for index in range(3):
        within = np.corrcoef((vad - class_means)[:, index], (pred_vad - pred_means)[:, index])[0, 1]
        assert within > (0.1 if index == 0 else 0.3)
