"""The devices that a process was given, and no others. Nothing falls back to a CPU."""

import os

import jax
import jax.numpy as jnp

from sejax.host.wording import count, first_line

_PIECE = 1 << 30  # bytes


def take(platform: str, n: int) -> list[jax.Device]:
    """Takes the devices that were given to this process, and no others. It runs before jax is used.

    Args:
      platform: as jax calls it: cuda, tpu; cpu, of which each device is a core.
      n: number of devices.

    Raises:
      DeviceTaken: they are not there, or another process uses them.
    """
    jax.config.update("jax_platforms", platform)  # jax falls back to the CPU if nothing is said
    if platform == "cpu":
        use_cores(n)
    try:
        found = jax.local_devices()[:n]
        for device in found:
            if stats := device.memory_stats():
                # A device whose memory another process holds can be opened; its memory cannot be had.
                pieces = range(stats["bytes_limit"] // 2 // _PIECE)
                jax.block_until_ready([jnp.zeros(_PIECE, jnp.uint8, device=device) for _ in pieces])
    except (AssertionError, RuntimeError) as error:  # jax asserts that there is a plugin
        why = first_line(error) if str(error) else f"jax has no plugin for {platform}"
        raise DeviceTaken(
            f"{count(n, f'{platform} device')} cannot be taken ({why}), expected devices that no other "
            "process uses, and jax with their plugin"
        ) from error
    if len(found) < n:
        raise DeviceTaken(f"there are {len(found)} {platform} devices, expected the {n} that this process was given")
    return found


class DeviceTaken(RuntimeError):
    """A device that was given to this process cannot be used: on another host, or later, one may be free."""


def use_cores(n: int) -> None:
    """Makes so many cores of a CPU devices, unless the environment says how many there are, and uses as many threads.

    It runs before jax is used. Large products are cut by the number of threads, and are rounded accordingly.
    """
    os.environ["PJRT_NPROC"] = str(n)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", n)
