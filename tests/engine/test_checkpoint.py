import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from tiny_study import ROOT, environment

from sejax.engine.checkpoint import CHECKSUMS, DAMAGED, Checkpoints, hide_late_complaints
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
    checkpoints = Checkpoints(workdir, study="s")
    assert checkpoints.latest() == 0
    for epoch in (5, 10, 15):
        checkpoints.save(epoch, (make_state(fill=epoch), {"score": jnp.ones((1, 2))}))
    checkpoints.close()
    return workdir


def test_a_state_comes_back_bit_for_bit_and_where_it_lay(saved):
    checkpoints = Checkpoints(saved, study="s")
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
    checkpoints = Checkpoints(saved, study="s")
    earlier = checkpoints.restore(10, (make_state(), {"score": jnp.ones((1, 2))}))
    kernel = earlier[0].params["trunk"]["dense"]["kernel"]
    np.testing.assert_array_equal(kernel, make_state(fill=10).params["trunk"]["dense"]["kernel"])
    with pytest.raises(Exception, match="5"):
        checkpoints.restore(5, (make_state(), {"score": jnp.ones((1, 2))}))
    checkpoints.close()


def test_a_checkpoint_of_an_older_version_is_named(saved):
    checkpoints = Checkpoints(saved, study="s")
    vector = make_state()._replace(params=jnp.ones((1, 2, 15)), averaged=jnp.ones((1, 2, 15)))
    with pytest.raises(InputError, match=r"15 is a checkpoint of an older sejax \(each array of 0/averaged is apart"):
        checkpoints.restore(15, (vector, {"score": jnp.ones((1, 2))}))
    checkpoints.close()


def test_another_model_is_refused_in_one_sentence(saved):
    checkpoints = Checkpoints(saved, study="s")
    with pytest.raises(InputError) as error:
        checkpoints.restore(15, (make_state(width=4), {"score": jnp.ones((1, 2))}))
    message = str(error.value)
    assert "0/averaged/trunk/dense/bias is (1, 2, 3) there and (1, 2, 4) in this config" in message
    assert "6 arrays differ" in message
    assert saved in message
    checkpoints.close()


def test_an_array_that_is_not_there_is_named(saved):
    checkpoints = Checkpoints(saved, study="s")
    with pytest.raises(InputError, match=r"1/extra is absent there and \(2,\) in this config"):
        checkpoints.restore(15, (make_state(), {"score": jnp.ones((1, 2)), "extra": jnp.ones(2)}))
    checkpoints.close()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "deleted": lambda path: path.unlink(),
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": flip,
}


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "workdir"))


def like():
    return jax.tree.map(jnp.zeros_like, (make_state(), {"score": jnp.ones((1, 2))}))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(copied, damage, capsys):
    folder = copied / "15"
    names = [
        Path(name)
        for name in (*json.loads((folder / CHECKSUMS).read_text())["files"], CHECKSUMS, "_CHECKPOINT_METADATA")
    ]
    names = [name for name in names if (folder / name).stat().st_size > 0]
    assert len(names) > 6
    for name in names:
        whole = (folder / name).read_bytes()
        if damage == "flipped" and name.name == "_CHECKPOINT_METADATA":
            continue  # only the times of saving
        DAMAGES[damage](folder / name)
        checkpoints = Checkpoints(copied, study="s")
        if damage == "deleted" and name.name == CHECKSUMS:  # as in an older version: read unverified
            assert checkpoints.latest() == 15
            checkpoints.restore(15, like())
        else:
            with pytest.raises(InputError, match=r"/15 is damaged \(.*to evaluate; .* after epoch 10"):
                checkpoints.latest(evaluate=True)
            assert checkpoints.latest() == 10
            said = capsys.readouterr().err
            assert said.startswith(f"note: {folder} is damaged (")
            assert said.endswith(f"; moved to {copied / DAMAGED}, continuing after epoch 10\n")
            checkpoints.save(15, like())  # its place is free
            checkpoints.close()
            checkpoints = Checkpoints(copied, study="s")
            shutil.rmtree(folder)
            shutil.move(copied / DAMAGED / "15", folder)
        checkpoints.close()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize(
    "stray",
    ["20", "20/default", "notes", "7.orbax-checkpoint-tmp", "0", "007", "\N{ARABIC-INDIC DIGIT NINE}", "step_30"],
)
def test_a_stray_folder_is_no_checkpoint(copied, stray):
    (copied / stray).mkdir(parents=True)
    checkpoints = Checkpoints(copied, study="s")
    assert checkpoints.latest() == 15
    checkpoints.restore(15, like())
    checkpoints.save(20, like())
    checkpoints.close()
    assert Checkpoints(copied, study="s").latest() == 20


