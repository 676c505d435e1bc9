"""The built package in an empty folder, without the checkout: its commands find everything that they read."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny_study import ROOT, write_voice

IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files as pip lays them out; setuptools builds it from a copy, without a network."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip(f"setuptools is {version('setuptools')}, expected 77 or later")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "sejax", folder / "source" / "sejax", ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / "source" / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    built = subprocess.run([sys.executable, "-c", build], cwd=folder / "source", capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, empty: Path, *arguments: str) -> str:
    """Runs Python in an empty folder; of sejax it has the wheel alone."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *_beside_the_environment()])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _beside_the_environment() -> list[str]:
    """Folders of PYTHONPATH that have no sejax of their own."""
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return [path for path in given if not Path(path, "sejax").exists()]


def test_the_wheel_has_every_file_of_the_package(installed: Path):
    def files(folder: Path) -> set[str]:
        found = {path.relative_to(folder).as_posix() for path in (folder / "sejax").rglob("*") if path.is_file()}
        return {name for name in found if "__pycache__" not in name}

    assert files(installed) == files(ROOT)


def test_export_and_predict(installed: Path, study: Path, tmp_path: Path):
    where = run(installed, tmp_path, "-c", "import sejax; print(sejax.__file__)")
    assert where.strip() == str(installed / "sejax" / "__init__.py")
    bundle, voice = tmp_path / "bundle", tmp_path / "voice.wav"
    write_voice(voice, seed=1)
    run(installed, tmp_path, "-m", "sejax.export", "--workdir", str(study), "--to", str(bundle), "--runs", "folds")
    header, row = run(installed, tmp_path, "-m", "sejax.predict", "--model", str(bundle), str(voice)).splitlines()
    assert header.startswith("file,start,end,label,") and row.startswith(f"{voice},")
