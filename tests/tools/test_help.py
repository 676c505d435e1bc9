"""Every tool describes its use."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import ROOT, environment

TOOLS = [path for path in sorted((ROOT / "tools").glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_tools_print_their_usage(path: Path):
    done = subprocess.run(
        [sys.executable, str(path), "--help"], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
