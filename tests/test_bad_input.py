"""What a user gets wrong: one sentence that says what was found, what was expected and where, and no traceback."""

import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile
import soxr
from audio_files import take
from ml_collections import ConfigDict
from tiny_study import (
    EPOCHS,
    config_file,
    labelled_table,
    read_csv,
    run_command,
    study_config,
    table_config,
    tiny_config,
    write_table,
    write_voice,
)

from sejax.build import build
from sejax.engine.checkpoint import CHECKSUMS
from sejax.errors import InputError
from sejax.study import train_and_evaluate


def _problem(config: ConfigDict, workdir: Path, *, train: bool = True) -> str:
    """The sentence with which a study is refused."""
    with pytest.raises(InputError) as refused:
        train_and_evaluate(config, str(workdir), train=train)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


# ------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config.epoch=3"], "no option 'epoch', did you mean 'epochs'"),
        (["--config.model.encodr.mfcc=none"], "no option 'model.encodr.mfcc', did you mean 'model.encoder.mfcc'"),
        (["--config.epochs.x=3"], "no option 'epochs.x', did you mean 'epochs'"),
        (["--config.streams[0]=mel"], "no option 'streams[0]', did you mean 'streams'"),
        (["--config.epochs=many"], "config.epochs is 'many', expected a whole number from 1 to 100,000, for instance"),
        (["--config.epochs=1.5"], "config.epochs is '1.5', expected a whole number from 1 to 100,000, for instance"),
        (["--config.tensorboard=yes"], "config.tensorboard is 'yes', expected True or False, for instance --config."),
        (["--config.alpha="], "config.alpha is '', expected a number from 0 to 1, for instance --config.alpha=0.5"),
        (["--config.model=3"], "config.model is '3', expected its options one by one, --config.model.NAME=VALUE"),
        (["--workdir="], "--workdir is empty, expected a folder"),
        (["--mode=test"], "train|evaluate|data"),
        (["--mode=data", "--distributed"], "--distributed is given with --mode data, expected one process"),
        (["--distributed", "--config.jobs=ray"], "--distributed is given with config.jobs=ray, expected one of them"),
        (["--wrkdir=x"], "Did you mean: workdir"),
        (["stray"], "'stray'"),
        (["--config=configs/demo.py"], "--config is given more than once, expected one file; its options are changed"),
        (["--config", "configs/demo.py"], "--config is given more than once, expected one file; its options are"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_options_end_with_status_2_and_a_sentence(tmp_path: Path, arguments: list[str], expected: str):
    file = config_file(tmp_path, "tiny_config")
    found = run_command(f"--config={file}:{tmp_path}", f"--workdir={tmp_path / 'workdir'}", *arguments)
    assert found.returncode == 2
    assert re.fullmatch(r"error: [^\n]*\n", found.stderr), found.stderr
    assert expected in found.stderr
    assert found.stdout == ""
    assert not (tmp_path / "workdir").exists()


def test_a_missing_workdir_ends_with_status_2(tmp_path: Path):
    found = run_command(f"--config={config_file(tmp_path, 'tiny_config')}:{tmp_path}")
    assert found.returncode == 2
    assert re.fullmatch(r"error: [^\n]*--workdir[^\n]*\n", found.stderr), found.stderr


def test_a_typo_within_a_config_file_ends_with_status_2(tmp_path: Path):
    file = tmp_path / "typo.py"
    file.write_text(
        "from sejax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.epoch = 3\n    return config\n"
    )
    found = run_command(f"--config={file}", f"--workdir={tmp_path / 'workdir'}")
    assert found.returncode == 2
    assert found.stderr == f"error: {file}, line 4: the config has no option 'epoch', did you mean 'epochs'?\n"


def test_wrong_input_ends_with_status_1_and_a_sentence(tmp_path: Path):
    found = run_command(
        f"--config={config_file(tmp_path, 'tiny_config')}:{tmp_path}",
        f"--workdir={tmp_path / 'workdir'}",
        "--config.corpus=emodb",
        f"--config.data_dir={tmp_path / 'nowhere'}",
    )
    assert found.returncode == 1
    assert re.fullmatch(r"error: [^\n]*nowhere[^\n]*\n", found.stderr), found.stderr


# ------------------------------------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("corpus", "iemocp", ("iemocp", "iemocap")),
        ("protocol", "lsoo", ("lsoo", "loso_session")),
        ("streams", ("mfcc", "mell"), ("mell", "mfcc, mel")),
        ("model.encoder.mfcc", "lstmm", ("model.encoder.mfcc", "lstmm", "transformer")),
        ("model.width", 10, ("model.width", "10", "multiple of 2 * model.heads")),
        ("normalisation", "speakers", ("speakers", "train, speaker")),
        ("loss.vad", "huber", ("loss.vad", "ccc, mse, mae")),
        ("labels", "eleven", ("eleven", "five")),
        ("weighting", "adaptive", ("adaptive", "static, dynamic, uncertainty")),
        ("alpha", 1.5, ("config.alpha is 1.5", "from 0 to 1")),
        ("grid.alpha", (0.5, -0.1), ("alpha", "-0.1", "from 0 to 1")),
        ("grid.alpha", (0.5, 1.0, 0.5), ("grid.alpha", "each value once", "0.5, 1.0, 0.5")),
        ("dropout", 1.0, ("dropout", "1.0", "from 0 to 0.99")),
        ("epochs", 0, ("epochs", "0", "from 1 to 100,000")),
        ("frames_dtype", "int8", ("frames_dtype", "int8", "float16, bfloat16, float32")),
        ("compute_dtype", "float16", ("compute_dtype", "float16", "float32, bfloat16")),
        ("speeds", (0.9, 1.0), ("speeds", "begins with 1.0")),
    ],
    ids=str,
)
def test_options_that_make_no_sense(
    tmp_path: Path, cache_dir: str, name: str, value: object, expected: tuple[str, ...]
):
    config = tiny_config(cache_dir)
    config.update_from_flattened_dict({name: value})
    sentence = _problem(config, tmp_path / "workdir")
    assert all(part in sentence for part in expected), sentence
    # The folder is still free for the config without the mistake.
    assert not (tmp_path / "workdir" / "config.json").exists()


