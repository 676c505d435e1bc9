"""Jobs on a Ray cluster of this machine: the bytes of a single process, also where a worker is killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from tiny_study import ROOT, command, config_file, environment, ray_worker, tiny_config

pytest.importorskip("ray")

ALONE = {"RAY_ADDRESS": "local", "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"}
RESULTS = ("predictions.csv", "runs.csv", "history.jsonl", "metrics.json", "data.json")
SECONDS = 240.0


def two_programs(cache_dir: str) -> ConfigDict:
    """Returns a study of two programs, which train for some seconds."""
    config = tiny_config(cache_dir)
    config.epochs = 12
    config.folds = 3
    config.grid.batch_size = (8, 4)
    return config


def test_a_killed_worker_continues_to_the_bytes_of_a_single_process(tmp_path: Path, cache_dir: str):
    file, workdir, single = config_file(tmp_path, "two_programs", "test_ray"), tmp_path / "workdir", tmp_path / "single"
    words = command("--config", f"{file}:{cache_dir}", "--config.jobs=ray", "--workdir", str(workdir))
    environ, log = environment(str(Path(__file__).parent)) | ALONE, tmp_path / "log.txt"
    with log.open("w") as out:
        study = subprocess.Popen(words, cwd=ROOT, env=environ, stdout=out, stderr=subprocess.STDOUT)
    try:
        end, victim = time.monotonic() + SECONDS, None
        while victim is None and study.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
            if (workdir / "checkpoints" / "program-2" / "2").exists():
                victim = ray_worker(study.pid, "program 2 of 2")
        assert victim is not None, log.read_text()
        victim.send_signal(signal.SIGKILL)
        assert study.wait(SECONDS) == 0, log.read_text()
    finally:
        study.kill()
    said = log.read_text()
    assert "note: program 2 of 2 has failed (WorkerCrashedError" in said, said
    assert "(program 2 of 2 pid=" in said and "continuing after epoch" in said, said

    # Programs that are compiled for another number of devices, or compute with another number of threads, may round in
    # another way.
    words = command("--config", f"{file}:{cache_dir}", "--config.devices=1", "--workdir", str(single))
    subprocess.run(words, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=SECONDS)
    for name in RESULTS:
        assert (workdir / name).read_bytes() == (single / name).read_bytes(), name
    for number in (1, 2):
        trained = Path("trained", f"program-{number}", "model.safetensors")
        assert (workdir / trained).read_bytes() == (single / trained).read_bytes()
    assert not (workdir / "jobs").exists()
