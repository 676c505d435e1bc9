"""The jobs of a study one after the other, each on all devices of this process and of those that share the study."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from sejax.build import Study
from sejax.engine import devices
from sejax.engine.feed import open_feed
from sejax.engine.plan import Description, describe, is_apart, plan_programs
from sejax.errors import InputError
from sejax.jobs.job import Done, do_final, do_job
from sejax.workdir.job import Job
from sejax.workdir.logs import unite_history
from sejax.workdir.train import Again


class Serial:
    """The programs of a study in turn: their jobs have all folds."""

    def __str__(self) -> str:
        return devices.describe(self._devices)

    def plan(self, study: Study, workdir: str, begun: Sequence[Mapping[str, Any]] | None) -> list[Description]:
        """Plans and compiles all programs; see `plan_programs`.

        Raises:
          InputError: see `plan_programs`, or the workdir was begun with the folds of a program apart.
        """
        if any(map(is_apart, begun or ())):
            raise InputError(
                f"{workdir} was begun with a job for each fold, whose checkpoints are not those of all folds "
                "together, expected config.jobs=ray to continue it"
            )
        if devices.leads():
            unite_history(workdir, study)  # of jobs that have trained side by side
        self._study, self._workdir, self._devices = study, workdir, jax.devices()[: study.n_devices or None]
        self._planned = plan_programs(study.programs, self._devices, study.placement, begun)
        return [describe(plan) for plan in self._planned]

    def train(self, train: bool) -> Iterator[tuple[int, Done, Again | None]]:
        """Yields the number of each program, what its runs have come to, and its final runs.

        Args:
          train: whether to train; else the last checkpoints are taken.
        """
        study = self._study
        for number, plan in enumerate(self._planned, 1):
            feed = open_feed(plan)  # data, once for all runs
            job = Job(self._workdir, number, len(study.programs))
            done = do_job(study, feed, job, train)
            final = do_final(study, feed, job, done.outcome.best_epoch, train)
            del feed  # the next program's data take its place
            yield number, done, final

    def close(self) -> None:
        """Does nothing: the devices are this process's own."""