# ------------------------------------------------------------------------------------------ the workdir


def test_workdir_of_another_config(study: Path, cache_dir: str):
    config = study_config(cache_dir)
    config.epochs = 3
    config.model.width = 16
    sentence = _problem(config, study)
    assert "epochs is 3 here, 10 in the workdir" in sentence
    assert "model.width is 16 here, 8 in the workdir" in sentence
    assert "batch_size" not in sentence


def test_an_option_that_an_older_workdir_lacks_counts_as_its_default(study: Path, tmp_path: Path, cache_dir: str):
    workdir = shutil.copytree(study, tmp_path / "workdir")
    written = json.loads((workdir / "config.json").read_text())
    del written["config"]["patience"], written["config"]["model"]["guided"]
    (workdir / "config.json").write_text(json.dumps(written))
    for checksums in workdir.glob(f"checkpoints/*/{CHECKSUMS}"):  # they name what config.json lacks now
        checksums.write_text(json.dumps(json.loads(checksums.read_text())["files"]))
    config = study_config(cache_dir)
    config.patience = 7
    assert "(patience is 7 here, 0 in the workdir), expected the same; use" in _problem(config, workdir)
    train_and_evaluate(study_config(cache_dir), str(workdir), train=False)
    assert (workdir / "predictions.csv").read_bytes() == (study / "predictions.csv").read_bytes()


def test_evaluating_without_training(tmp_path: Path, study: Path, cache_dir: str):
    assert "expected the workdir of a training run" in _problem(study_config(cache_dir), tmp_path / "no", train=False)
    assert not (tmp_path / "no").exists()
    shutil.copy(study / "config.json", tmp_path)
    assert "no checkpoint" in _problem(study_config(cache_dir), tmp_path, train=False)


def test_checkpoints_of_another_config(tmp_path: Path, study: Path, cache_dir: str):
    shutil.copytree(study, tmp_path / "workdir")
    config = study_config(cache_dir)
    config.model.fused = 12
    file = tmp_path / "workdir" / "config.json"
    saved = json.loads(file.read_text())
    saved["config"]["model"]["fused"] = 12
    file.write_text(json.dumps(saved))
    sentence = _problem(config, tmp_path / "workdir")
    assert f"{tmp_path}/workdir/checkpoints/{EPOCHS} belongs to another study, expected" in sentence
    assert (tmp_path / "workdir" / "predictions.csv").read_bytes() == (study / "predictions.csv").read_bytes()


