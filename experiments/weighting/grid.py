"""Which task weighting? Schemes beside constant weights and the two single-task models.

    python -m experiments.weighting.grid --corpus synthetic --workdir runs/weighting
    python -m experiments.weighting.grid --corpus iemocap --data-dir IEMOCAP_full_release --workdir runs/weighting

Two studies of `configs/joint.py`, each one compiled program over all folds and seeds: constant weights at every
alpha, and every other scheme at alpha 0.5; `--alphas` and `--schemes` pick some of them. Prints a Markdown table, also
written to table.md in the workdir; a workdir that holds finished studies of the same options is only read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs.joint import get_config
from experiments.train import train_once
from sejax.comparison.tables import paired_cells
from sejax.corpora.read import CORPORA
from sejax.engine.tasks import TASKS
from sejax.errors import InputError
from sejax.evaluation.intervals import summarise
from sejax.evaluation.paired import Pair, compare
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import COLUMNS
from sejax.host.atomic import atomic_write
from sejax.weighting import SCHEMES
from sejax.workdir import files

ALPHAS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
ADAPTIVE = tuple(name for name in SCHEMES if name != "static")
STUDIES = ("alphas", "schemes")
# The score of each task, and the setting that trains this task alone.
SINGLE_TASK = {"ua": "alpha=1.0", "ccc_mean": "alpha=0.0"}


def study_configs(
    corpus: str, data_dir: str, alphas: Sequence[float] = ALPHAS, schemes: Sequence[str] = ADAPTIVE
) -> dict[str, ConfigDict]:
    """Returns the configs of the two studies, by the name of their workdir."""
    configs = {study: get_config(corpus) for study in STUDIES}
    for config in configs.values():
        config.data_dir = data_dir
        config.alpha, config.weighting = 0.5, "static"
        config.grid.alpha = config.grid.weighting = ()
    configs["alphas"].grid.alpha = tuple(alphas)
    configs["schemes"].grid.weighting = tuple(schemes)
    return configs


def table(studies: Sequence[Predictions], *, n_bootstrap: int = 1000) -> str:
    """Returns a Markdown table of all settings: pooled metrics and differences paired over speakers."""
    settings = {name: rows for study in studies for name, rows in study.by("setting").items()}
    pairs = [
        Pair(name, single, metric) for metric, single in SINGLE_TASK.items() for name in settings if name != single
    ]
    differences = {found.pair: found for found in compare(settings, pairs)}
    lines = [
        "| | WA % | UA % | CCC mean | UA − class alone | p | Holm | CCC − VAD alone | p | Holm |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in settings.items():
        (entry,) = summarise(rows, n_bootstrap=n_bootstrap)
        metrics = entry["metrics"]
        cells = [COLUMNS[key].estimate(metrics[key]) if key in metrics else "" for key in ("wa", "ua", "ccc_mean")]
        for metric, single in SINGLE_TASK.items():
            found = differences.get(Pair(name, single, metric))
            cells += paired_cells(found) if found else ["", "", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, default="synthetic")
    parser.add_argument("--data-dir", default="", help="folder of the corpus")
    parser.add_argument("--workdir", type=Path, required=True, help="holds a workdir for each of the two studies")
    parser.add_argument("--epochs", type=int, help="in place of the config's")
    parser.add_argument("--seeds", type=int, help="in place of the config's")
    parser.add_argument("--tasks", type=int, choices=sorted(map(len, TASKS)), help="in place of the config's two")
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS, help="1 and 0, the single tasks, among them")
    parser.add_argument("--schemes", nargs="+", choices=ADAPTIVE, default=ADAPTIVE)
    parser.add_argument("--statistics-only", action="store_true", help="no encoders: a twentieth of the cost")
    parser.add_argument("--fraction", type=float, help="of the synthetic corpus, in place of the config's")
    arguments = parser.parse_args(words)
    try:
        rows = _results(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(rows)


def _results(arguments: argparse.Namespace) -> str:
    """Trains the studies that are not finished, and returns the table of both."""
    if missing := {0.0, 1.0} - set(arguments.alphas):
        raise InputError(
            f"--alphas are {', '.join(map(str, arguments.alphas))}; expected {', '.join(map(str, sorted(missing)))} "
            "among them: every row is compared with the models of a single task"
        )
    configs = study_configs(arguments.corpus, arguments.data_dir, arguments.alphas, arguments.schemes)
    for name, config in configs.items():
        if arguments.epochs is not None:
            config.epochs = arguments.epochs
        if arguments.seeds is not None:
            config.seeds = arguments.seeds
        if arguments.tasks is not None:
            config.tasks = next(names for names in TASKS if len(names) == arguments.tasks)
        if arguments.fraction is not None:
            config.synthetic.fraction = arguments.fraction
        if arguments.statistics_only:
            for stream in config.streams:
                config.model.encoder[stream] = "none"
        train_once(config, arguments.workdir / name)
    rows = table([Predictions.read(str(arguments.workdir / name / files.PREDICTIONS)) for name in STUDIES])
    with atomic_write(arguments.workdir / "table.md") as file:
        file.write(rows + "\n")
    return rows


if __name__ == "__main__":
    main()
