"""How much does noise cost, and how much of it does training with noise give back?

    python -m experiments.robustness.run --data-dir emodb.zip --workdir runs/robustness

Studies of `configs/joint.py:emodb,mfcc,stf,mel` that train on clean speech, and on speech of which a half has white
noise, or white and pink noise. The model of each fold is then tested on its own held-out speaker, clean and under every
corruption of `TESTED`. Prints a Markdown table, also written to table.md in the workdir. A workdir that holds finished
studies of the same options is only read.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs.joint import get_config
from experiments.train import train_once
from sejax.comparison.tables import paired_cells
from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus
from sejax.data.cache import Wanted, build_features
from sejax.data.shards import StreamFeatures
from sejax.errors import InputError
from sejax.evaluation.intervals import summarise
from sejax.evaluation.paired import Pair, compare
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import COLUMNS
from sejax.features.corrupt import parse
from sejax.features.extract import Extraction
from sejax.host.atomic import atomic_write
from sejax.inference.bundle import load_bundle
from sejax.inference.export import export_bundle
from sejax.protocols.registry import make_folds
from sejax.workdir import files

LEVELS = (20, 10, 5, 0)  # dB
WHITE, PINK = (tuple(f"{colour}:{level}" for level in LEVELS) for colour in ("noise", "pink"))
CLEAN = "clean"
STREAMS = ("mfcc", "stf", "mel")  # without prosody, whose features then took sixteen times as long
# Corruptions that nobody trains on come last.
TESTED = (CLEAN, *WHITE, *PINK, "brown:5", "rir:0.6", "telephone", "mulaw")
# What is trained on, and the share of the utterances that are drawn from it.
TRAINED: Mapping[str, tuple[tuple[str, ...], float]] = {
    "white": (WHITE, 0.5),
    "white and pink": (WHITE + PINK, 0.5),
}


def study_configs(data_dir: str, cache_dir: str, seeds: int) -> dict[str, ConfigDict]:
    """Returns the config of each study, by what it trains on."""
    clean = get_config(f"emodb,{','.join(STREAMS)}")
    clean.data_dir, clean.seeds = data_dir, seeds
    clean.cache_dir = cache_dir or clean.cache_dir
    configs = {CLEAN: clean}
    for name, (corruptions, share) in TRAINED.items():
        configs[name] = clean.copy_and_resolve_references()
        configs[name].corruptions, configs[name].augment.corrupted = corruptions, share
    return configs


def predict(config: ConfigDict, workdir: Path, corpus: Corpus, condition: str) -> Predictions:
    """Returns the predictions of each fold's runs for its test speaker under a condition."""
    clean = Predictions.read(str(workdir / files.PREDICTIONS))
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(str(workdir), f"{folder}/model", runs=("folds",))
        prob, place = np.full_like(clean.prob, np.nan), {key: row for row, key in enumerate(_keys(clean))}
        for fold in make_folds(corpus.utterances, config.protocol):
            model = load_bundle(Path(folder, "model"), runs=(fold.name,))
            wanted = [
                Wanted(made.feature, made, 1.0, None if condition == CLEAN else parse(condition))
                for made in model.contents
            ]
            features = build_features(corpus, wanted, cache_dir=config.cache_dir, max_bad_fraction=0.0)
            tested = [corpus.utterances[row].id for row in np.flatnonzero(fold.test)]
            for utterance, outputs in zip(tested, model.score([_made(features, x) for x in tested]), strict=True):
                if isinstance(outputs, InputError):
                    raise outputs
                for seed, of_run in enumerate(outputs.prob):
                    prob[place[fold.name, config.seed + seed, utterance]] = of_run
    return Predictions(**{**vars(clean), "prob": prob})


def _keys(predictions: Predictions) -> list[tuple[str, int, str]]:
    return list(zip(predictions.fold.tolist(), predictions.seed.tolist(), predictions.id.tolist(), strict=True))


def _made(features: Sequence[StreamFeatures], utterance: str) -> list[Extraction]:
    """Returns what a model reads of an utterance, as it was stored."""
    return [
        Extraction(
            np.asarray(x.frames[utterance]), x.statistics[utterance], x.digest[utterance], "", "", x.seconds[utterance]
        )
        for x in features
    ]


def table(predictions: Mapping[tuple[str, str], Predictions]) -> str:
    """Returns a Markdown table: UA by condition and training, and what the last training gains on the first.

    Args:
      predictions: by what was trained on and the condition.
    """
    trained = list(dict.fromkeys(name for name, _ in predictions))
    conditions = list(dict.fromkeys(condition for _, condition in predictions))
    tests = {f"{name}, {condition}": rows for (name, condition), rows in predictions.items()}
    pairs = {c: Pair(f"{trained[-1]}, {c}", f"{CLEAN}, {c}", "ua") for c in conditions}
    differences = {found.pair: found for found in compare(tests, list(pairs.values()))}
    head = ["tested on", *trained, f"{trained[-1]}, paired with {CLEAN}", "p", "Holm"]
    rows = [head, ["---"] * len(head)]
    for condition in conditions:
        cells = [condition]
        for name in trained:
            (entry,) = summarise(predictions[name, condition])
            cells.append(COLUMNS["ua"].estimate(entry["metrics"]["ua"]))
        rows.append([*cells, *paired_cells(differences[pairs[condition]])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="EmoDB: the zip, or the unpacked folder")
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--cache-dir", default="")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    try:
        print(run(given))
    except InputError as error:
        sys.exit(f"error: {error}")


def run(arguments: argparse.Namespace) -> str:
    """Trains the studies, tests them, and returns the table."""
    configs = study_configs(arguments.data_dir, arguments.cache_dir, arguments.seeds)
    corpus = read_corpus("emodb", arguments.data_dir, labels="default")
    found = {}
    for name, config in configs.items():
        workdir = arguments.workdir / name.replace(" ", "_")
        train_once(config, workdir)
        for condition in TESTED:
            found[name, condition] = predict(config, workdir, corpus, condition)
        study = Predictions.read(str(workdir / files.PREDICTIONS))
        np.testing.assert_allclose(found[name, CLEAN].prob, study.prob, atol=1e-4)  # the models of the study itself
    rows = table(found)
    with atomic_write(arguments.workdir / "table.md") as file:
        file.write(rows + "\n")
    return rows


if __name__ == "__main__":
    main()
