"""Classes of one corpus and dimensions of another: what a model loses that never sees both labels of an utterance.

python -m experiments.across.labels_apart --workdir runs/apart --cache-dir ~/.cache/sejax

The synthetic corpus is cut by speakers into two. One study trains on both halves with all labels; the other on the
classes of the first half and the ratings of the second. Both leave the same speakers out, and both are scored on the
classes and ratings of all utterances, which the tables of the second study do not hold.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs import joint
from experiments.train import train_once
from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.schema import DIMENSIONS, Utterance
from sejax.evaluation.metrics import ccc, confusion_matrix, unweighted_accuracy

FIRST = ("Ses01", "Ses02")  # the sessions of the first half
BOTH = ("label", *DIMENSIONS)


def write_table(path: Path, utterances: Sequence[Utterance], columns: Sequence[str]) -> str:
    """Writes utterances as a table with some of their labels, and returns it as a source of `config.corpora`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "speaker", "session", *columns])
        for u in utterances:
            labels = {"label": u.label or "", **dict(zip(DIMENSIONS, map(str, u.vad), strict=True))}
            writer.writerow([u.id, u.path, u.speaker, u.session, *(labels[name] for name in columns)])
    return f"table/1..5:{path}"


def score(workdir: Path, truth: dict[str, Utterance], classes: Sequence[str]) -> dict[str, float]:
    """Returns UA and mean CCC over all test rows of a study, with labels that its tables may not hold."""
    with (workdir / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    scores: dict[str, list[float]] = {"ua": [], "ccc_mean": []}
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        of = [truth[row["id"].partition(":")[2]] for row in own]
        label = np.array([classes.index(str(u.label)) for u in of])
        prob = np.array([[float(row[f"prob_{name}"]) for name in classes] for row in own])
        scores["ua"].append(float(unweighted_accuracy(confusion_matrix(label, prob.argmax(axis=1), len(classes)))))
        predicted = np.array([[float(row[f"pred_{name}"]) for name in DIMENSIONS] for row in own])
        rated = np.array([u.vad for u in of])
        scores["ccc_mean"].append(float(np.mean([ccc(predicted[:, d], rated[:, d]) for d in range(len(DIMENSIONS))])))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def main() -> None:
    """Runs both studies and writes labels_apart.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--cache-dir", required=True)
    parser.add_argument("--fraction", type=float, default=0.4, help="of the 5,531 utterances")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    prepare = CORPORA["synthetic"].prepare
    assert prepare is not None
    corpus = read_corpus("synthetic", prepare("", given.cache_dir, {"fraction": given.fraction, "seed": 0}, None))
    halves = [[u for u in corpus.utterances if (u.session in FIRST) == first] for first in (True, False)]
    results = {}
    for name, columns in (("both labels everywhere", (BOTH, BOTH)), ("labels apart", (("label",), DIMENSIONS))):
        folder = given.workdir / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        config = joint.get_config("synthetic")
        config.corpora = tuple(
            write_table(folder / f"{half}.csv", utterances, of_half)
            for half, utterances, of_half in zip(("first", "second"), halves, columns, strict=True)
        )
        config.labels, config.protocol = "default", "joint"
        config.grid.alpha = ()
        config.model.encoder.mfcc = config.model.encoder.mel = "none"
        config.cache_dir, config.seeds = given.cache_dir, given.seeds
        train_once(config, folder / "study")
        results[name] = score(folder / "study", {u.id: u for u in corpus.utterances}, corpus.classes)
        print(name, results[name], flush=True)
    (given.workdir / "labels_apart.json").write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
