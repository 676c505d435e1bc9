from sejax.host.wording import count


def test_count():
    assert [count(number, "fold") for number in (0, 1, 2, 10039)] == ["0 folds", "1 fold", "2 folds", "10,039 folds"]
