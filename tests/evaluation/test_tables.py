"""Metrics as text."""

from sejax.evaluation.tables import COLUMNS, format_table, remarks

METRIC = {"pooled": 0.61234, "fold_mean": 0.6, "ci95": [0.55, 0.67]}


def test_a_number_with_its_interval():
    assert COLUMNS["ua"].estimate(METRIC) == "61.2 [55.0, 67.0]"
    assert COLUMNS["ccc_mean"].estimate(METRIC) == "0.612 [0.550, 0.670]"
    assert COLUMNS["ccc_mean"].estimate({"pooled": -0.0001}) == "0.000"


def test_the_table_of_the_terminal():
    tree = {
        "settings": [
            {
                "name": "alpha=0.5",
                "metrics": {"ua": METRIC, "ccc_mean": METRIC},
                "seeds_averaged": {"ua": {"pooled": 0.7}},
                "baselines": {"class_mean_lookup": {"ccc_mean": {"pooled": 0.25}}},
                "calibration": {
                    "ece": {"before": 0.1234, "after": 0.0512},
                    "intervals": {"level": 0.9, "coverage": {"valence": 0.913, "arousal": 0.87}},
                },
            },
            {
                "name": "alpha=1.0",
                "metrics": {},
                "baselines": {},
                "unpredicted": {"class": 7},
                "calibration": {"ece": {"before": 0.2, "after": 0.0513}},
            },
        ],
        "baselines": {"majority": {"ua": {"pooled": 0.25, "ci95": [0.25, 0.25]}}},
        "protocol": {"description": "leave one speaker out", "folds": 1, "seeds": 2},
    }
    lines = format_table(tree).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "setting UA % CCC mean",
        "alpha=0.5 61.2 [55.0, 67.0] 0.612 [0.550, 0.670]",
        "seeds averaged 70.0 -",
        "class-mean look-up - 0.250",
        "alpha=1.0 - -",
        "majority class 25.0 [25.0, 25.0] -",
        "alpha=1.0: no metrics of class over all folds, because 7 test predictions of class are missing",
        "calibration error (ECE) 0.051 at the temperature of validation speakers, 0.123 to 0.200 without; "
        "90 % intervals cover 87.0 to 91.3 % of the ratings",
        "leave one speaker out; 1 fold, 2 seeds; pooled over all test utterances, "
        "[95 % interval, bootstrap over speakers]",
    ]
    assert [line.index("[") for line in (lines[1], lines[5])] == [len("  class-mean look-up") + 2 + 1 + 5] * 2


def diverged(*best_epochs):
    return [{"fold": f"s{n}", "seed": 0, "epoch": best + 1, "best_epoch": best} for n, best in enumerate(best_epochs)]


def test_remarks_on_what_is_missing():
    settings = [
        {"name": "fine"},
        {"name": "a", "diverged": diverged(3, 4)},
        {"name": "b", "diverged": diverged(0, 4), "unpredicted": {"class": 1}},
        {"name": "c", "diverged": diverged(0, 0, 0, 0, 0, 0)},
        {"name": "d", "untrained": {"valence": ["s1"], "class": ["s1", "s2", "s3", "s4", "s5"]}},
        {"name": "d", "unselected": ["s1"]},
        {"name": "e", "ccc_mean_over": ["arousal", "dominance"]},
    ]
    assert remarks({"settings": settings, "protocol": {"folds": 3, "seeds": 2}}) == [
        "a: 2 of 6 runs diverged (fold s0, seed 0, in epoch 4; fold s1, seed 0, in epoch 5), "
        "tested at the best epoch before",
        "b: 2 of 6 runs diverged (fold s0, seed 0, in epoch 1; fold s1, seed 0, in epoch 5), "
        "1 without an epoch before, the others tested at the best epoch before",
        "b: no metrics of class over all folds, because 1 test prediction of class is missing",
        "c: 6 of 6 runs diverged (fold s0, seed 0, in epoch 1; fold s1, seed 0, in epoch 1; "
        "fold s2, seed 0, in epoch 1; and 3 more), without an epoch before, so they predict nothing",
        "d: too few labels of valence to learn from in 1 fold (s1)",
        "d: too few labels of class to learn from in 5 folds (s1, s2, s3, and 2 more)",
        "d: no labels to choose the epoch by in 1 fold (s1), so the last one is tested there",
        "e: the mean CCC is that of arousal and dominance, because other ratings have none",
    ]
    (*_, last) = remarks({"settings": settings[3:4], "protocol": {"folds": 3, "seeds": 2}})
    assert last == "every run of this study diverged: a smaller config.learning_rate may help"
