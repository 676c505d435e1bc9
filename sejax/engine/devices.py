"""The devices of a study, on one machine or on several: transfers to and from them, and the leading process."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from sejax.host.accelerators import use_cores


def start(*, distributed: bool, used: int = 0) -> None:
    """Makes cores of a CPU devices, and joins the other processes. It runs before jax is used.

    Args:
      used: devices that the study uses; 0: all.
      distributed: whether this is one of several processes of one study. jax finds them by itself on Slurm, Open MPI
        and Cloud TPU; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.
    """
    cores = len(os.sched_getaffinity(0))
    use_cores(min(used or cores, cores) if not distributed else cores)
    if distributed:
        numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
        processes, number = (None if text is None else int(text) for text in numbers)
        jax.distributed.initialize(os.environ.get("JAX_COORDINATOR_ADDRESS"), processes, number)


def describe(devices: Sequence[jax.Device]) -> str:
    """Returns how many devices there are of which kind: `2 x cpu`."""
    return f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind


def leads() -> bool:
    """Returns whether this process writes the workdir's files and prints; the others only compute."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Waits until every process has reached this call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def leader_first(work: Callable[[], Any], name: str) -> Any:
    """Does the work in the leading process, then in the others, which find its files."""
    if leads():
        result = work()
        wait_for_all(name)
        return result
    wait_for_all(name)
    return work()


def smallest(value: int) -> int:
    """Returns the smallest value of all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int64(value)).min())


def put(tree: Any, sharding: Sharding) -> Any:
    """Places arrays that every process holds on all devices, with the transfer guard lifted."""
    with jax.transfer_guard("allow"):
        if sharding.is_fully_addressable:
            return jax.device_put(tree, sharding)
        return jax.tree.map(
            lambda x: x if isinstance(x, jax.Array) and x.sharding == sharding else _put_parts(x, sharding), tree
        )


def _put_parts(x: Any, sharding: Sharding) -> jax.Array:
    """Places an array without comparing it between processes, which device_put would do."""
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def collect(tree: Any) -> Any:
    """Returns every array whole on the host, its parts from other processes too: one transfer."""
    if all(x.is_fully_addressable for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
