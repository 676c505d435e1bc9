"""README's section *Extending*, followed to the letter in a copy of the package."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import ROOT, environment, write_voice

BLOCK = re.compile(r"```python\n# (.+?)\n(.*?)```", re.DOTALL)

STUDY = """
import sys

from sejax.study import train_and_evaluate
from tiny_study import shrink
from sejax.config import default_config


def config(cache_dir):
    config = shrink(default_config(), cache_dir)
    config.corpus, config.data_dir = "moods", "moods"
    config.streams = ("loudness",)
    config.model.encoder.loudness = "feed_forward"
    config.weighting = "largest"
    config.protocol = "texts"
    config.batch_size = 4
    return config


if __name__ == "__main__":
    train_and_evaluate(config("cache"), "workdir")
"""


def blocks() -> list[tuple[str, str]]:
    """Returns the first line, without the comment sign, and the rest of each block of the section."""
    section = (ROOT / "README.md").read_text().partition("## Extending")[2].partition("\n## ")[0]
    return BLOCK.findall(section)


def apply(folder: Path, target: str, code: str) -> None:
    """Writes a new file; or adds the import and the row of a block to a registry."""
    registry, _, path = target.rpartition(" in ")
    file = folder / path
    if not registry:
        assert not file.exists(), path
        file.write_text(code)
        return
    lines = code.splitlines()
    imports = [line for line in lines if line.startswith("from ")]
    rows = [f"    {line}" for line in lines if line and line not in imports]
    text = file.read_text()
    start = re.search(rf"^{registry}\b.*\{{$", text, re.MULTILINE)
    assert start, f"{path} has no dict {registry}"
    text = text[: start.end()] + "\n" + "\n".join(rows) + text[start.end() :]
    first_import = re.search(r"^(from|import) ", text, re.MULTILINE)
    assert first_import
    file.write_text(text[: first_import.start()] + "\n".join(imports) + "\n" + text[first_import.start() :])


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extended package and a corpus of Moods, in which the study has been run."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "sejax", folder / "sejax", ignore=shutil.ignore_patterns("__pycache__"))
    for target, code in blocks():
        apply(folder, target, code)
    (folder / "moods").mkdir()
    for i in range(16):  # each speaker says a text of their own, as the protocol asks
        speaker, label = i // 2, ("happy", "sad")[i % 2]
        write_voice(folder / "moods" / f"s{speaker}_{label}_{speaker:02d}.wav", seed=i)
    (folder / "study.py").write_text(STUDY)
    done = subprocess.run(
        [sys.executable, "study.py"],
        cwd=folder,
        env=environment(str(folder)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_kind_of_extension_has_a_block():
    assert [target for target, _ in blocks() if " in " in target] == [
        "CORPORA in sejax/corpora/read.py",
        "FEATURES in sejax/features/registry.py",
        "ENCODERS in sejax/models/encoders.py",
        "SCHEMES in sejax/weighting/__init__.py",
        "PROTOCOLS in sejax/protocols/registry.py",
        "CLASS_METRICS in sejax/evaluation/metrics.py",
    ]


def test_what_was_added_is_used(extended: Path):
    metrics = json.loads((extended / "workdir" / "metrics.json").read_text())
    assert metrics["corpus"]["name"] == "moods" and metrics["corpus"]["classes"] == ["happy", "sad"]
    assert metrics["corpus"]["utterances"] == 16
    assert metrics["protocol"]["description"].startswith("leave one text out")
    (setting,) = metrics["settings"]
    assert setting["name"] == "largest"
    assert 0 <= setting["metrics"]["worst_recall"]["pooled"] <= setting["metrics"]["ua"]["pooled"]
    assert "loudness_encoder" in (extended / "workdir" / "parameters.txt").read_text()
    assert "worst recall" in (extended / "workdir" / "report.html").read_text()
