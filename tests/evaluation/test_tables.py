"""Metrics as text."""

from sejax.evaluation.tables import COLUMNS, format_table

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
            },
            {"name": "alpha=1.0", "metrics": {}, "baselines": {}, "unpredicted": {"class": 7}},
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
        "alpha=1.0: 7 predictions of class are not finite, so it has no metrics: it diverged",
        "leave one speaker out; 1 fold, 2 seeds; pooled over all test utterances, "
        "[95 % interval, bootstrap over speakers]",
    ]
    assert [line.index("[") for line in (lines[1], lines[5])] == [len("  class-mean look-up") + 2 + 1 + 5] * 2
