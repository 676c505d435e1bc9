from sejax.host.wording import count, first_names


def test_count():
    assert [count(number, "fold") for number in (0, 1, 2, 10039)] == ["0 folds", "1 fold", "2 folds", "10,039 folds"]


def test_first_names():
    names = [str(number) for number in range(1003)]
    assert first_names(names[:3], 3) == "0, 1, 2"
    assert first_names(iter(names[:4]), 3, "; ") == "0; 1; 2; and 1 more"
    assert first_names(names, 2) == "0, 1, and 1,001 more"
    assert first_names([], 3) == ""
