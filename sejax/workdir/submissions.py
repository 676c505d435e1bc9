"""The predictions for hidden test sets, as files that a challenge takes: `submissions/test3-classes-1.csv`."""

from pathlib import Path

import numpy as np

from sejax.corpora.schema import Corpus
from sejax.corpora.submission import CORPUS, HEADERS, SCORE_ORDER, Submission, write_submission
from sejax.evaluation.predictions import Predictions

SUBMISSIONS = "submissions"


def write_submissions(workdir: str, corpus: Corpus, predictions: Predictions) -> list[Path]:
    """Writes a file for each hidden test set, setting and task that the setting predicts; returns their paths.

    The files of a setting end in its number, from 1. Seeds are averaged. Without utterances whose labels the owners of
    the corpus keep to themselves, or with a corpus that has no challenge, nothing is written.

    Args:
      workdir: of the study.
      corpus: of the study.
      predictions: of all runs.
    """
    split_of = {u.id: u.split or "hidden" for u in corpus.utterances if u.hidden}
    if corpus.name != CORPUS or not split_of:
        return []
    tested = predictions.of("test")
    hidden = tested.select(np.array([name in split_of for name in tested.id.tolist()], bool)).average_seeds()
    paths = []
    for number, rows in enumerate(hidden.by("setting").values(), 1):
        splits = np.array([split_of[name] for name in rows.id.tolist()])
        for split in dict.fromkeys(splits.tolist()):
            own = rows.select(splits == split)
            submission = Submission(tuple(own.id.tolist()), own.classes, own.prob, own.pred_vad)
            for kind in HEADERS:
                if _predicts(submission, kind):
                    paths.append(Path(workdir, SUBMISSIONS, f"{split}-{kind}-{number}.csv"))
                    paths[-1].parent.mkdir(exist_ok=True)
                    write_submission(submission, str(paths[-1]), kind)
    return paths


def _predicts(submission: Submission, kind: str) -> bool:
    """Returns whether all that a task asks for is predicted."""
    if kind == "dimensions":
        return bool(np.isfinite(submission.vad).all())
    known = bool(submission.classes) and bool(np.isfinite(submission.probabilities).all())
    if kind == "scores":
        return known and set(SCORE_ORDER) <= set(submission.classes)
    return known and set(submission.classes) <= set(SCORE_ORDER)
