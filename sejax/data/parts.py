"""A build in parts: each is some utterances, whose features whoever computes them writes to files of their own.

Parts and features go through the cache's folder, which everyone who computes has to see, as the audio.
"""

import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sejax.data.compute import compute
from sejax.data.engines import Engine
from sejax.data.shards import Dataset
from sejax.errors import InputError
from sejax.features.extract import Collector, Contents, Job, Perturbation
from sejax.host.atomic import atomic_write

_FOLDER, _ERROR = ".parts", ".error"


@dataclass(frozen=True)
class Compute:
    """Computes a part, in any process that sees the cache."""

    cache_dir: str
    wanted: Sequence[tuple[Contents, Perturbation]]
    datasets: Sequence[Dataset]
    # Pretrained models that are loaded: a process computes many parts.
    _collectors: dict[int, Collector] = field(default_factory=dict, init=False)

    @property
    def on_accelerator(self) -> bool:
        """Whether a pretrained model computes."""
        return any(contents.collect for contents, _ in self.wanted)

    def __call__(self, part: str) -> None:
        """Writes a file for each dataset that a part lacks, or beside the part why nothing can be computed.

        Args:
          part: a file of `compute_in_parts`.
        """
        number, jobs = pickle.loads(Path(part).read_bytes())
        tasks = sorted({task for _, job in jobs for task in job.tasks})
        files = {task: self.datasets[task].file(self.cache_dir, number) for task in tasks}
        try:
            each = compute(self.wanted, [job for _, job in jobs], workers=1, collectors=self._collectors)
            for task, place, extraction in each:
                files[task].add(jobs[place][0], extraction)
        except InputError as error:
            with atomic_write(Path(part + _ERROR)) as file:
                file.write(str(error))
            return
        for file in files.values():
            file.close()


def compute_in_parts(
    engine: Engine,
    do: Compute,
    jobs: Sequence[tuple[str, Job]],
    *,
    first: int,
    per_part: int,
) -> None:
    """Computes jobs in parts. Their files are in the datasets' folders then, to be taken up.

    Args:
      engine: what calls `do`.
      do: computes a part.
      jobs: the utterances' ids, and what is lacking of them.
      first: number of the first file. No file of this number or a higher one is there.
      per_part: utterances in a part.

    Raises:
      InputError: see `sejax.data.compute.compute` and the engine.
    """
    folder = Path(do.cache_dir, _FOLDER)
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
    folder.mkdir()
    try:
        parts: list[str] = []
        for place in range(0, len(jobs), per_part):
            path = folder / str(len(parts))
            path.write_bytes(pickle.dumps((first + len(parts), jobs[place : place + per_part])))
            parts.append(os.fspath(path))
        engine(do, parts)
        for path in sorted(folder.glob(f"*{_ERROR}")):
            raise InputError(path.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
