"""Makes a bundle of a finished study: a folder that predicts without the study and its corpus.

    python -m sejax.export --workdir W --to FOLDER [--runs final|folds|RUN,...] [--setting NAME]

The folder has the parameters, the normalisation, what the inputs and the outputs are, and a model card. `final` is the
model of all speakers (config.final), `folds` the ensemble of the folds; a RUN is the number of a run in runs.csv, or a
fold, which stands for its runs of all seeds.

    python -m sejax.export --workdir W | --model BUNDLE --to FOLDER --format onnx|stablehlo [--seconds 3,10]

writes what runs without sejax: ONNX (extra onnx), which needs onnxruntime and numpy, or StableHLO, which needs jax. A
file holds utterances of up to so many seconds, in batches of any size. model.json says what goes in and what comes out.

    python -m sejax.export ... --push ID [--private] [--revision BRANCH]

uploads the folder to the Hugging Face hub, or with --model and without --to a bundle that is there already.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sejax.errors import InputError
from sejax.inference.choices import CHECKPOINTS
from sejax.inference.commands.loading import names_of
from sejax.inference.commands.running import run, use_compilation_cache

FORMATS = ("bundle", "onnx", "stablehlo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.to is None and not (given.model and given.push and given.format == "bundle"):
        parser.error("expected --to FOLDER")
    if given.model and given.format == "bundle" and given.to is not None:
        parser.error("--model is a bundle already: expected --format onnx or stablehlo, or --push alone")
    if given.seconds and given.format == "bundle":
        parser.error("--seconds is of --format onnx and stablehlo")
    if given.private and not given.push:
        parser.error("--private is of --push, which is not given")
    return run(lambda: _export(given), interrupted="nothing is written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sejax.export", description="Makes a bundle of a finished study, which predicts on its own."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", help="of the study")
    source.add_argument("--model", metavar="BUNDLE", help="a bundle, as a folder or a hub id, in place of a study")
    parser.add_argument("--to", metavar="FOLDER", help="where it is written")
    parser.add_argument(
        "--runs",
        help="of a study: final (default), folds, or numbers or folds of runs, by commas; of a bundle: default all",
    )
    parser.add_argument("--setting", help="of the study (default: the best on validation speakers)")
    parser.add_argument(
        "--checkpoints",
        choices=CHECKPOINTS,
        default="auto",
        help="embed pretrained checkpoints, or refer to the hub (default: embed those that are folders)",
    )
    parser.add_argument("--format", choices=FORMATS, default="bundle", help="bundle (default), onnx or stablehlo")
    parser.add_argument(
        "--seconds",
        metavar="S,...",
        help="of onnx and stablehlo: a file for utterances of up to each of these lengths (default: several, to 30 s)",
    )
    parser.add_argument("--push", metavar="ID", help="upload it to the Hugging Face hub, as OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="of --push: a new repository is private")
    parser.add_argument("--revision", default="main", help="branch of --push (default: main)")
    return parser


def _export(given: argparse.Namespace) -> int:
    folder = given.to or given.model
    if given.format != "bundle":
        _write_portable(given)
    elif given.workdir:
        _write_bundle(given, given.to)
    if given.push:
        from sejax.inference.push import push_folder

        print(push_folder(Path(folder), given.push, private=given.private, revision=given.revision))
    return 0


def _write_bundle(given: argparse.Namespace, to: str) -> None:
    from sejax.inference.export import describe, export_bundle

    exported = export_bundle(
        given.workdir,
        to,
        runs=names_of(given.runs or "final"),
        setting=given.setting,
        checkpoints=given.checkpoints,
    )
    for note in exported.notes:
        print(f"note: {note}")
    print(describe(exported))


def _write_portable(given: argparse.Namespace) -> None:
    use_compilation_cache()
    from sejax.inference.portable.write import describe, write_portable

    seconds = [_seconds(each) for each in given.seconds.split(",")] if given.seconds else []
    with tempfile.TemporaryDirectory() as temporary:
        source, runs = given.model, names_of(given.runs or "")
        if given.workdir:
            source, runs = f"{temporary}/bundle", []
            _write_bundle(given, source)
        print(describe(write_portable(source, given.to, kind=given.format, runs=runs, seconds=seconds)))


def _seconds(cell: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise InputError(f"--seconds has {cell!r}, expected numbers of seconds by commas, such as 3,10") from error
