"""Studies that train on corrupted speech: the options, the share that is drawn, what is remembered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_study import labelled_table, read_csv, table_config, tiny_config, write_voice

from sejax.config import check_config
from sejax.errors import InputError
from sejax.study import train_and_evaluate


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> dict[str, Path]:
    """A study without corruptions, and one with a grid over the share of corrupted utterances."""
    folder = tmp_path_factory.mktemp("corruptions")
    config = table_config(cache_dir, labelled_table(folder))
    train_and_evaluate(config, str(folder / "clean"))
    config.corruptions = ("noise:10", "rir:0.3+gain:-10")
    config.grid.augment.corrupted = (0.0, 0.5, 1.0)
    train_and_evaluate(config, str(folder / "corrupted"))
    return {name: folder / name for name in ("clean", "corrupted")}


def numbers(workdir: Path, setting: str) -> np.ndarray:
    rows = [row for row in read_csv(workdir / "predictions.csv") if row["setting"] == setting]
    assert rows
    return np.array([[float(row[name]) for name in row if name.startswith("prob_")] for row in rows])


def test_shares_of_corrupted_utterances_are_runs_of_one_program(workdirs: dict[str, Path]):
    (program,) = json.loads((workdirs["corrupted"] / "plan.json").read_text())
    (clean,) = json.loads((workdirs["clean"] / "plan.json").read_text())
    assert len(program["runs"]) == 3 * len(clean["runs"])
    assert program["steps_per_epoch"] == clean["steps_per_epoch"]
    assert {row["augment.corrupted"] for row in read_csv(workdirs["corrupted"] / "runs.csv")} == {"0.0", "0.5", "1.0"}


def test_a_share_of_zero_is_training_on_clean_speech(workdirs: dict[str, Path]):
    """The same orders and the same normalisation: no number knows that there are corrupted views."""
    clean = numbers(workdirs["clean"], "static")
    found = {share: numbers(workdirs["corrupted"], f"augment.corrupted={share}") for share in (0.0, 0.5, 1.0)}
    np.testing.assert_array_equal(found[0.0], clean)
    for share in (0.5, 1.0):
        assert np.abs(found[share] - clean).max() > 1e-3
    assert np.abs(found[0.5] - found[1.0]).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"corruptions": ("noise:10", "nois:5")}, r"config\.corruptions: the corruption is 'nois:5', expected one of"),
        ({"corruptions": ("noise:10", "noise:10.0")}, r"config\.corruptions is .*, expected each corruption once"),
        (
            {"corruptions": ("noise:10",)},
            r"config\.augment\.corrupted is 0\.0, expected a share above 0 with config\.corr",
        ),
        (
            {"augment.corrupted": 0.5},
            r"config\.augment\.corrupted is 0\.5, expected a share above 0 with config\.corruptions, and 0 w",
        ),
        (
            {"grid.augment.corrupted": (0.0, 0.5)},
            r"config\.grid\.augment\.corrupted is \(0\.0, 0\.5\), expected a share above 0 with config\.c",
        ),
        (
            {"augment.noise": 0.5},
            r"config\.augment\.noise is 0\.5, expected 0 without a fine-tuned model: other streams",
        ),
        ({"grid.augment.gain": (0.0, 6.0)}, r"config\.augment\.gain is 6\.0, expected 0 without a fine-tuned model"),
        ({"augment.noise_snr": (20.0, 5.0)}, r"config\.augment\.noise_snr is \(20\.0, 5\.0\), expected a tuple of the"),
        (
            {
                "corruptions": ("noise:10",),
                "grid.augment.corrupted": (0.0, 0.5),
                "streams": ("wavlm",),
                "model.encoder.wavlm": "finetune",
            },
            r"config\.grid\.augment\.corrupted is \(0\.0, 0\.5\), expected one share for all runs: those of a seed",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(cache_dir: str, changes: dict[str, Any], sentence: str):
    config = tiny_config(cache_dir)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=f"^{sentence}"):
        check_config(config)


def test_a_workdir_remembers_the_noises_it_was_begun_with(tmp_path: Path, cache_dir: str):
    noises = tmp_path / "noises"
    noises.mkdir()
    write_voice(noises / "a.wav", seed=1)
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.corruptions, config.augment.corrupted, config.epochs = (f"noise:5@{noises}",), 1.0, 1
    train_and_evaluate(config, str(tmp_path / "workdir"))
    results = (tmp_path / "workdir" / "predictions.csv").read_bytes()
    train_and_evaluate(config, str(tmp_path / "workdir"))
    write_voice(noises / "b.wav", seed=2)
    with pytest.raises(InputError, match=r"begun with other data .*: the files that corruptions draw from; expected"):
        train_and_evaluate(config, str(tmp_path / "workdir"))
    assert (tmp_path / "workdir" / "predictions.csv").read_bytes() == results
