"""Compares settings of one or several studies, paired over speakers:

    python -m sejax.compare WORKDIR[:SETTING] ... [--against SETTING | --pairs all] [--metrics ua,ccc_mean]
        [--markdown FILE] [--latex FILE] [--page FILE] [--json FILE]

A WORKDIR stands for all settings of its study. The others are compared with the first setting of the first workdir;
--against names another one, by the name of its row, its setting, or WORKDIR:SETTING. Nothing is chosen by results.

All settings must be tested on the same utterances, by whatever protocol and however trained. The difference is that of
the pooled metrics. p is of a permutation test that exchanges the predictions of two settings speaker by speaker, and is
also shown corrected for all comparisons of the table (Holm); the interval is a bootstrap over speakers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sejax.errors import InputError
from sejax.inference.commands.loading import names_of
from sejax.inference.commands.running import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = _parser().parse_args(arguments)
    return run(lambda: _compare(given), interrupted="nothing is written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sejax.compare",
        description="Compares settings of one or several studies, paired over speakers.",
        allow_abbrev=False,
    )
    parser.add_argument("places", nargs="+", metavar="WORKDIR[:SETTING]", help="a finished study, or a setting of it")
    pairs = parser.add_mutually_exclusive_group()
    pairs.add_argument("--against", metavar="SETTING", help="what the others are compared with (default: the first)")
    pairs.add_argument(
        "--pairs", choices=("against", "all"), default="against", help="compare with one, or each with each"
    )
    parser.add_argument(
        "--metrics", type=names_of, metavar="M,...", help="such as wa,ua,ccc_valence (default: ua,ccc_mean)"
    )
    parser.add_argument(
        "--draws", type=int, metavar="N", help="of exchanges at most, and of the bootstrap (default: 10000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--latex", metavar="FILE", help="write the tables as LaTeX (package booktabs)")
    parser.add_argument("--page", metavar="FILE", help="write a page with the tables and a figure of the differences")
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    return parser


def _compare(given: argparse.Namespace) -> int:
    from sejax.comparison.compare import METRICS, as_json, make_comparison
    from sejax.comparison.page import render
    from sejax.comparison.rows import read_rows
    from sejax.comparison.tables import as_latex, as_markdown, as_text
    from sejax.evaluation.paired import DRAWS
    from sejax.evaluation.tables import COLUMNS
    from sejax.host.atomic import atomic_write
    from sejax.host.json_files import write_json

    metrics = tuple(dict.fromkeys(given.metrics or METRICS))
    if unknown := [name for name in metrics if name not in COLUMNS]:
        raise InputError(f"--metrics has {', '.join(unknown)}, expected names of {', '.join(COLUMNS)}")
    draws = DRAWS if given.draws is None else given.draws
    for option, value, least in (("--draws", draws, 100), ("--seed", given.seed, 0)):
        if value < least:
            raise InputError(f"{option} is {value}, expected {least} or more")
    files = {name: _file(name, getattr(given, name)) for name in ("markdown", "latex", "page", "json")}
    studies, rows = read_rows(given.places)
    comparison = make_comparison(
        studies,
        rows,
        against=given.against,
        all_pairs=given.pairs == "all",
        metrics=metrics,
        draws=draws,
        seed=given.seed,
    )
    for name, form in {"markdown": as_markdown, "latex": as_latex, "page": render}.items():
        if path := files[name]:
            with atomic_write(path) as file:
                file.write(form(comparison))
    if path := files["json"]:
        write_json(path, as_json(comparison))
    print(as_text(comparison))
    return 0


def _file(option: str, given: str | None) -> Path | None:
    """Returns the path that an option names, before any work."""
    if given is None:
        return None
    path = Path(given).expanduser()
    if not path.parent.is_dir():
        raise InputError(f"--{option} is {given!r}, expected a file in a folder that exists")
    return path