def test_workdir_that_cannot_be_written(tmp_path: Path, cache_dir: str):
    (tmp_path / "file").write_text("")
    sentence = _problem(tiny_config(cache_dir), tmp_path / "file" / "workdir")
    assert "cannot be made (Not a directory)" in sentence
    assert str(tmp_path / "file" / "workdir") in sentence
    assert "cannot be" in _problem(tiny_config(cache_dir), tmp_path / "file")


# ------------------------------------------------------------------------------------------- the corpus


def test_missing_corpora(tmp_path: Path, cache_dir: str):
    for corpus in ("iemocap", "emodb", "table"):
        config = tiny_config(cache_dir)
        config.corpus = corpus
        assert "needs data_dir" in _problem(config, tmp_path / "workdir")
        config.data_dir = str(tmp_path / "nowhere")
        assert "nowhere" in _problem(config, tmp_path / "workdir")


def test_more_bad_audio_than_allowed(tmp_path: Path, cache_dir: str):
    config = table_config(cache_dir, labelled_table(tmp_path))
    (tmp_path / "5.wav").write_bytes(b"no audio")
    sentence = _problem(config, tmp_path / "workdir")
    assert "5.wav" in sentence
    assert "at most 1 % (config.max_bad_fraction)" in sentence


def test_missing_audio_counts_like_bad_audio(tmp_path: Path, cache_dir: str):
    """Most of a corpus is absent: three utterances are not a corpus, however well they are learned."""
    table = labelled_table(tmp_path)
    rows = read_csv(table)
    write_table(table, [row if n < 3 else row | {"path": f"gone/{row['path']}"} for n, row in enumerate(rows)])
    sentence = _problem(table_config(cache_dir, table), tmp_path / "workdir")
    assert sentence == (
        "the corpus table has no usable audio for at least 13 of 16 utterances (no such file 13), expected at most 1 % "
        f"(config.max_bad_fraction); the first: {table}, line 5: there is no audio file {tmp_path}/gone/3.wav"
    )
    assert not (tmp_path / "workdir" / "config.json").exists()


def test_absent_and_bad_audio_count_together(tmp_path: Path, cache_dir: str):
    config = table_config(cache_dir, labelled_table(tmp_path))
    (tmp_path / "5.wav").write_bytes(b"no audio")
    (tmp_path / "6.wav").unlink()
    config.max_bad_fraction = 0.1  # one of 16, not two
    sentence = _problem(config, tmp_path / "workdir")
    assert "at least 2 of 16 utterances (no such file 1, unusable audio 1), expected at most 10 %" in sentence
    assert "6.wav" in sentence and "5.wav" in sentence


@pytest.mark.parametrize(
    ("changes", "protocol", "expected"),
    [
        ({"label": "x"}, "loso", "every label of the corpus is 'x'"),
        ({"speaker": "s"}, "loso", "1 speaker (s), expected at least 3"),
        ({"split": "train"}, "official", "no utterance has the split 'val'"),
        ({}, "table", "16 of 16 utterances have no fold"),
    ],
    ids=str,
)
def test_what_no_protocol_can_use_is_told_before_the_features(
    tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str], changes: dict, protocol: str, expected: str
):
    table = labelled_table(tmp_path)
    write_table(table, [row | changes for row in read_csv(table)])
    config = table_config(cache_dir, table)
    config.protocol = protocol
    assert expected in _problem(config, tmp_path / "workdir")
    assert capsys.readouterr().err == ""


