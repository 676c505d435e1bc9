import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sejax.data.balance import class_visits
from sejax.data.order import count_batches, epoch_order

LABEL = np.array([0] * 40 + [1] * 16 + [2] * 8)


def order_of(label=LABEL, *, temperatures=(1e6,), visited=None, epoch=1, buckets=2, batch_size=4, n_batches=None):
    rows = np.arange(len(label))
    return epoch_order(
        [rows[number::buckets] for number in range(buckets)],
        orders=[(3, np.ones(len(label), bool) if visited is None else visited) for _ in temperatures],
        epoch=epoch,
        batch_size=batch_size,
        views=1,
        n_batches=n_batches,
        class_temperature=temperatures,
        label=label,
    )


def visits_of(order, label=LABEL, *, number=0):
    """How often an order visits each utterance."""
    buckets = len(order.rows)
    rows = np.arange(len(label))
    seen = [rows[place::buckets][of_bucket[number]].ravel() for place, of_bucket in enumerate(order.rows)]
    return np.bincount(np.concatenate(seen), minlength=len(label))


def test_an_epoch_visits_the_classes_equally_often():
    visits = visits_of(order_of())
    of_class = np.bincount(LABEL, visits)
    assert visits.sum() == 64  # as long as without
    assert of_class.max() - of_class.min() <= 2  # 64 places, three classes, two buckets
    for number in range(3):
        assert np.ptp(visits[number == LABEL]) <= 1  # nobody of a class twice before all once


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_between_is_the_power_of_the_frequency(temperature: float):
    label = np.repeat([0, 1, 2], [1600, 400, 100])
    of_class = np.bincount(label, visits_of(order_of(label, temperatures=(temperature,), batch_size=20), label))
    share = np.array([1600, 400, 100]) ** (1 / temperature)
    assert_allclose(of_class / of_class.sum(), share / share.sum(), atol=0.005)


def test_a_temperature_of_one_changes_no_order():
    plain = epoch_order(
        [np.arange(64)[number::2] for number in range(2)],
        orders=[(3, np.ones(64, bool))] * 2,
        epoch=1,
        batch_size=4,
        views=1,
    )
    beside = order_of(temperatures=(1.0, 1e6))
    for ours, theirs in zip(plain.rows, beside.rows, strict=True):
        assert_array_equal(ours[0], theirs[0])
        assert (theirs[1] != theirs[0]).any()


def test_each_epoch_visits_others_of_a_frequent_class():
    one, two = (visits_of(order_of(epoch=epoch)) > 0 for epoch in (1, 2))
    assert one[LABEL > 0].all() and two[LABEL > 0].all()
    assert not one[LABEL == 0].all() and (one != two).any()
    assert_array_equal(visits_of(order_of(epoch=2)) > 0, two)  # a resumed run has the same


def test_labels_of_the_held_out_change_no_batch():
    visited = np.arange(64) % 4 != 0
    garbage = np.where(visited, LABEL, -7)
    for ours, theirs in zip(order_of(visited=visited).rows, order_of(garbage, visited=visited).rows, strict=True):
        assert_array_equal(ours, theirs)


def test_utterances_without_a_class_keep_their_share():
    label = np.where(np.arange(64) % 4 == 0, -1, LABEL)
    visits = visits_of(order_of(label), label)
    assert abs(visits[label == -1].sum() - 16) <= 1
    of_class = np.bincount(label[label >= 0], visits[label >= 0])
    assert of_class.max() - of_class.min() <= 2
    nobody = np.full(64, -1)
    assert_array_equal(visits_of(order_of(nobody), nobody), np.ones(64))


def test_a_class_that_is_in_one_bucket_only():
    """Class 1 cannot fill half of the places; all places are filled, and all of its bucket's are its own."""
    visits = class_visits(np.array([[0, 8, 0], [0, 0, 2]]), np.array([8, 4]), 1e6)
    assert_array_equal(visits, [[0, 8, 0], [0, 0, 4]])


@settings(max_examples=50)
@given(
    count=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=3),
    temperature=st.sampled_from([1.0, 3.0, 1e6]),
    extra=st.integers(0, 5),
)
def test_every_place_is_filled_with_what_is_there(count, temperature, extra):
    table = np.array(count)
    places = table.sum(axis=1) + extra
    visits = class_visits(table, places, temperature)
    assert (visits[table == 0] == 0).all()
    assert_array_equal(visits.sum(axis=1), np.where(table.sum(axis=1) > 0, places, 0))
    if temperature == 1.0 and not extra:
        assert_array_equal(visits, table)


def test_corpus_visits_and_classes_go_together():
    """Three visits of each utterance in the second half make the epoch longer; the classes are equal in it."""
    visits = np.where(np.arange(64) < 32, 1.0, 3.0)
    orders = [(0, np.ones(64, bool))]
    batches = count_batches([np.arange(64)], orders=orders, batch_size=4, visits=visits)
    order = epoch_order(
        [np.arange(64)],
        orders=orders,
        epoch=1,
        batch_size=4,
        views=1,
        visits=visits,
        class_temperature=(1e6,),
        label=LABEL,
    )
    of_class = np.bincount(LABEL, visits_of(order))
    assert of_class.sum() == 4 * batches[0] == 128
    assert of_class.max() - of_class.min() <= 1
