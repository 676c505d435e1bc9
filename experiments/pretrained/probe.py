"""Which hidden states of a pretrained model know emotion, and how should they be read?

    python -m experiments.pretrained.probe --corpus emodb --data-dir emodb.zip --model FOLDER --workdir runs/layers

Studies of `configs/probe.py`, each with another reading of the same frozen hidden states: every layer alone, all mixed
by learned weights, all side by side (the config's own), the last layer (which is a single layer again), and for each
run the single layer that is best on its validation speakers. Prints a Markdown table, also written to table.md in the
workdir. Differences are paired over speakers with "joined". A workdir that holds finished studies
of the same options is only read.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs.probe import get_config
from experiments.train import train_once
from sejax.comparison.tables import paired_cells
from sejax.corpora.read import CORPORA
from sejax.errors import InputError
from sejax.evaluation.intervals import summarise
from sejax.evaluation.paired import Pair, compare
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.selection import read_history
from sejax.evaluation.tables import COLUMNS
from sejax.host.atomic import atomic_write
from sejax.pretrained import STREAMS
from sejax.pretrained.convert import find_pretrained
from sejax.workdir import files
from sejax.workdir.job import HISTORY

JOINED, MIXED, CHOSEN = "joined", "mixed", "chosen on validation"


def readings(config: ConfigDict, stream: str, layers: int) -> dict[str, ConfigDict]:
    """Returns the config of each reading of a model of so many layers, by name."""
    configs = {JOINED: config.copy_and_resolve_references()}
    configs[MIXED] = config.copy_and_resolve_references()
    configs[MIXED].model.joined_states = False
    for layer in range(layers + 1):
        one = configs[MIXED].copy_and_resolve_references()
        one.features.ssl[stream].layers = str(layer)
        configs[f"layer {layer}"] = one
    return configs


def best_validation(workdir: Path) -> dict[tuple[str, int], float]:
    """Returns the best validation score of each run, by fold and seed."""
    best: dict[tuple[str, int], float] = {}
    for row in read_history(str(workdir / HISTORY)):
        key = row["fold"], row["seed"]
        best[key] = max(best.get(key, -np.inf), row["score"])
    return best


def choose(
    predictions: Mapping[str, Predictions], scores: Mapping[str, Mapping[tuple[str, int], float]]
) -> Predictions:
    """Returns the predictions of the reading that is best on validation, run by run; of equals the first."""
    parts = []
    for fold, seed in next(iter(scores.values())):
        name = max(scores, key=lambda name: scores[name][fold, seed])
        rows = predictions[name]
        parts.append(rows.select((rows.fold == fold) & (rows.seed == seed)))
    return Predictions.concatenate(parts)


def table(predictions: Mapping[str, Predictions], *, n_bootstrap: int = 1000) -> str:
    """Returns a Markdown table of all readings: pooled accuracies with 95 % intervals, differences to "joined"."""
    pairs = [Pair(name, JOINED, "ua") for name in predictions if name != JOINED]
    differences = {found.pair.setting: found for found in compare(predictions, pairs)}
    lines = ["| | WA % | UA % | UA − joined | p | Holm |", "|---|---|---|---|---|---|"]
    for name, rows in predictions.items():
        metrics = summarise(rows, n_bootstrap=n_bootstrap)[0]["metrics"]
        cells = [COLUMNS[key].estimate(metrics[key]) for key in ("wa", "ua")]
        cells += ["", "", ""] if name == JOINED else paired_cells(differences[name])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, default="emodb")
    parser.add_argument("--data-dir", required=True, help="the corpus")
    parser.add_argument("--stream", choices=STREAMS, default="whisper")
    parser.add_argument("--model", help="folder or hub id; the stream's own checkpoint otherwise")
    parser.add_argument("--cache-dir", help="of features, in place of the config's")
    parser.add_argument("--workdir", type=Path, required=True, help="holds a workdir for each reading")
    parser.add_argument("--seeds", type=int, help="in place of the config's")
    arguments = parser.parse_args(words)
    try:
        rows = _results(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(rows)


def _results(arguments: argparse.Namespace) -> str:
    """Trains the studies that are not finished, and returns the table of all readings."""
    config = get_config(f"{arguments.corpus},{arguments.stream}")
    config.data_dir = arguments.data_dir
    if arguments.seeds is not None:
        config.seeds = arguments.seeds
    config.cache_dir = arguments.cache_dir or config.cache_dir
    options = config.features.ssl[arguments.stream]
    options.model = arguments.model or options.model
    layers = find_pretrained(options.model, revision=options.revision).backbone.layers
    predictions, scores = {}, {}
    for name, reading in readings(config, arguments.stream, layers).items():
        workdir = arguments.workdir / name.replace(" ", "_")
        train_once(reading, workdir)
        predictions[name] = Predictions.read(str(workdir / files.PREDICTIONS))
        if name not in (JOINED, MIXED):
            scores[name] = best_validation(workdir)
    predictions[CHOSEN] = choose(predictions, scores)
    rows = table(predictions)
    with atomic_write(arguments.workdir / "table.md") as file:
        file.write(rows + "\n")
    return rows


if __name__ == "__main__":
    main()