def test_one_speaker_under_two_names_is_refused(tmp_path: Path, cache_dir: str):
    table = labelled_table(tmp_path)
    rows = [row | {"speaker": str(n // 4)} for n, row in enumerate(read_csv(table))]
    write_table(table, [*rows[:-1], rows[-1] | {"speaker": "1.0"}])
    sentence = _problem(table_config(cache_dir, table), tmp_path / "workdir")
    assert f"the speakers '1' ({table}, line 6) and '1.0' ({table}, line 17) are the same number" in sentence


def test_duplicate_audio_and_a_bad_file_are_reported(
    tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]
):
    table = labelled_table(tmp_path)
    write_voice(tmp_path / "copy.wav", seed=3)  # of the first speaker
    (tmp_path / "torn.wav").write_bytes((tmp_path / "0.wav").read_bytes()[:30])
    more = [{"path": name, "speaker": "s3", "label": "sad"} for name in ("copy.wav", "torn.wav")]
    write_table(table, [*read_csv(table), *more])
    config = table_config(cache_dir, table)
    config.max_bad_fraction = 0.1
    sentence = _problem(config, tmp_path / "workdir")
    assert "3" in sentence and "copy" in sentence and "allow duplicates" in sentence

    config.allow_duplicates = True
    found = train_and_evaluate(config, str(tmp_path / "workdir"))
    (group,) = found["audit"]["duplicates"]["across_test"]
    assert group["ids"] == ["3", "copy"]
    (lost,) = found["audit"]["dropped"]
    assert lost["id"] == "torn"
    assert lost["path"] == str(tmp_path / "torn.wav")
    assert lost["reason"] and lost["kind"] == "unusable audio"
    line = (
        f"table: 1 of 18 utterances dropped: unusable audio 1 (the first: {tmp_path}/torn.wav); the report lists them\n"
    )
    assert capsys.readouterr().out.startswith(line)
    assert found["corpus"]["utterances"] == 17
    rows = read_csv(tmp_path / "workdir" / "predictions.csv")
    predicted = [row["id"] for row in rows if row["split"] == "test"]
    assert sorted(predicted) == sorted([*map(str, range(16)), "copy"])
    assert "torn" in (tmp_path / "workdir" / "report.html").read_text()


def test_a_copy_of_another_speakers_recording_is_refused_and_reported(tmp_path: Path, cache_dir: str):
    rows = []
    for n in range(8):
        soundfile.write(tmp_path / f"{n}.wav", take(n, speaker=n // 2), 16_000)
        rows.append({"path": f"{n}.wav", "speaker": f"s{n // 2}", "label": ("angry", "sad")[n % 2]})
    stolen = 0.4 * soxr.resample(take(1)[9000:], 16_000, 22_050)  # cut, resampled, quieter and as mp3
    soundfile.write(tmp_path / "stolen.mp3", stolen, 22_050)
    rows.append({"path": "stolen.mp3", "speaker": "s3", "label": "sad"})
    config = table_config(cache_dir, write_table(tmp_path / "table.csv", rows))
    sentence = _problem(config, tmp_path / "workdir")
    assert "first as 1 and stolen (fold s0 tests on 1 and trains on stolen; 2.44 s of 1 and stolen" in sentence
    assert "begins 0.56 s into the first and 0.00 s into the second" in sentence

    config.find_copies = False
    assert build(config).audit["duplicates"] == {"across_test": [], "elsewhere": []}

    config.find_copies, config.allow_duplicates = True, True
    found = train_and_evaluate(config, str(tmp_path / "workdir"))["audit"]
    (group,) = found["duplicates"]["across_test"]
    assert group["ids"] == ["1", "stolen"] and group["found_by"] == "fingerprint"
    (pair,) = found["speakers_claimed_twice"]
    assert pair["speakers"] == ["s0", "s3"]
    page = (tmp_path / "workdir" / "report.html").read_text()
    assert re.search(r"2\.44 s in common, offset 0\.56 s, correlation (0\.99|1\.0)", page)
    assert "Speakers of two names have the same audio, and may be the same person: 1 pair." in page


@pytest.mark.parametrize("quoted", ["a\nb", "a\0b", "\x1b[31mred", "\u202eevil", "a\u200bb", "\x85", "\r"])
def test_a_sentence_stays_one_line_that_a_terminal_shows(quoted: str):
    sentence = str(InputError(f"x is {quoted}, expected 1"))
    assert sentence.isprintable()
    assert sentence.startswith("x is ")
    assert sentence.endswith(", expected 1")
    assert ascii(quoted[0]).strip("'") in sentence or quoted[0] in sentence


def test_a_very_long_sentence_keeps_its_ends():
    sentence = str(InputError(f"x is {'y' * 100_000}, expected 1"))
    assert len(sentence) < 4000
    assert sentence.startswith("x is yyy")
    assert sentence.endswith("y, expected 1")
    assert str(InputError("Müller says 😀, expected 1")) == "Müller says 😀, expected 1"
