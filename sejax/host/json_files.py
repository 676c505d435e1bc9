"""JSON files: read with a sentence for what is wrong with one, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from sejax.errors import InputError
from sejax.host.atomic import atomic_write
from sejax.host.wording import json_problem


def read_json(path: Path, expected: str) -> Any:
    """Reads a JSON file.

    Args:
      path: of the file.
      expected: what the file should be, for the error.

    Raises:
      InputError: it cannot be read or is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}), expected {expected}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} {json_problem(text, error)}, expected {expected}") from error


def write_json(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes JSON whole or not at all."""
    with atomic_write(path) as file:
        json.dump(tree, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
