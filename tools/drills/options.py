"""Gives every option of the config odd values, and trains with a sample of those that are accepted.

The values, and which of them make sense, are those of `tests/odd_values.py`: negative, zero, huge, not a number, of
other types, empty, nested. Each goes through `check_config`. Then `--runs` of the accepted ones are trained, as a tiny
study of the option's value.

Held: a refusal with one sentence that names the option; or a value that makes sense, and a run that ends with finite
results or with one sentence.
"""

import argparse
import functools
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from sejax.config import check_config, default_config
from sejax.errors import InputError
from tools.drills.parsers import sentence_problem
from tools.drills.study import Reference, command, complaint, prepare, results_problem
from tools.drills.study import run as run_command
from tools.drills.tally import ROOT, Failure, Tally, add_bounds, last_lines, rerun, try_all

sys.path.insert(0, str(ROOT / "tests"))

from odd_values import odd_values, options, sane, set_option

# Options that the tiny study does not read, or that say where it is.
WITHOUT_EFFECT = (
    "synthetic.",
    "finetune.",
    "features.ssl.",
    "features.stf.",
    "features.mel.",
    "features.prosody.",
    "features.voice.",
    "features.auditory.",
)
PLACES = ("cache_dir", "data_dir", "corpus")
# Whole numbers that cost nothing, however large.
CHEAP = ("seed", "patience", "checkpoint_every", "batch_size", "model.frozen_layers")
LARGEST = 64  # of the others that a run is given


@dataclass(frozen=True)
class Value:
    """An option, and the place of a value among its odd ones."""

    option: str
    place: int
    kind: str  # "checks" or "runs"

    @property
    def name(self) -> str:
        """The option and the place, and whether it is trained."""
        return f"{self.kind}:{self.option}:{self.place}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checks", type=int, help="values that are checked, drawn by the seed; else all")
    parser.add_argument("--runs", type=int, default=30, help="accepted values that are trained with (%(default)d)")
    add_bounds(parser, minutes=60)


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Checks all values, and trains with some."""
    checks, runs = list(_values()), list(_trained()) if arguments.runs or arguments.case else []
    if arguments.case:
        checks, runs = ([value for value in values if value.name == arguments.case] for values in (checks, runs))
    else:
        draw = random.Random(arguments.seed)
        runs = draw.sample(runs, min(arguments.runs, len(runs)))
        checks = checks if arguments.checks is None else draw.sample(checks, min(arguments.checks, len(checks)))
    tally = try_all(checks, _check, jobs=1, minutes=arguments.minutes)
    if runs:
        attempt = functools.partial(_train, reference=prepare(folder), scratch=scratch)
        tally.merge(try_all(runs, attempt, jobs=arguments.jobs, minutes=arguments.minutes))
    return tally


def get_config(words: str) -> ConfigDict:
    """Returns the config of `configs/joint.py:table,mfcc` with an odd value, for `--config=FILE:<option>:<place>`."""
    from configs import joint

    option, _, place = words.rpartition(":")
    config = joint.get_config("table,mfcc")
    set_option(config, option, odd_values(option)[int(place)])
    return config


def _values() -> Iterator[Value]:
    for option in options():
        for place in range(len(odd_values(option))):
            yield Value(option, place, "checks")


def _trained() -> Iterator[Value]:
    """Yields the accepted values that a tiny study reads and can afford."""
    for value in _values():
        option, odd = value.option, odd_values(value.option)[value.place]
        if option in PLACES or option.startswith(WITHOUT_EFFECT) or repr(odd) == repr(options()[option]):
            continue
        if isinstance(odd, int) and odd > LARGEST and option not in CHEAP:
            continue
        if not _refusal(option, odd):
            yield Value(option, value.place, "runs")


def _refusal(option: str, odd: object) -> str:
    """Returns the sentence with which a value is refused, "" if it is accepted."""
    config = default_config()
    try:
        set_option(config, option, odd)
        check_config(config)
    except InputError as error:
        return str(error)
    return ""


def _check(value: Value) -> Failure | None:
    odd = odd_values(value.option)[value.place]
    try:
        sentence = _refusal(value.option, odd)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if not sentence:
            problem = "" if sane(value.option, odd) else "is accepted"
        else:
            named = value.option in sentence or value.option.rpartition(".")[2] in sentence
            problem = sentence_problem(sentence) or ("" if named else f"is refused by {sentence!r}")
    return Failure(f"config.{value.option} = {odd!r:.80}: {problem}", rerun("options", value.name)) if problem else None


def _train(value: Value, reference: Reference, scratch: Path) -> Failure | None:
    """Trains the tiny study with a value; the options that make it tiny give way to it."""
    workdir = scratch / value.name
    words = [
        word
        for word in command(workdir, table=reference.table, cache=reference.cache)
        if not word.startswith(
            (f"--config.{value.option}=", "--config=", f"--config.{value.option.partition('.')[2]}=")
        )
    ]
    finished = run_command([*words, f"--config={Path(__file__).relative_to(ROOT)}:{value.option}:{value.place}"])
    problem = complaint(finished) or ("" if finished.status else results_problem(workdir))
    shutil.rmtree(workdir, ignore_errors=True)
    if not problem:
        return None
    odd = odd_values(value.option)[value.place]
    what = f"config.{value.option} = {odd!r:.80}: {problem}"
    return Failure(what, f"{rerun('options', value.name)} --folder FOLDER", last_lines(finished.out, finished.err))
