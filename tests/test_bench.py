"""The benchmark tool on the smallest case: its table and its JSON, with and without the other side."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import ROOT, environment

sys.path.insert(0, str(ROOT / "tools"))
from bench import make_batches


def test_batches_hold_all_utterances_and_no_more_than_they_may():
    batches = make_batches([1.0, 5.0, 3.0, 2.0, 9.0], 6.0)
    assert sorted(n for batch in batches for n in batch) == [16_000, 32_000, 48_000, 80_000, 144_000]
    assert batches[0] == [144_000]  # longer than a batch may be: alone
    assert all(len(batch) * batch[0] <= 6.0 * 16_000 for batch in batches[1:])


def test_ssl_prints_a_table_and_writes_json(tmp_path: Path):
    out = tmp_path / "bench.json"
    words = ["ssl", "--size", "tiny", "--seconds", "0.3", "0.5", "--rounds", "2", "--out", str(out)]
    found = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "bench.py"), *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    result = json.loads(out.read_text())
    assert result["audio_seconds"] == pytest.approx(0.8)
    own = result["sides"]["jax"]
    assert len(own["seconds"]) == 2
    assert own["peak_bytes"] > 1e7
    assert own["fraction_of_matmul_peak"] > 0
    assert "audio s / s" in found.stdout
    if "torch" not in result["sides"]:
        assert "measured alone" in found.stderr
