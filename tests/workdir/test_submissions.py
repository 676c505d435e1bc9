"""The predictions for hidden test sets as a challenge takes them."""

from dataclasses import replace

import numpy as np

from sejax.corpora.schema import Corpus, Utterance
from sejax.corpora.submission import SCORE_ORDER
from sejax.evaluation.predictions import Predictions
from sejax.workdir.submissions import write_submissions

NAMES = ("MSP-PODCAST_test3_0001", "MSP-PODCAST_test3_0002", "MSP-PODCAST_0003")


def study(name: str = "msp_podcast") -> tuple[Corpus, Predictions]:
    utterances = tuple(
        Utterance(id, "x.wav", f"s{i}", name, split="test3" if i < 2 else "test1", hidden=i < 2)
        for i, id in enumerate(NAMES)
    )
    rows = [(seed, place) for seed in (0, 1) for place in range(3)]
    prob = np.array([np.eye(8)[(place + seed) % 8] * 0.5 + 0.5 / 8 for seed, place in rows])
    predictions = Predictions(
        classes=SCORE_ORDER,
        run=np.array([seed for seed, _ in rows]),
        fold=np.full(6, "official"),
        seed=np.array([seed for seed, _ in rows]),
        setting=np.full(6, "static"),
        split=np.full(6, "test"),
        id=np.array([NAMES[place] for _, place in rows]),
        speaker=np.full(6, "s"),
        label=np.full(6, -1),
        prob=prob,
        vad=np.full((6, 3), np.nan),
        pred_vad=np.array([[2.0, 3.0, 8.0 + seed] for seed, _ in rows]),
    )
    return Corpus(name, SCORE_ORDER, (1.0, 7.0), utterances), predictions


def test_a_file_for_each_task_with_the_mean_of_the_seeds(tmp_path):
    corpus, predictions = study()
    paths = write_submissions(str(tmp_path), corpus, predictions)
    assert [path.name for path in paths] == ["test3-classes-1.csv", "test3-scores-1.csv", "test3-dimensions-1.csv"]
    classes = paths[0].read_text().splitlines()
    assert classes == ["FileName,EmoClass", f"{NAMES[0]}.wav,A", f"{NAMES[1]}.wav,S"]
    dimensions = paths[2].read_text().splitlines()
    assert dimensions[1] == f"{NAMES[0]}.wav,3.000000,2.000000,7.000000"


def test_only_what_is_predicted_and_hidden(tmp_path):
    corpus, predictions = study()
    without = replace(predictions, pred_vad=np.full((6, 3), np.nan))
    assert len(write_submissions(str(tmp_path), corpus, without)) == 2
    shown = replace(corpus, utterances=tuple(replace(u, hidden=False) for u in corpus.utterances))
    assert write_submissions(str(tmp_path), shown, predictions) == []
    assert write_submissions(str(tmp_path), *study("table")) == []
