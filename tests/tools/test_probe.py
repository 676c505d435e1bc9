"""The benchmark of the frozen probe: its study is that of the config, and PyTorch's sides train the same."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from tiny_study import run_bench

from configs.probe import get_config
from tools.benchmarks.random_probe import Epoch, Framed, Pooled, Probe, probe_options

RATES = (1e-3, 1e-2)


@pytest.fixture(scope="module")
def probe() -> Probe:
    """A study of a hundredth of the size, and less: three folds, one seed, two learning rates."""
    options = probe_options()
    options["model"] |= {"fused": 16}
    return Probe(55, 3, 32, 3, 1, RATES, {**options, "batch_size": 8})


def test_the_options_are_those_of_the_config_for_the_class_alone():
    expected = json.loads(json.dumps(get_config("synthetic,superb,hubert").to_dict()))
    assert expected["grid"].pop("alpha") == [0.5, 1.0, 0.0]
    ours = json.loads(json.dumps(probe_options()))
    assert ours["grid"].pop("alpha") == []
    assert (ours.pop("alpha"), expected.pop("alpha")) == (1.0, 0.5)
    assert (ours.pop("protocol"), expected.pop("protocol")) == ("loso", "loso_session")
    assert ours == expected


@pytest.fixture(scope="module")
def losses(probe: Probe) -> np.ndarray:
    """Our losses of the first two epochs, `[epoch, run]`: means over the steps."""
    epoch = Epoch(probe, jax.local_devices())
    found = []
    for _ in range(2):
        epoch()
        found.append(epoch.metrics.loss[:, 0])
    return np.stack(found)


@pytest.mark.parametrize("chained", [False, True])
def test_pytorch_on_means_has_the_same_losses(probe: Probe, losses: np.ndarray, chained: bool):
    pytest.importorskip("torch")
    pooled, numbers = Pooled(probe, 1.0, chained=chained), [run.number for run in probe.runs]
    for of_epoch in losses:
        pooled()
        theirs = np.stack([x.mean(dim=0).numpy() for x in pooled.losses])  # [fold, learning rate]
        by_run = {(run.fold, run.setting.values["learning_rate"]): run.number for run in probe.runs}
        ours = np.array([[of_epoch[by_run[fold, rate]] for rate in RATES] for fold in range(3)])
        assert len(numbers) == theirs.size
        assert_allclose(theirs, ours, rtol=1e-5)
    assert losses[1].mean() < losses[0].mean()


def test_pytorch_on_frames_has_the_same_losses(probe: Probe, losses: np.ndarray):
    pytest.importorskip("torch")
    steps = probe.program.epoch_steps
    framed = Framed(probe, 55, steps)
    framed()
    assert_allclose(framed.losses.mean(), losses[0, 0], rtol=1e-5)


def test_probe_prints_a_table_and_writes_json(tmp_path: Path):
    words = "probe --utterances 55 --states 3 --size 32 --folds 3 --seeds 1 --frames 8 --frame-steps 1 --rounds 1"
    result, done = run_bench(tmp_path, words)
    assert result["sides"]["ours"]["runs"] == 15
    assert result["sides"]["ours"]["share"] == 1
    assert result["products_bound"] > 0
    assert "an epoch of 15 runs of 55 utterances" in done.stdout
    if "pooled" not in result["sides"]:
        assert "measured alone" in done.stderr
