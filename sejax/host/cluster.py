"""Functions as tasks of a Ray cluster: tried again where a worker is lost, and stopped with this process.

The cluster is the one of `RAY_ADDRESS`, else one that was started on this machine (`ray start --head`), else this
machine alone, for as long as this process lives.
"""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any

from sejax.errors import InputError
from sejax.host import stopping
from sejax.host.wording import count, first_line

ATTEMPTS = 4
"""How often a task is begun before its failure ends everything."""

SECONDS_BETWEEN = 1.0
"""Between looks at whether this process is asked to end."""

PLATFORMS = {"GPU": "cuda", "TPU": "tpu"}
"""What jax calls the accelerators that Ray counts."""

# What Ray reads when it starts: no usage statistics are sent, every line of every worker is shown, and a task without
# accelerators keeps the environment that it was started with.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Cluster:
    """A connection to a Ray cluster."""

    def __init__(self, option: str) -> None:
        """Connects to a cluster, or starts one, unless this process has done so.

        Args:
          option: of the config, that asks for it.

        Raises:
          InputError: Ray is not installed, or the cluster cannot be reached.
        """
        for name, value in {**_ENVIRONMENT, "RAY_COLOR_PREFIX": str(int(sys.stderr.isatty()))}.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise InputError(
                f"{option} is 'ray', but Ray is not installed, expected the extra: pip install 'sejax[ray]'"
            ) from error
        self._ray, self._is_own = ray, not ray.is_initialized()
        if self._is_own:
            self._connect()
        total = ray.cluster_resources()
        self._accelerator = "" if _only_cpu() else next((name for name in PLATFORMS if total.get(name)), "")

    def _connect(self) -> None:
        ray = self._ray
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(include_dashboard=False, logging_level="error", runtime_env={"env_vars": _of_compiler()})
        except (ConnectionError, RuntimeError, ValueError) as error:
            address = os.environ.get("RAY_ADDRESS", "")
            where = f"the Ray cluster {address}" if address else "a Ray cluster on this machine"
            raise InputError(
                f"{where} cannot be used ({first_line(error)}), expected one that runs (RAY_ADDRESS)"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():  # Ray answers SIGTERM itself
                    signal.signal(number, handler)

    @property
    def platform(self) -> str:
        """The devices of tasks, as jax calls them."""
        return PLATFORMS.get(self._accelerator, "cpu")

    def width(self, *, accelerated: bool = True) -> int:
        """Returns how many tasks of one device run side by side at most; see `run`."""
        kind = self._accelerator if accelerated and self._accelerator else "CPU"
        return max(1, int(self._ray.cluster_resources().get(kind, 0)))

    def share(self, value: Any) -> Any:
        """Returns a stand-in for an argument of many tasks, which each machine receives once."""
        return self._ray.put(value)

    def run(
        self,
        function: Callable[..., Any],
        calls: Mapping[str, tuple[Any, ...]],
        *,
        devices: int,
        accelerated: bool = True,
    ) -> Generator[tuple[str, Any], None, None]:
        """Yields the name and the result of each call as soon as it is done, each computed by a process of its own.

        A call whose process is lost, or that raises anything but InputError, is begun again, `ATTEMPTS` times in all.
        Closing the generator stops the calls that run.

        Args:
          function: of an importable module.
          calls: the arguments of each call, by its name, which begins the lines that it prints.
          devices: that each call needs: accelerators where the cluster has some, else cores.
          accelerated: whether accelerators are any use to it; else it needs cores.

        Raises:
          InputError: no machine of the cluster has so many devices, a call raised it, or a call has failed too often.
          Terminated: SIGTERM has asked this process to end.
        """
        resources = self._resources(devices, self._accelerator if accelerated else "")
        running: dict[Any, str] = {}
        begun: Counter[str] = Counter()

        def begin(name: str) -> None:
            begun[name] += 1
            # A process is not used again: jax keeps the memory of its devices for as long as it lives.
            task = self._ray.remote(max_retries=0, max_calls=1, **resources)(function)
            running[task.options(name=name).remote(*calls[name])] = name

        try:
            for name in calls:
                begin(name)
            with stopping.finish_first():  # Ray drops what SIGTERM raises while it waits
                while running and not stopping.is_requested():
                    done, _ = self._ray.wait(list(running), timeout=SECONDS_BETWEEN)
                    for task in done:
                        name = running.pop(task)
                        try:
                            result = self._ray.get(task)
                        except self._ray.exceptions.RayError as error:
                            self._require_another(name, error, begun[name])
                            begin(name)
                        else:
                            yield name, result
        finally:
            for task in running:
                self._ray.cancel(task, force=True)

    def close(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        if self._is_own:
            self._ray.shutdown()

    def _resources(self, devices: int, accelerator: str) -> dict[str, Any]:
        kind = accelerator or "CPU"
        most = max(int(node["Resources"].get(kind, 0)) for node in self._ray.nodes() if node["Alive"])
        if devices > most:
            raise InputError(
                f"each job needs {count(devices, kind)} (config.devices), expected at most {most}: no machine of the "
                "Ray cluster has more"
            )
        if accelerator == "GPU":
            return {"num_cpus": 1, "num_gpus": devices}
        return {"num_cpus": 1, "resources": {"TPU": devices}} if accelerator else {"num_cpus": devices}

    def _require_another(self, name: str, error: Exception, tries: int) -> None:
        """Tells that a call is begun again.

        Raises:
          InputError: it is not.
        """
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, InputError):
            raise InputError(f"{name}: {cause}") from error
        what = f"{type(cause).__name__}: {first_line(cause)}"
        if tries == ATTEMPTS:
            raise InputError(
                f"{name} has failed {count(tries, 'time')}, the last time with {what}; expected a machine that does "
                "it; the same command continues from the checkpoints"
            ) from error
        again = f"it continues from its checkpoint, attempt {tries + 1} of {ATTEMPTS}"
        print(f"note: {name} has failed ({what}): {again}", file=sys.stderr, flush=True)


def _of_compiler() -> dict[str, str]:
    """Returns the variables of this process that change what jax compiles or prints: those of tasks are the same."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # jax's own level shows false alarms
    return quiet | {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}


def _only_cpu() -> bool:
    """Returns whether jax is told to use no accelerator."""
    return os.environ.get("JAX_PLATFORMS", "") == "cpu"
