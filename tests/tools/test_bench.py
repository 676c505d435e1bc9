"""Runs the benchmarks on their smallest case: the printed table and the JSON, with and without the other side."""

import ctypes
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from tiny_study import ROOT, run_bench

from sejax.config import default_config
from sejax.models.joint import Rates
from tools.benchmarks import corpus, growth, mkl, sides
from tools.benchmarks.random_study import OPTIONS, STATISTICS, Study, default_options, joint_model, step_flops
from tools.benchmarks.ssl import backbone_of, make_batches, matmul_flops


def test_batches_hold_all_utterances_and_no_more_than_they_may():
    batches = make_batches([1.0, 5.0, 3.0, 2.0, 9.0], 6.0)
    assert sorted(n for batch in batches for n in batch) == [16_000, 32_000, 48_000, 80_000, 144_000]
    assert batches[0] == [144_000]  # longer than a batch may be: alone
    assert all(len(batch) * batch[0] <= 6.0 * 16_000 for batch in batches[1:])


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_flops_are_those_that_xla_counts_without_the_scan_over_layers(size: str):
    """XLA counts the body of a scan once. Operations other than matrix products are a few percent."""
    backbone = dataclasses.replace(backbone_of("hubert", size), layers=1)
    model, x, n = backbone.module(), jnp.zeros((2, 16_000)), jnp.array([16_000, 16_000], jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x, n)
    counted = jax.jit(model.apply).lower(params, x, n).cost_analysis()["flops"]
    assert matmul_flops(backbone, 2, 16_000) == pytest.approx(counted, rel=0.05)
    twice = dataclasses.replace(backbone, layers=2)
    layer = matmul_flops(twice, 2, 16_000) - matmul_flops(backbone, 2, 16_000)
    assert layer == 2 * 2 * 49 * backbone.hidden * (4 * backbone.hidden + 2 * backbone.intermediate + 2 * 49)