def test_a_stray_file_is_no_checkpoint(copied):
    (copied / "20").write_text("")
    checkpoints = Checkpoints(copied, study="s")
    assert checkpoints.latest() == 15
    checkpoints.close()


def open_and_evaluate(folder, study="s"):
    checkpoints = Checkpoints(folder, study=study)
    try:
        return checkpoints.latest(evaluate=True)
    finally:
        checkpoints.close()


def test_a_checkpoint_is_that_of_its_epoch_alone(copied, capsys):
    shutil.copytree(copied / "15", copied / "20")
    with pytest.raises(InputError, match=r"/20 is the checkpoint of epoch 15, expected a whole .* to evaluate"):
        open_and_evaluate(copied)
    checkpoints = Checkpoints(copied, study="s")
    assert checkpoints.latest() == 15
    checkpoints.close()
    assert "/20 is the checkpoint of epoch 15; moved to" in capsys.readouterr().err
    shutil.rmtree(copied / "10")
    (copied / "15").rename(copied / "10")
    with pytest.raises(InputError, match=r"/10 is the checkpoint of epoch 15, expected .* to continue from"):
        Checkpoints(copied, study="s").latest()


def test_a_checkpoint_is_that_of_its_study_alone(copied):
    with pytest.raises(InputError, match=r"/10 belongs to another study; .*/15 belongs to another study, expected"):
        open_and_evaluate(copied, study="t")


def test_a_checkpoint_of_an_older_version_names_no_study(copied):
    for epoch in ("10", "15"):
        checksums = copied / epoch / CHECKSUMS
        checksums.write_text(json.dumps(json.loads(checksums.read_text())["files"]))
    assert open_and_evaluate(copied, study="t") == 15
    flip(copied / "15" / "default" / "manifest.ocdbt")
    with pytest.raises(InputError, match=r"/15 is damaged \(1 of its \d+ files changed, such as default/manifest"):
        open_and_evaluate(copied)


def test_without_a_whole_checkpoint_nothing_starts_anew_unasked(copied):
    for epoch in ("10", "15"):
        flip(copied / epoch / "default" / "manifest.ocdbt")
    checkpoints = Checkpoints(copied, study="s")
    with pytest.raises(InputError, match=r"/10 is damaged .*/15 is damaged .*or remove .* to train from the start"):
        checkpoints.latest()
    checkpoints.close()


READ_DAMAGED = """
import sys
from test_checkpoint import InputError, Checkpoints, like
checkpoints = Checkpoints(sys.argv[1], study="s")
print(checkpoints.latest())
try:
    checkpoints.restore(15, like())
except InputError as error:
    print(error)
"""


def test_an_unreadable_checkpoint_of_an_older_version_is_named(copied):
    (copied / "15" / CHECKSUMS).unlink()
    cut(copied / "15" / "default" / "manifest.ocdbt")
    # In a process of its own: threads of tensorstore complain later, when other tests run, that reading has failed.
    words = [sys.executable, "-c", READ_DAMAGED, str(copied)]
    env = environment(str(Path(__file__).parent))
    read = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=True)
    latest, sentence = read.stdout.splitlines()
    assert latest == "15"
    assert re.search(r"15 cannot be read as a checkpoint .*remove it", sentence)


def test_arrays_that_nobody_waits_for_complain_to_nobody(monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: complaints.append(lost.exc_value))
    hide_late_complaints()

    def set_late(value):
        """As tensorstore does when orbax has given up: the loop that waited for the array is closed."""
        promise, future = tensorstore.Promise.new()
        loop = asyncio.new_event_loop()

        async def begin():
            waiting = loop.create_task(wait())
            await asyncio.sleep(0)
            waiting._log_destroy_pending = False

        async def wait():
            await future

        loop.run_until_complete(begin())
        loop.close()
        promise.set_result(value)

    set_late(3)
    assert complaints == []

    class Broken:
        def __del__(self):
            raise RuntimeError("something else")

    Broken()
    assert [str(complaint) for complaint in complaints] == ["something else"]
