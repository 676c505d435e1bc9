"""Plans of studies for devices that are not here."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_study import ROOT, tiny_config

from sejax import build
from sejax.engine.plan import plan_programs
from sejax.planning.command import main
from sejax.planning.forecast import forecast
from sejax.planning.machines import MACHINES
from tools.benchmarks import plan as bench

DEMO = ["--config", str(ROOT / "configs" / "demo.py"), "--config.synthetic.fraction=0.01"]


@pytest.fixture(scope="module")
def config(cache_dir: str) -> ConfigDict:
    config = tiny_config(cache_dir)
    config.streams = ("mfcc", "stf")
    config.model.encoder.mfcc = "linear"
    config.grid.alpha, config.seeds = (0.5, 1.0), 2
    config.buckets, config.max_seconds = 1, 30.0
    return config


@pytest.fixture(scope="module")
def outline(config: ConfigDict) -> build.Outline:
    return build.outline(config)


def test_the_demo_is_planned_for_devices_that_are_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "plan.json"
    words = [*DEMO, f"--config.cache_dir={tmp_path}", "--device", "h200", "--count", "2", "--json", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    (program,) = json.loads(out.read_text())["programs"]
    assert "30 runs of 241,831 parameters, 30 side by side on 2 devices in 1 chunk" in printed
    assert (program["slots"], program["devices"], program["frames_on"]) == (30, 2, "device")
    assert 0 < program["needed_bytes"] < program["free_bytes"]
    assert program["epoch_seconds"] == pytest.approx(sum(program["limits_seconds"].values()))
    assert program["epoch_seconds"] == pytest.approx(sum(step["steps"] * step["seconds"] for step in program["steps"]))
    # No features, and nothing compiled.
    assert not list(tmp_path.glob("**/*.array_record*"))


def test_an_outline_has_the_shapes_of_the_study(config: ConfigDict, outline: build.Outline):
    (program,) = outline.programs
    (whole,) = build.build(config).programs

    def shapes(program):
        parts = program.data, program.per_run, program.frozen, program.shuffle(1), dict(program.rows)
        return jax.tree.map(lambda x: (np.shape(x), x.dtype), parts)

    assert shapes(program) == shapes(whole)
    assert program.network == whole.network


def test_stack_and_memory_are_about_those_of_the_compiled_program(cache_dir: str):
    config = tiny_config(cache_dir)
    study, outline = build.build(config), build.outline(config)
    (planned,) = plan_programs(study.programs, jax.devices(), study.placement, None)
    found = forecast(outline.programs[0], MACHINES["cpu"], count=2, placement=outline.placement)
    chunks, slots = planned.placed.layout.run.shape
    assert (found.chunks, found.slots, found.frames_on) == (chunks, slots, planned.frames_on)
    assert 0.5 < found.needed / planned.needed < 2


def test_a_smaller_memory_has_smaller_stacks_and_then_streams(outline: build.Outline):
    (program,) = outline.programs

    def plan(memory: float, count: int = 1):
        machine = dataclasses.replace(MACHINES["h200"], memory=float(memory))
        return forecast(program, machine, count=count, placement=outline.placement)

    roomy = plan(1e12)
    assert roomy.slots * roomy.chunks >= len(program.runs) and roomy.slots == len(program.runs) // 2  # of a seed
    tight = plan(0.7 * roomy.needed / outline.placement.memory_fraction)
    assert tight.slots < roomy.slots and tight.chunks > roomy.chunks and tight.needed <= tight.free
    assert tight.epoch_seconds > roomy.epoch_seconds
    assert plan(roomy.data_bytes).frames_on == "host"
    no_room_for_a_run = plan(1.2 * roomy.data_bytes / outline.placement.memory_fraction)
    assert no_room_for_a_run.frames_on == "host" and no_room_for_a_run.slots == 1
    two = plan(1e12, count=2)
    assert two.devices == 2 and two.epoch_seconds < roomy.epoch_seconds and two.needed < roomy.needed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "gtx"], "--device is 'gtx', expected one of cpu, h200"),
        (["--device", "h200", "--count", "0"], "--count is 0, expected 1 or more"),
        (["--device", "h200", "--json", "/nowhere/plan.json"], "--json is '/nowhere/plan.json', expected a file in"),
        (["--device", "h200", "--config.epoch=3"], "the config has no option"),
        (["--device", "none.json"], "none.json cannot be read"),
    ],
)
def test_a_mistake_is_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main([*DEMO, *words]) == 1
    assert sentence in capsys.readouterr().err


def test_the_benchmark_knows_every_measurement_and_predicts_one():
    """If a step has become faster and was measured again, so have the rates of the table to be."""
    measured = {row.name: row for row in bench.measurements(bench.FOLDER)}
    assert measured.keys() > bench.CALIBRATION
    assert {row.device for row in measured.values()} >= {"cpu", "h200"}
    row = measured["cpu, 2 runs of 1,600 utterances of 1 s"]
    seconds, found = bench.predict(row)
    assert seconds / row.seconds == pytest.approx(1.0, abs=0.25)
    assert found.steps_per_epoch == 40
