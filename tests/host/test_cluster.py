"""Tasks of a Ray cluster: what is tried again, and what is not."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import ROOT, environment

pytest.importorskip("ray")

# In a process of its own: Ray starts processes, which a process that uses jax is warned of.
TASKS = """
import os
import signal
import sys
from pathlib import Path

from sejax.errors import InputError
from sejax.host.cluster import Cluster


def work(folder, how):
    tries = Path(folder, how)
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if how == "wrong":
        raise InputError("the corpus is empty, expected utterances")
    if how == "never":
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
    if how == "twice" and len(tries.read_text()) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return how.upper()


def attempt(cluster, *hows, devices=1):
    try:
        calls = {f"job {how}": (sys.argv[1], how) for how in hows}
        print(sorted(cluster.run(work, calls, devices=devices)))
    except InputError as error:
        print("error:", error)


if __name__ == "__main__":
    from tasks import work  # as workers import it

    cluster = Cluster("config.jobs")
    attempt(cluster, "once", "twice")
    attempt(cluster, "wrong")
    attempt(cluster, "never")
    attempt(cluster, "large", devices=1000)
    cluster.close()
"""


def test_lost_and_failing_tasks_are_begun_again_and_then_refused_in_one_sentence(tmp_path: Path):
    file, folder = tmp_path / "tasks.py", tmp_path / "tries"
    file.write_text(TASKS)
    folder.mkdir()
    environ = environment(str(tmp_path)) | {"RAY_ADDRESS": "local"}
    finished = subprocess.run(
        [sys.executable, str(file), str(folder)], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 0, finished.stderr
    results, wrong, never, large = [line for line in finished.stdout.splitlines() if line[:1] in "[e"]
    assert results == "[('job once', 'ONCE'), ('job twice', 'TWICE')]"
    assert wrong == "error: job wrong: the corpus is empty, expected utterances"
    assert never == (
        "error: job never has failed 4 times, the last time with RuntimeError: RESOURCE_EXHAUSTED: out of memory; "
        "expected a machine that does it; the same command continues from the checkpoints"
    )
    assert large.startswith("error: each job needs 1,000 CPUs (config.devices), expected at most ")
    tries = {path.name: len(path.read_text()) for path in folder.iterdir()}
    assert tries == {"once": 1, "twice": 3, "wrong": 1, "never": 4}
    assert finished.stderr.count("note: job twice has failed (WorkerCrashedError") == 2
    assert "it continues from its checkpoint, attempt 3 of 4" in finished.stderr


def test_without_ray_the_extra_is_named():
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from sejax.errors import InputError\nfrom sejax.host.cluster import Cluster\n"
        "try:\n    Cluster('config.jobs')\nexcept InputError as error:\n    print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert said == "config.jobs is 'ray', but Ray is not installed, expected the extra: pip install 'sejax[ray]'\n"
