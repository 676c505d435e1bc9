"""Studies that train in seconds, the commands that run them, and factories of what the engine takes."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
import pytest
import soundfile
from ml_collections import ConfigDict
from numpy.testing import assert_array_equal

from sejax import build
from sejax.config import STACKED, at, default_config
from sejax.engine.augment import Augment
from sejax.engine.feed import Feed, open_feed
from sejax.engine.plan import plan_programs
from sejax.engine.step import HParams, Recipe, Steps
from sejax.engine.tasks import TASKS
from sejax.study import train_and_evaluate
from sejax.workdir.logs import Logs

ROOT = Path(__file__).parent.parent
GOLDEN_SSL = ROOT / "tests" / "golden" / "ssl"  # tiny pretrained models of random weights
EPOCHS = 10
BOOTSTRAP = 20


def shrink(config: ConfigDict, cache_dir: str) -> ConfigDict:
    """Makes any config small enough to compile and train in seconds; keeps its streams and its grid."""
    config.corpus, config.data_dir = "synthetic", ""
    config.cache_dir = str(cache_dir)
    config.workers = 1
    config.synthetic.fraction = 0.01
    config.speeds = (1.0,)
    config.max_seconds = 2.0
    config.buckets = 1
    for stream in config.model.encoder:
        config.model.encoder[stream] = "linear" if config.model.guided and stream in config.streams else "none"
    for stream, options in config.features.ssl.items():
        options.model = str(GOLDEN_SSL / f"{stream}-base")
    config.model.stride = 8
    config.model.width = 8
    config.model.heads = 2
    config.model.fused = 8
    config.epochs = 2
    config.batch_size = 8
    config.checkpoint_every = 1
    config.tensorboard = False
    config.bootstrap = BOOTSTRAP
    return config


def tiny_config(cache_dir: str) -> ConfigDict:
    """Returns a study with one stream, one setting and two epochs of the synthetic corpus."""
    config = shrink(default_config(), cache_dir)
    config.streams = ("mfcc",)
    return config


def study_config(cache_dir: str) -> ConfigDict:
    """Returns a study of the joint and the single-task models with two seeds, for tests of a whole workdir."""
    config = tiny_config(cache_dir)
    config.grid.alpha = (0.5, 1.0, 0.0)
    config.seeds = 2
    config.epochs = EPOCHS
    config.tensorboard = True
    return config


def table_config(cache_dir: str, table: Path) -> ConfigDict:
    """Returns the tiny study of a corpus given as a table."""
    config = tiny_config(cache_dir)
    config.corpus, config.data_dir = "table", str(table)
    config.batch_size = 4
    return config


def hyperparameters(**changes: Any) -> dict[str, Any]:
    """Returns the hyperparameters of the default setting by their options' names, some of them changed."""
    config = default_config()
    return {name: at(config, name) for name in STACKED} | changes


def hparams(**changes: Any) -> HParams:
    """Returns the same for one run of the engine: float32, the weighting as its index (0)."""
    values = hyperparameters(weighting=0, **changes)
    numbers = {name: np.float32(values[option]) for name, option in HParams.options().items()}
    return HParams(**{**numbers, "weighting": np.int32(values["weighting"])})


def steps(epoch: int, warmup: int, total: int, *shape: int) -> Steps:
    """Returns the steps of runs, `[*shape]`."""
    return Steps(*(np.full(shape, n, np.int32) for n in (epoch, warmup, total)))


def recipe(**changes: Any) -> Recipe:
    """Returns the recipe of the default study, some of its fields changed."""
    config = default_config()
    default = Recipe(
        clip_norm=config.clip_norm,
        vad_loss=config.loss.vad,
        averaging=config.averaging,
        augment=Augment.of(config.augment.to_dict()),
        tasks=TASKS[config.tasks],
        schemes=(config.weighting,),
        gradients_at=config.gradients_at,
    )
    return dataclasses.replace(default, **changes)


def open_program(config: ConfigDict) -> Feed:
    """Returns the feed of a config's only program."""
    study = build.build(config)
    (plan,) = plan_programs(study.programs, jax.devices(), study.placement, None)
    return open_feed(plan)


def train_runs(feed: Feed, epochs: np.ndarray) -> Any:
    """Returns what each run has averaged after its epochs, `[run, ...]`."""
    states, averaged = feed.init_states(), []
    for number in range(1, max(epochs) + 1):
        states, _ = feed.train_epoch(states, number)
        averaged.append(feed.layout.collect(states.averaged))
    return feed.leaves.split(np.stack([averaged[n - 1][run] for run, n in enumerate(epochs)]))


def assert_equal_trees(one: Any, other: Any) -> None:
    """Asserts that two trees have the same structure and equal arrays."""
    jax.tree.map(assert_array_equal, one, other)


def train_interrupted(
    config: ConfigDict, workdir: str, *, epochs: int, monkeypatch: pytest.MonkeyPatch, program: int = 1
) -> None:
    """Trains and is interrupted as by Ctrl-C once epoch `epochs` + 1 of a program is logged, before it is saved.

    Args:
      program: the number of the program that is interrupted, of a study with several; the others are complete.
    """
    write = Logs.write
    programs = 0  # that have logged the epoch

    def interrupted(self: Logs, epoch: int, *arguments: Any, **keywords: Any) -> None:
        nonlocal programs
        write(self, epoch, *arguments, **keywords)
        programs += epoch == epochs + 1
        if epoch == epochs + 1 and programs == program:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Logs, "write", interrupted)
        train_and_evaluate(config, workdir)


def command(*arguments: str) -> list[str]:
    """Returns the command line of sejax."""
    return [sys.executable, "-m", "sejax.main", *arguments]


def environment(*python_path: str) -> dict[str, str]:
    """Returns the variables of this process (devices, platform, cache) for a command run in the repository's root."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # jax sets it
    return inherited | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *python_path])}


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)


def config_file(folder: Path, function: str, module: str = "tiny_study") -> str:
    """Writes a config file whose `get_config` is a function of a module, this one by default, and returns its path."""
    path = folder / f"{function}.py"
    path.write_text(f"from {module} import {function} as get_config\n")
    return str(path)


def write_voice(path: Path, *, seed: int, sampling_rate: int = 16_000, channels: int = 1, seconds: float = 0.5) -> None:
    """Writes a noisy tone in the format of the suffix. The pitch depends on the seed."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    tone = 0.3 * np.sin(2 * np.pi * (100 + 20 * seed) * time)
    samples = tone[:, None] + 0.05 * random.standard_normal((len(time), channels))
    soundfile.write(path, samples, sampling_rate)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def labelled_table(folder: Path, first: int = 0) -> Path:
    """Writes a corpus of four speakers, four utterances each, two classes, no valence, arousal or dominance.

    Args:
      first: number of the first utterance; other numbers are other sounds.
    """
    rows = []
    for i in range(16):
        write_voice(folder / f"{first + i}.wav", seed=first + i)
        rows.append({"path": f"{first + i}.wav", "speaker": f"s{i // 4}", "label": ("angry", "sad")[i % 2]})
    return write_table(folder / f"labelled{first or ''}.csv", rows)


def read_history(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run_bench(folder: Path, words: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """Returns the JSON that `tools/bench.py` writes, and its finished process."""
    out = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "bench.py"), *words.split(), "--out", str(out)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done


def ray_worker(driver: int, job: str) -> psutil.Process | None:
    """Returns the process of a job, which Ray gives its name; Ray's processes may end while they are looked at."""
    with suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(f"ray::{job}"):
                    return process
    return None