def test_mkl_is_told_only_where_it_helps(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    for described in ("vendor_id: GenuineIntel\nflags: avx512f", "vendor_id: AuthenticAMD\nflags: avx2"):
        cpuinfo.write_text(described)
        assert mkl.environment(tmp_path, cpuinfo) == {}
    assert mkl.environment(tmp_path, tmp_path / "none") == {}
    cpuinfo.write_text("vendor_id: AuthenticAMD\nflags: avx2 avx512f")
    variables = mkl.environment(tmp_path, cpuinfo)
    if shutil.which("cc") is None:
        assert variables == {}
    else:
        assert ctypes.CDLL(variables["LD_PRELOAD"]).mkl_serv_intel_cpu_true() == 1


def test_it_says_what_another_environment_lacks(capsys: pytest.CaptureFixture[str]):
    ours = {"jax": sides.Process("ssl", "jax", {})}
    found = dict(ours)
    sides.add_other(found, {"torch": sides.Process("ssl", "torch", {})}, ("jax", "none_such", "nor_this"), "sejax is")
    assert found == ours
    assert capsys.readouterr().err == f"{sys.executable} has no none_such, nor_this: sejax is measured alone\n"
    other = {"torch": sides.Process("ssl", "torch", {})}
    sides.add_other(found, other, ("jax", "numpy"), "sejax is")
    assert found == ours | other
    with pytest.raises(SystemExit, match=r"^no-such-python does not run: No such file or directory$"):
        sides.add_other(found, {"torch": sides.Process("ssl", "torch", {}, "no-such-python")}, ("jax",), "sejax is")


def test_sides_end_with_the_tool(tmp_path: Path):
    """Also if it is killed while a side computes."""
    program = (
        "import subprocess, sys; from tools.benchmarks import sides; "
        "side = \"import sys; sys.path.insert(0, '.'); from tools.benchmarks import sides; import time; "
        "sides.serve(lambda: (print(__import__('os').getpid(), flush=True), time.sleep(600)))\"; "
        "subprocess.run([sys.executable, '-c', side])"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        side = psutil.Process(int(tool.stdout.readline()))
        assert side.is_running()
        tool.kill()
    _, alive = psutil.wait_procs([side], timeout=20)
    assert not alive


def test_the_options_of_benchmarks_are_the_default_ones():
    expected = json.loads(default_config().to_json())
    assert default_options() == expected, f"write this to {OPTIONS}:\n{json.dumps(expected, indent=1)}"


def test_ssl_prints_a_table_and_writes_json(tmp_path: Path):
    result, done = run_bench(tmp_path, "ssl --size tiny --seconds 0.3 0.5 --rounds 2")
    assert result["audio_seconds"] == pytest.approx(0.8)
    side = result["sides"]["jax"]
    assert len(side["seconds"]) == 2
    assert side["peak_bytes"] > 1e7
    assert side["fraction_of_matmul"] > 0
    assert "audio s / s" in done.stdout
    if "torch" not in result["sides"]:
        assert "measured alone" in done.stderr


def test_ssl_trains_adapters(tmp_path: Path):
    result, done = run_bench(tmp_path, "ssl --size tiny --seconds 0.3 --rounds 1 --lora 2")
    assert result["lora_rank"] == 2
    assert result["sides"]["jax"]["fraction_of_matmul"] > 0
    assert "hubert-tiny, random weights, training adapters of rank 2, 0 s of audio in 1 batches" in done.stdout


def test_whisper_prints_both_contexts(tmp_path: Path):
    model = ROOT / "tests" / "golden" / "ssl" / "whisper-base"
    result, done = run_bench(tmp_path, f"whisper --model {model} --seconds 0.3 0.5 --rounds 2")
    assert result["audio_seconds"] == pytest.approx(0.8)
    for name in ("padded", "utterance"):
        assert len(result["sides"][name]["seconds"]) == 2
    assert "audio s / s" in done.stdout
    if "torch" not in result["sides"]:
        assert "measured alone" in done.stderr


def test_features_prints_ratios_to_the_libraries_and_what_a_build_takes(tmp_path: Path):
    result, done = run_bench(tmp_path, "features --fraction 0.001 --files 2 --rounds 2 --build-rounds 1")
    assert result["files"] == 2
    assert result["build"]["files"] == 40  # one per speaker and class
    sides = result["sides"]
    for feature in ("stf", "prosody", "voice", "auditory"):
        assert sides[f"sejax {feature}"]["audio_seconds_per_second"] > 0
    for feature in ("mfcc", "mel"):
        assert len(sides[f"sejax {feature}"]["seconds"]) == 2
        assert sides[f"sejax {feature}"]["mean"] == pytest.approx(sides[f"librosa {feature}"]["mean"], abs=1e-3)
        assert result["speed_over"][f"librosa: {feature}"] > 0
    assert result["build"]["audio_seconds_per_second"] > 1
    assert "times as fast as librosa: mel" in done.stdout
    assert "times as fast as librosa's pyin, of pitch alone: prosody" in done.stdout
    if "pyAudioAnalysis stf" not in sides:
        assert "measured alone" in done.stderr


def test_corpus_plans_rows_of_which_it_builds_some(tmp_path: Path):
    table = corpus.write_table(tmp_path, 200)
    planned = corpus.step("plan", {"table": table, "cache_dir": str(tmp_path / "cache")})
    assert (planned["rows"], planned["files"]) == (200, 4)
    built = corpus.step("build", {"table": table, "cache_dir": str(tmp_path / "cache"), "rows": 70})
    assert (built["rows"], built["frames_bytes"]) == (70, 70 * 64_000)


def test_weighting_prints_ratios_to_constant_weights(tmp_path: Path):
    words = "weighting --streams ssl --schemes static imtl_g --runs 1 --utterances 32 --rounds 2 --tasks 4"
    result, done = run_bench(tmp_path, words)
    assert result["schemes"]["static"]["over_static"] == 1.0
    scheme = result["schemes"]["imtl_g"]
    assert scheme["kind"] == "gradients"
    assert len(scheme["seconds"]) == 2
    assert "of static" in done.stdout


def test_train_compares_stacked_with_solo_runs(tmp_path: Path):
    result, done = run_bench(tmp_path, "train --streams mel --utterances 32 --runs 2 --rounds 1 --prepare-at-once")
    for name in ("stacked", "solo"):
        side = result["sides"][name]
        assert side["visits_per_second"] > 0
        assert side["compile_seconds"] > 0
        assert 0 < side["fraction_of_matmul"] < 1
    assert result["sides"]["stacked"]["flops"] == result["sides"]["solo"]["flops"]
    assert "times as fast as one run after the other" in done.stdout


def test_compile_says_what_another_process_and_other_numbers_cost(tmp_path: Path):
    result, done = run_bench(tmp_path, "compile --streams mel --utterances 32")
    cold, *later = (result["sides"][name]["compile_seconds"] for name in ("cold", "again", "other_numbers"))
    assert max(later) < cold  # by far: they are read
    assert done.stdout.startswith("mel, 1 length bucket")


def test_growth_finds_the_exponent(tmp_path: Path):
    # The sizes of the other axes are one program: two runs, 64 utterances, a second each.
    words = "growth --streams mel --runs 1 2 --utterances 64 --seconds 1 --rounds 1 --full-seconds 0"
    result, _ = run_bench(tmp_path, words)
    axes = result["axes"]
    assert axes["runs"]["points"][1]["flops"] == 2 * axes["runs"]["points"][0]["flops"]
    assert np.isfinite(axes["runs"]["exponent"])
    for axis in ("utterances", "seconds"):  # of one size
        assert "exponent" not in axes[axis]


def test_the_recurrence_in_one_kernel_is_that_of_the_loop(tmp_path: Path):
    """Outputs and gradients, with utterances and features that do not fill the kernel's blocks."""
    result, done = run_bench(tmp_path, "recurrence --frames 7 1 --runs 2 --batch 5 --features 12 --rounds 1")
    assert result["interpreted"]
    assert [point["frames"] for point in result["points"]] == [7, 1]
    assert max(point["most_apart"] for point in result["points"]) < 1e-5
    assert "kernel ms" in done.stdout


def test_the_exponent_is_the_slope_and_prices_are_relative():
    points = [{"flops": work, "epoch_seconds": 2 * work**1.5} for work in (1.0, 4.0, 16.0)]
    assert growth.growth_of(points) == pytest.approx({"exponent": 1.5, "last_over_first": 4.0, "most_over_first": 4.0})


@pytest.mark.parametrize("streams", [("mfcc", "ssl"), ("stf", "mel")])
def test_step_flops_are_those_that_xla_counts(streams: tuple[str, ...]):
    """Counts a gradient. XLA counts a recurrence once, and operations other than matrix products."""
    study = Study(default_options(streams=streams, batch_size=4))
    frames = {name: jnp.zeros((4, 200 // s.stride * 2, s.size)) for name, s in study.streams.items()}
    masks = {name: jnp.ones(x.shape[:2], bool) for name, x in frames.items()}
    statistics = {name: jnp.zeros((4, STATISTICS * s.size)) for name, s in study.streams.items()}
    model, rates = joint_model(study), Rates(jnp.float32(0), jnp.float32(0))
    params = jax.eval_shape(model.init, jax.random.key(0), frames, masks, statistics, rates)

    def loss(params):
        return sum(x.sum() for x in model.apply(params, frames, masks, statistics, rates))

    counted = jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]
    flops = step_flops(study, {name: x.shape[1] for name, x in frames.items()})
    assert flops == pytest.approx(counted, rel=0.25)
