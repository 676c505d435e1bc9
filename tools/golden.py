"""The common part of the tools `golden_<name>.py`, which write the numbers of other libraries for the tests.

Such a tool runs in an environment of its own, described in its docstring: it needs libraries that sejax does without.
"""

import argparse
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent.parent / "tests" / "golden"


def run_tool(
    make: Callable[[Path], None], *, out: Path, needs: str, description: str | None, arguments: Sequence[str] | None
) -> None:
    """Parses the command line and makes the golden file; exits with one sentence where a library is missing.

    Args:
      make: imports the libraries and writes the path that it is given.
      out: the path to write, unless the option `--out` names another.
      needs: names of the libraries, for the sentence.
      description: the tool's docstring.
      arguments: the words of the command line; None: those of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out, help="the path to write")
    out = parser.parse_args(arguments).out
    try:
        make(out)
    except ImportError as error:
        parser.exit(1, f"{needs} is not installed here ({error}): see --help for its environment\n")


def versions(*packages: str) -> list[str]:
    """Returns the versions of Python and of the packages, each as "name version"."""
    return [f"python {platform.python_version()}", *(f"{name} {importlib.metadata.version(name)}" for name in packages)]


def write(path: Path, arrays: Mapping[str, Any], made_with: Sequence[str]) -> None:
    """Writes arrays as a compressed npz file, together with the `versions` that made them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, versions=np.array(made_with), **arrays)
    describe(path, made_with)


def describe(path: Path, made_with: Sequence[str]) -> None:
    """Prints the size of a file, or of the files of a folder, and the versions that made it."""
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    print(f"{path}: {size / 1000:.0f} kB, made with {', '.join(made_with)}")
