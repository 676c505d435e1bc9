"""The measurements of a GPU in one command, rehearsed on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tiny_study import ROOT, environment

from tools import bench, gpu


def test_a_part_is_rehearsed_and_left_out_when_it_is_done(tmp_path: Path):
    words = [sys.executable, str(ROOT / "tools" / "gpu.py"), "--rehearse", "--parts", "ssl", "--out", str(tmp_path)]
    for line in ("ssl: at most 55 s", f"ssl: {tmp_path / 'ssl.json'} is there"):
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert line in done.stdout.splitlines()
    result = json.loads((tmp_path / "ssl.json").read_text())
    assert result["what"] == "ssl" and len(result["sides"]["jax"]["seconds"]) == 1


def test_every_part_is_a_command_that_fits_into_ten_minutes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run: list[str] = []
    for name, benchmark in bench.BENCHMARKS.items():
        monkeypatch.setattr(benchmark, "run", lambda _, name=name: run.append(name) or {})
        monkeypatch.setattr(benchmark, "show", lambda _: None)
    for part in gpu.PARTS[1:]:
        for size in (part.size, part.rehearsal):
            bench.main([*part.words[1:], *size, "--out", str(tmp_path / "out.json")])
            assert run.pop() == part.words[1]
    assert sum(part.seconds for part in gpu.PARTS) < 600  # with the transfers, the limit of a lent machine
    assert [part.name for part in gpu.PARTS[:2]] == ["correctness", "train"]


def test_a_part_that_takes_too_long_ends_with_all_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    file = tmp_path / "pid"
    child = "import subprocess; child = subprocess.Popen(['sleep', '600']); "
    program = f"{child}open({str(file)!r}, 'w').write(str(child.pid)); child.wait()"
    assert not gpu.run_part(gpu.Part("slow", 4, ["-c", program]), tmp_path, rehearse=False)
    assert "slow: stopped" in capfd.readouterr().out
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid := int(file.read_text())) else [], 5)
    assert not alive


def test_what_is_lacking_is_installed_from_wheels_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(gpu, "WHL", tmp_path / "whl")
    monkeypatch.setattr(gpu, "SITE", tmp_path / "site")
    gpu.install()
    assert not (tmp_path / "site").exists()  # all is there
    monkeypatch.setattr(gpu, "NEEDED", ("optax", "none_such"))
    with pytest.raises(SystemExit, match=rf"has no none_such, nor has {tmp_path}/whl; expected wheels from\n  python3"):
        gpu.install()
