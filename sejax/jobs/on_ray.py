"""The jobs of a study as tasks of a Ray cluster, whose machines share the workdir and the cache.

A job is a program; where its runs train whole pretrained models, a fold of it. The plan is decided once, by one task
for each program, and written before anything trains: a job that is begun again, on whatever machine, continues its
checkpoint in the same stacks, to the same bytes.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from sejax.build import Study
from sejax.engine import checkpoint
from sejax.engine.feed import Feed, Outcome, Tested, open_feed
from sejax.engine.plan import Description, Planned, describe, is_apart, plan_program
from sejax.evaluation.importance import Importance
from sejax.host import accelerators
from sejax.host.cluster import Cluster
from sejax.host.progress import show_lines
from sejax.host.wording import count
from sejax.jobs.job import Done, do_final, do_job, unite
from sejax.workdir import files
from sejax.workdir.gather import Part
from sejax.workdir.job import JOBS, Job
from sejax.workdir.logs import divide_history, unite_history
from sejax.workdir.train import Again

SECONDS_TO_END = 60.0
"""For which a job that is begun again waits for its process of before, which may have lost only its connection."""


@dataclass(frozen=True)
class Place:
    """Where a job trains."""

    platform: str  # of its devices, as jax calls it
    devices: int
    programs: str  # folder of compiled programs


class OnRay:
    """The jobs of a study, side by side on a cluster."""

    def __init__(self) -> None:
        """Connects to the cluster, and leaves the accelerators of this machine to it. It runs before jax is used.

        Raises:
          InputError: see `Cluster`.
        """
        self._cluster = Cluster("config.jobs")
        jax.config.update("jax_platforms", "cpu")

    def __str__(self) -> str:
        return f"Ray, {count(self._place.devices, f'{self._place.platform} device')} for each job"

    def plan(self, study: Study, workdir: str, begun: Sequence[Mapping[str, Any]] | None) -> list[Description]:
        """Plans all programs, each in a task; see `plan_programs`.

        Raises:
          InputError: see `Cluster.run`.
        """
        unite_history(workdir, study)  # of jobs whose study was killed
        self._study, self._workdir = study, workdir
        programs, cache = study.programs, jax.config.values["jax_compilation_cache_dir"]
        self._place = Place(self._cluster.platform, study.n_devices or 1, cache)
        self._shared = self._cluster.share(study)
        entries = begun if begun else [None] * len(programs)
        apart = [is_apart(tree) if tree else of.tunes_whole_models for of, tree in zip(programs, entries, strict=True)]
        firsts = [self._jobs(number, of_folds)[0] for number, of_folds in enumerate(apart, 1)]
        found = self._run(_plan, {job: (tree,) for job, tree in zip(firsts, entries, strict=True)})
        self._plans = [
            found[job].of_every_fold(program) if of_folds else found[job]
            for program, of_folds, job in zip(programs, apart, firsts, strict=True)
        ]
        return self._plans

    def train(self, train: bool) -> Iterator[tuple[int, Done, Again | None]]:
        """Yields the number of each program, what its runs have come to, and its final runs.

        Args:
          train: whether to train; else the last checkpoints are taken.

        Raises:
          InputError: see `Cluster.run`.
        """
        programs = dict(enumerate(self._study.programs, 1))
        trees = {number: plan.tree for number, plan in enumerate(self._plans, 1)}
        jobs = {number: self._jobs(number, is_apart(tree)) for number, tree in trees.items()}
        every = [job for of_program in jobs.values() for job in of_program]
        divide_history(self._workdir, self._study, every)
        try:
            trained = self._run(_train, {job: (trees[job.number], train) for job in every})
        finally:
            unite_history(self._workdir, self._study)
        done = {n: unite(programs[n], [self._received(job, *trained[job]) for job in own]) for n, own in jobs.items()}
        # The median over the folds says for how long.
        finals = {n: self._jobs(n, apart=False)[0] for n, program in programs.items() if program.final}
        calls = {job: (trees[n], done[n].outcome.best_epoch, train) for n, job in finals.items()}
        learned = self._run(_train_final, calls)
        shutil.rmtree(Path(self._workdir, JOBS))
        for n, program in programs.items():
            yield n, done[n], Again([], Part(program.final, *learned[finals[n]])) if program.final else None

    def close(self) -> None:
        """Stops what runs, and leaves the cluster."""
        self._cluster.close()

    def _jobs(self, number: int, apart: bool) -> list[Job]:
        """Returns the jobs of a program: its folds, if they train apart."""
        folds = sorted(set(self._study.programs[number - 1].fold.tolist())) if apart else [None]
        return [Job(self._workdir, number, len(self._study.programs), fold, alone=True) for fold in folds]

    def _run(self, task: Callable[..., Any], calls: Mapping[Job, tuple[Any, ...]]) -> dict[Job, Any]:
        """Returns the results of a task for some jobs."""
        jobs = {str(job): job for job in calls}
        arguments = {name: (self._shared, self._place, job, *calls[job]) for name, job in jobs.items()}
        with closing(self._cluster.run(task, arguments, devices=self._place.devices)) as results:
            return {jobs[name]: result for name, result in results}

    def _received(
        self, job: Job, tested: list[Tested], outcome: Outcome, importance: list[Importance], *learned: Any
    ) -> Done:
        program = job.runs_of(self._study.programs[job.number - 1])
        return Done(tested, outcome, Part(program, *learned), importance)


# What a task does. The study comes from the memory of the cluster; results go back without it.


def _plan(study: Study, place: Place, job: Job, begun: Mapping[str, Any] | None) -> Description:
    return describe(_planned(study, place, job, begun))


def _train(study: Study, place: Place, job: Job, tree: Mapping[str, Any], train: bool) -> tuple[Any, ...]:
    with files.only_here(job.folder, seconds=SECONDS_TO_END):
        done = do_job(study, _open(study, place, job, tree), job, train)
    return done.tested, done.outcome, done.importance, done.learned.epochs, done.learned.params


def _train_final(
    study: Study,
    place: Place,
    job: Job,
    tree: Mapping[str, Any],
    best_epoch: Int[np.ndarray, " run"],
    train: bool,
) -> tuple[Any, ...]:
    # They are as many as the runs of a fold, for which the program is compiled if folds train apart.
    compiled = replace(job, fold=int(study.programs[job.number - 1].fold[0])) if is_apart(tree) else job
    job.folder.mkdir(parents=True, exist_ok=True)
    with files.only_here(job.folder, seconds=SECONDS_TO_END):
        again = do_final(study, _open(study, place, compiled, tree), job, best_epoch, train)
    assert again is not None, "this task is for programs with final runs"
    return again.learned.epochs, again.learned.params


def _open(study: Study, place: Place, job: Job, tree: Mapping[str, Any]) -> Feed:
    return open_feed(_planned(study, place, job, tree))


def _planned(study: Study, place: Place, job: Job, begun: Mapping[str, Any] | None) -> Planned:
    """Takes the devices, and compiles a job for them."""
    show_lines()
    checkpoint.hide_late_complaints()
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", place.programs)
    own = accelerators.take(place.platform, place.devices)
    placement = study.placement
    if place.platform == "cpu":  # other jobs share the memory of the machine
        share = place.devices / max(place.devices, len(os.sched_getaffinity(0)))
        placement = replace(placement, memory_fraction=placement.memory_fraction * share)
    return plan_program(job.runs_of(study.programs[job.number - 1]), own, placement, begun)
