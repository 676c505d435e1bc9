"""The classical baselines of a study: one run per fold and baseline, predicted as the study's own runs are."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from sejax.classical.svm import Chosen, Fitted, fit_fold
from sejax.corpora.schema import Corpus
from sejax.data.buckets import label_targets
from sejax.engine.feed import Tested
from sejax.engine.runs import RunKey
from sejax.host.processes import map_in_threads
from sejax.host.progress import progress_bar
from sejax.protocols.folds import Fold
from sejax.resolve.baselines import Baselines

_BYTES = 2 << 30  # of the products that folds side by side may hold


class Trained(NamedTuple):
    """The runs of the baselines, by their numbers."""

    tested: dict[int, Tested]
    chosen: dict[int, Mapping[str, Chosen]]  # with what each was trained, by "class" and dimension


def train_baselines(baselines: Baselines, corpus: Corpus, folds: Sequence[Fold], *, refit: bool = False) -> Trained:
    """Trains every baseline on every fold, and predicts the validation and test utterances.

    Nothing is drawn at random, and the number of workers changes no bit: BLAS has one thread while folds are trained
    side by side.

    Args:
      baselines: of the study.
      corpus: of the study.
      folds: of the study.
      refit: whether test utterances are predicted by machines that are trained again on the training and validation
        utterances; see `fit_fold`.
    """
    label, (_, vad) = np.array(corpus.label_numbers()), label_targets(corpus, soft=False)

    def fit(run: RunKey) -> Fitted:
        return fit_fold(
            baselines.features[run.setting.name],
            label,
            vad,
            folds[run.fold],
            n_classes=len(corpus.classes),
            balanced=baselines.balanced,
            refit=refit,
        )

    tested: dict[int, Tested] = {}
    chosen: dict[int, Mapping[str, Chosen]] = {}
    largest = 16 * len(label) * max(int(fold.train.sum()) for fold in folds)
    threads = max(1, min(baselines.workers, _BYTES // largest))
    with threadpool_limits(1), progress_bar(len(baselines.runs), "classical baselines") as bar:
        fitted = map_in_threads(fit, baselines.runs, threads=threads, ahead=threads)
        for run, of_run in zip(baselines.runs, fitted, strict=True):
            tested[run.number] = _tested(of_run, folds[run.fold])
            chosen[run.number] = of_run.chosen
            bar.update()
    return Trained(tested, chosen)


def _tested(fitted: Fitted, fold: Fold) -> Tested:
    rows = {split: np.flatnonzero(getattr(fold, split)) for split in ("val", "test")}
    utterance = np.concatenate(list(rows.values()))
    split = np.repeat(list(rows), [len(of_split) for of_split in rows.values()])
    return Tested(utterance, split, fitted.prob[utterance], fitted.vad[utterance], {})
