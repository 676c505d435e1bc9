"""Makes a bundle of a finished study: a folder that predicts without the study and its corpus.

    python -m sejax.export --workdir W --to FOLDER [--runs final|folds|RUN,...] [--setting NAME]

The folder has the parameters, the normalisation, what the inputs and the outputs are, and a model card. `final` is the
model of all speakers (config.final), `folds` the ensemble of the folds; a RUN is the number of a run in runs.csv, or a
fold, which stands for its runs of all seeds.
"""

import argparse
from collections.abc import Sequence

from sejax.inference.commands.running import run

CHECKPOINTS = ("auto", "embed", "reference")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sejax.export", description="Makes a bundle of a finished study, which predicts on its own."
    )
    parser.add_argument("--workdir", required=True, help="of the study")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="of the bundle")
    parser.add_argument(
        "--runs", default="final", help="final (default), folds, or numbers or folds of runs, by commas"
    )
    parser.add_argument("--setting", help="of the study (default: the best on validation speakers)")
    parser.add_argument(
        "--checkpoints",
        choices=CHECKPOINTS,
        default="auto",
        help="embed pretrained checkpoints, or refer to the hub (default: embed those that are folders)",
    )
    given = parser.parse_args(arguments)
    return run(lambda: _export(given), interrupted="nothing is written")


def _export(given: argparse.Namespace) -> int:
    from sejax.inference.export import describe, export_bundle

    exported = export_bundle(
        given.workdir,
        given.to,
        runs=given.runs.split(","),
        setting=given.setting,
        checkpoints=given.checkpoints,
    )
    for note in exported.notes:
        print(f"note: {note}")
    print(describe(exported))
    return 0
