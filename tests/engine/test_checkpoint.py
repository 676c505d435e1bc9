import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax.engine.checkpoint import Checkpoints
from sejax.engine.runs import run_sharding
from sejax.engine.step import State
from sejax.errors import InputError


def make_state(width=3, fill=0.0):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(1, 2, 5, width)).astype(np.float32) + np.float32(fill)
    kernel[0, 0, 0, 0] = np.nan  # restored as it was, whatever it was
    params = {"trunk": {"dense": {"kernel": kernel, "bias": np.full((1, 2, width), 1e-30, np.float32)}}}
    state = State(
        params,
        jax.tree.map(np.copy, params),
        {"mu": params},
        {"seen": np.ones((1, 2), bool)},
        np.full((1, 2), 7, np.int32),
    )
    return jax.device_put(state, run_sharding(jax.local_devices()[:2]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir after three saves, and its last state."""
    workdir = str(tmp_path_factory.mktemp("workdir"))
    checkpoints = Checkpoints(workdir)
    assert checkpoints.latest() == 0
    for epoch in (5, 10, 15):
        checkpoints.save(epoch, (make_state(fill=epoch), {"score": jnp.ones((1, 2))}))
    checkpoints.close()
    return workdir


def test_a_state_comes_back_bit_for_bit_and_where_it_lay(saved):
    checkpoints = Checkpoints(saved)
    expected = (make_state(fill=15), {"score": jnp.ones((1, 2))})
    assert checkpoints.latest() == 15
    restored = checkpoints.restore(15, jax.tree.map(jnp.zeros_like, expected))
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)
    checkpoints.close()


def test_the_two_newest_are_kept(saved):
    checkpoints = Checkpoints(saved)
    earlier = checkpoints.restore(10, (make_state(), {"score": jnp.ones((1, 2))}))
    kernel = earlier[0].params["trunk"]["dense"]["kernel"]
    np.testing.assert_array_equal(kernel, make_state(fill=10).params["trunk"]["dense"]["kernel"])
    with pytest.raises(Exception, match="5"):
        checkpoints.restore(5, (make_state(), {"score": jnp.ones((1, 2))}))
    checkpoints.close()


def test_another_model_is_refused_in_one_sentence(saved):
    checkpoints = Checkpoints(saved)
    with pytest.raises(InputError) as error:
        checkpoints.restore(15, (make_state(width=4), {"score": jnp.ones((1, 2))}))
    message = str(error.value)
    assert "0/averaged/trunk/dense/bias is (1, 2, 3) there and (1, 2, 4) in this config" in message
    assert "6 arrays differ" in message
    assert saved in message
    checkpoints.close()


def test_an_array_that_is_not_there_is_named(saved):
    checkpoints = Checkpoints(saved)
    with pytest.raises(InputError, match=r"1/extra is absent there and \(2,\) in this config"):
        checkpoints.restore(15, (make_state(), {"score": jnp.ones((1, 2)), "extra": jnp.ones(2)}))
    checkpoints.close()
