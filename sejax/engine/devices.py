"""The devices of a study, on one machine or on several: what goes to them, what comes back, who speaks."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from jax.stages import Compiled, Lowered


def start(*, distributed: bool) -> None:
    """Before jax is used: makes every core a device where there is only a CPU, and joins the other processes.

    Args:
      distributed: this is one of several processes of one study. jax finds them by itself on Slurm, Open MPI and
        Cloud TPU; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if distributed:
        numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
        processes, number = (None if found is None else int(found) for found in numbers)
        jax.distributed.initialize(os.environ.get("JAX_COORDINATOR_ADDRESS"), processes, number)


COMPILER_OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_prefer_vector_width": 512}}
"""By backend. XLA by itself takes vectors half as wide: an epoch is then 6 to 10 % slower on a CPU with AVX-512."""


def compile_lowered(lowered: Lowered) -> Compiled:
    """A lowered program, compiled as is best for the backend."""
    return lowered.compile(compiler_options=COMPILER_OPTIONS.get(jax.default_backend()))


def leads() -> bool:
    """Whether this process writes the workdir's files and prints; the others only compute."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Goes on when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def leader_first(work: Callable[[], Any], name: str) -> Any:
    """Does the work in the leading process, then in the others, which find its files."""
    if leads():
        found = work()
        wait_for_all(name)
        return found
    wait_for_all(name)
    return work()


def smallest(value: int) -> int:
    """The least of what the processes have."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int64(value)).min())


def put(tree: Any, sharding: Sharding) -> Any:
    """Arrays that every process has, as arrays of all devices; a transfer that a guard lets through."""
    with jax.transfer_guard("allow"):
        if sharding.is_fully_addressable:
            return jax.device_put(tree, sharding)
        return jax.tree.map(
            lambda x: x if isinstance(x, jax.Array) and x.sharding == sharding else _put_parts(x, sharding), tree
        )


def _put_parts(x: Any, sharding: Sharding) -> jax.Array:
    """Without comparing what the processes have, as device_put does."""
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def collect(tree: Any) -> Any:
    """All of every array on the host, also of those whose parts lie with other processes: one transfer."""
    if all(x.is_fully_addressable for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
