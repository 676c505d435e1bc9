"""Compiled programs that later processes find: the same program, and only where nothing that determines it differs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from numpy.testing import assert_array_equal
from tiny_study import config_file, run_command

from sejax.engine import compiled
from sejax.engine.compiled import Wanted, compile_side_by_side
from sejax.engine.runs import run_sharding


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs, empty."""
    before = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setattr(compiled, "_CALLED", {})
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


class Counted:
    """A function that counts how often it is traced."""

    def __init__(self, function: Any) -> None:
        self.traced = 0

        def counted(*arguments: Any, **static: Any) -> Any:
            self.traced += 1
            return function(*arguments, **static)

        counted.__qualname__, counted.__module__ = function.__qualname__, function.__module__
        self.jitted = jax.jit(counted, static_argnames="power")


def powers(x: Any, *, power: int) -> Any:
    return jnp.sin(x) ** power, x.sum()


def fresh() -> Counted:
    """Returns the function as another process has it: not traced yet."""
    return Counted(powers)


def compile_one(function: Counted, x: Any, **static: Any) -> Any:
    (found,) = compile_side_by_side({"": Wanted(function.jitted, (x,), static)}).values()
    return found(x)


def test_a_later_process_does_not_trace(folder: Path):
    x, first, later = jnp.linspace(0, 1, 7), fresh(), fresh()
    expected = compile_one(first, x, power=2)
    found = compile_one(later, x, power=2)
    assert (first.traced, later.traced) == (1, 0)
    jax.tree.map(assert_array_equal, found, expected)
    assert len(list(folder.iterdir())) == 1


def test_values_do_not_matter_and_everything_else_does(folder: Path, monkeypatch: pytest.MonkeyPatch):
    x = jnp.linspace(0, 1, 8)
    compile_one(fresh(), x, power=2)
    same = fresh()
    compile_one(same, x + 1, power=2)
    assert same.traced == 0

    both = run_sharding(jax.local_devices()[:2])
    others = [
        (x, 3),  # a static argument
        (x[1:], 2),  # a shape
        (x.astype(jnp.float16), 2),
        (jax.device_put(x, NamedSharding(both.mesh, PartitionSpec("run"))), 2),
        (jax.device_put(x, jax.local_devices()[1]), 2),
    ]
    for changed, power in others:
        other = fresh()
        compile_one(other, changed, power=power)
        assert other.traced == 1
    with jax.default_matmul_precision("highest"):
        other = fresh()
        compile_one(other, x, power=2)
        assert other.traced == 1
    for name, instead in (("_code", lambda: "changed"), ("COMPILER_OPTIONS", {"cpu": {}})):
        with monkeypatch.context() as patched:
            patched.setattr(compiled, name, instead)
            other = fresh()
            compile_one(other, x, power=2)
            assert other.traced == 1
    assert len(list(folder.iterdir())) == 1 + len(others) + 3


def test_what_jax_has_kept_is_kept_whole(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """jax's cache may know the program, from a version of sejax that kept none or has other comments."""
    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    monkeypatch.setattr(compiled, "COMPILER_OPTIONS", {})
    x = jnp.linspace(0, 1, 7)
    expected = fresh().jitted(x, power=2)
    assert any(path.is_file() for path in folder.parent.iterdir())
    for _ in range(2):
        jax.clear_caches()
        jax.tree.map(assert_array_equal, compile_one(fresh(), x, power=2), expected)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.mark.parametrize("damage", [lambda x: b"", lambda x: x[:-9], lambda x: b"0" + x], ids=["empty", "cut", "other"])
def test_a_damaged_program_is_compiled_again(folder: Path, damage: Any):
    x = jnp.linspace(0, 1, 7)
    expected = compile_one(fresh(), x, power=2)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again, later = fresh(), fresh()
    jax.tree.map(assert_array_equal, compile_one(again, x, power=2), expected)
    compile_one(later, x, power=2)
    assert (again.traced, later.traced) == (1, 0)


def test_a_folder_that_cannot_be_written_does_not_stop_a_study(folder: Path):
    x = jnp.linspace(0, 1, 7)
    expected = compile_one(fresh(), x, power=2)
    (path,) = folder.iterdir()
    path.unlink()
    path.mkdir()
    jax.tree.map(assert_array_equal, compile_one(fresh(), x, power=2), expected)
    assert list(folder.iterdir()) == [path]
    path.rmdir()
    folder.rmdir()
    folder.write_text("")
    jax.tree.map(assert_array_equal, compile_one(fresh(), x, power=2), expected)
    assert folder.read_text() == ""


def test_what_calls_lapack_or_cannot_be_written_down_is_not_kept(folder: Path):
    """A process that has traced nothing does not know the functions of LAPACK: to call one ends it."""
    square = jnp.eye(3) + 1
    first, orthogonal = compiled.call(jax.jit(jnp.linalg.qr, static_argnames="mode"), square, mode="reduced")
    np.testing.assert_allclose(first @ orthogonal, square, atol=1e-5)

    class Nameless:
        pass

    def shifted(x: Any, by: Any) -> Any:
        return x + 1

    assert_array_equal(compiled.call(jax.jit(shifted, static_argnames="by"), square, by=Nameless()), square + 1)
    assert not folder.exists()


def test_a_function_is_compiled_once_for_each_shape(folder: Path):
    function = fresh()
    for size in (3, 4, 3, 4):
        x = jnp.arange(size, dtype=jnp.float32)
        jax.tree.map(assert_array_equal, compiled.call(function.jitted, x, power=2), powers(x, power=2))
    assert function.traced == 2


def test_another_study_of_the_same_shapes_compiles_nothing(tmp_path: Path, cache_dir: str):
    """Also where its epochs and rates are others. The folder is its own, which no other test writes to."""
    own = tmp_path / "cache"
    own.mkdir()
    for path in Path(cache_dir).iterdir():
        if path.name not in ("xla", ".lock"):
            (own / path.name).symlink_to(path)
    words = "--config", f"{config_file(tmp_path, 'tiny_config')}:{own}"
    first = run_command(*words, "--workdir", str(tmp_path / "first"))
    assert first.returncode == 0, first.stderr
    programs = own / "xla" / "programs"
    before = {path.name for path in programs.iterdir()}
    numbers = "--config.epochs=3", "--config.learning_rate=0.003", "--config.dropout=0.4", "--config.clip_norm=1"
    second = run_command(*words, *numbers, "--workdir", str(tmp_path / "second"))
    assert second.returncode == 0, second.stderr
    assert {path.name for path in programs.iterdir()} == before
