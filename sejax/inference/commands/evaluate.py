"""Tests a model on a corpus that it was not trained on, also under corruptions:

    python -m sejax.evaluate --model MODEL --config FILE [--config.OPTION=VALUE ...] [--corrupt noise:10,telephone]

MODEL is a bundle (`python -m sejax.export`), an emotion model of the Hugging Face hub or in its layout, or the workdir
of a study, whose folds predict together (--runs chooses others). Of the config only the corpus is used: corpus,
data_dir and labels, or corpora, each of which is a test of its own; cache_dir, workers, max_bad_fraction and bootstrap.

The classes of the model and of the corpus are brought together by their words, and with --config.labels=four by that
scheme; the first lines say how. UA is over the classes that both have, UA all over all classes of the corpus: the
recall of one that the model cannot name is 0. Dimensions are brought to the corpus's scale.

An utterance whose speaker or audio is of the model's own study is predicted by those runs alone that held its speaker
out; where there are none the command refuses, unless --allow-seen.

With --out a folder gets predictions.csv, whose `setting` is the test (of several corpora: a folder for each), and
evaluation.json.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sejax.errors import InputError
from sejax.inference.commands.loading import add_model_options, load_model
from sejax.inference.commands.running import run, use_compilation_cache

if TYPE_CHECKING:
    from sejax.inference.model import Model

_SCALE = re.compile(r"(-?\d+\.?\d*)\.\.(-?\d+\.?\d*)", re.ASCII)
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given, words = _parser().parse_known_args(arguments)
    return run(lambda: _evaluate(given, words), interrupted="nothing is written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sejax.evaluate",
        description="Tests a model on a corpus that it was not trained on.",
        epilog="--config FILE and --config.OPTION=VALUE name the corpus, as those of sejax.main.",
        allow_abbrev=False,
    )
    add_model_options(parser)
    parser.add_argument("--setting", help="of a workdir (default: the best on validation speakers)")
    parser.add_argument(
        "--corrupt", default="", metavar="C,...", help="tests beside the clean one, such as noise:10,rir:0.6+noise:5"
    )
    parser.add_argument("--scale", metavar="LOW..HIGH", help="of the dimensions of a model that does not say it")
    parser.add_argument(
        "--allow-seen", action="store_true", help="test on what the model was trained on; the numbers are optimistic"
    )
    parser.add_argument("--out", metavar="FOLDER", help="write predictions.csv and evaluation.json there")
    return parser


def _evaluate(given: argparse.Namespace, words: Sequence[str]) -> int:
    from sejax.evaluation.foreign import format_tests
    from sejax.features.corrupt import parse
    from sejax.inference.foreign import Options, evaluate
    from sejax.resolve.flag import parse_config
    from sejax.resolve.tested import read_tested

    config = parse_config(words)
    corruptions = [parse(text) for text in given.corrupt.split(",") if text]
    if len(set(map(str, corruptions))) < len(corruptions):
        raise InputError(f"--corrupt is {given.corrupt}, expected each corruption once")
    scale = _read_scale(given.scale)
    out = _make_folder(given.out)
    tested = read_tested(config)
    use_compilation_cache(f"{tested.cache_dir}/xla")
    options = Options(
        labels=tested.labels,
        corruptions=corruptions,
        scale=scale,
        allow_seen=given.allow_seen,
        workers=tested.workers,
        max_bad_fraction=tested.max_bad_fraction,
        n_bootstrap=tested.n_bootstrap,
    )
    with _loaded(given) as model:
        found = [evaluate(model, corpus, options) for corpus in tested.corpora]
        facts = _facts(given, model)
    trees = [tree for _, tree in found]
    print(format_tests(trees))
    if out:
        from sejax.host.json_files import write_json

        for predictions, tree in found:
            folder = out if len(found) == 1 else out / tree["corpus"]["name"]
            folder.mkdir(exist_ok=True)
            predictions.write(str(folder / PREDICTIONS))
        write_json(out / EVALUATION, {"model": facts, "corpora": trees})
    return 0


@contextmanager
def _loaded(given: argparse.Namespace) -> "Iterator[Model]":
    """Loads the model; that of a workdir from a bundle, which is deleted behind it."""
    from sejax.inference.export import export_bundle
    from sejax.workdir.trained import METRICS

    if not (Path(given.model).expanduser() / METRICS).is_file():
        if given.setting is not None:
            raise InputError(f"--setting is of a workdir, and {given.model} is none, expected no --setting")
        yield load_model(given)
        return
    with TemporaryDirectory() as temporary:
        bundle, workdir = f"{temporary}/bundle", str(Path(given.model).expanduser())
        export_bundle(workdir, bundle, runs=given.runs or ("folds",), setting=given.setting)
        yield load_model(argparse.Namespace(**{**vars(given), "model": bundle, "runs": []}))


def _facts(given: argparse.Namespace, model: "Model") -> dict[str, object]:
    """Returns what evaluation.json says of the model."""
    return {
        "name": given.model,
        "digest": model.digest,
        "runs": given.runs or None,
        "setting": given.setting,
        "trained_on": model.trained_on or None,
        "classes": list(model.names.classes),
        "dimensions": list(model.names.dimensions),
        "scale": None if model.scale is None else list(model.scale),
    }


def _read_scale(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    match = _SCALE.fullmatch(text)
    if match is None or not float(match[1]) < float(match[2]):
        raise InputError(f"--scale is {text!r}, expected the least and the greatest value, such as 1..7")
    return float(match[1]), float(match[2])


def _make_folder(out: str | None) -> Path | None:
    """Makes the folder of --out before hours of work."""
    if out is None:
        return None
    folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out is {out!r}, which cannot be made ({error.strerror}), expected a folder") from error
    return folder
