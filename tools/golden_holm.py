r"""Writes tests/golden/holm.json: p-values corrected by statsmodels.

    python3 -m venv /tmp/statsmodels
    /tmp/statsmodels/bin/pip install statsmodels numpy
    /tmp/statsmodels/bin/python tools/golden_holm.py

The file holds `cases`, each a list of p-values in no order, some with ties, and what
`statsmodels.stats.multitest.multipletests(p, method="holm")` makes of it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, describe, run_tool, versions

GOLDEN = FOLDER / "holm.json"


def make(path: Path) -> None:
    """Writes the golden file."""
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    cases = [rng.beta(0.5, 3, n).round(6) for n in (1, 2, 5, 52)]
    cases.append(rng.integers(1, 20, 30) / 1024)  # ties, as of ten speakers
    found = [{"p": p.tolist(), "corrected": multipletests(p, method="holm")[1].tolist()} for p in cases]
    made_with = versions("statsmodels", "numpy")
    path.write_text(json.dumps({"versions": made_with, "cases": found}, indent=1) + "\n")
    describe(path, made_with)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=GOLDEN, needs="statsmodels", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
