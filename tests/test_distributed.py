"""A study on two processes, as two hosts would run it, is the study of one."""

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from tiny_study import ROOT, command, config_file, environment


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("localhost", 0))
        return own.getsockname()[1]


def test_two_processes_share_the_runs_and_resume(study: Path, tmp_path: Path, cache_dir: str):
    """`study` has two devices in one process; here each of two processes has one."""
    file, workdir = config_file(tmp_path, "study_config"), tmp_path / "workdir"
    words = command("--distributed", "--config", f"{file}:{cache_dir}", "--workdir", str(workdir))
    one_device = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"}

    def run() -> list[str]:
        address = f"localhost:{_free_port()}"
        with contextlib.ExitStack() as stack:
            processes = []
            for number in range(2):
                own = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)}
                log = stack.enter_context((tmp_path / f"log{number}.txt").open("w"))
                process = subprocess.Popen(
                    words, cwd=ROOT, env=environment() | one_device | own, stdout=log, stderr=subprocess.STDOUT
                )
                stack.callback(process.wait)
                stack.callback(process.kill)
                processes.append(process)
            codes = [process.wait(timeout=200) for process in processes]
        printed = [(tmp_path / f"log{number}.txt").read_text() for number in range(2)]
        assert codes == [0, 0], printed
        return printed

    leader, other = run()
    assert "report:" in leader
    assert "runs" not in other  # one of them speaks
    for name in ("predictions.csv", "runs.csv", "history.jsonl", "metrics.json"):
        assert (workdir / name).read_bytes() == (study / name).read_bytes(), name

    # From the checkpoint of both, without training: the files come back.
    (workdir / "predictions.csv").unlink()
    words += ["--mode", "evaluate"]
    run()
    assert (workdir / "predictions.csv").read_bytes() == (study / "predictions.csv").read_bytes()
