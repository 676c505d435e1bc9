"""The tasks of a joint model: the axis of losses, weights and priors."""

from typing import NamedTuple

from sejax.corpora.schema import DIMENSIONS


class Task(NamedTuple):
    """One entry of the task axis.

    `kind` is "class" or "vad". `columns` are the consecutive dimensions (places in `DIMENSIONS`) whose mean loss is
    the task's; the class task has none.
    """

    name: str
    kind: str
    columns: tuple[int, ...]

    @property
    def title(self) -> str:
        """The name for people: "class", "VAD", "valence", ..."""
        return self.name.upper() if self.name == "vad" else self.name


CLASS = Task("class", "class", ())

TASKS: dict[tuple[str, ...], tuple[Task, ...]] = {
    ("class", "vad"): (CLASS, Task("vad", "vad", tuple(range(len(DIMENSIONS))))),
    ("class", *DIMENSIONS): (CLASS, *(Task(name, "vad", (column,)) for column, name in enumerate(DIMENSIONS))),
}
"""What `config.tasks` may be, and the tasks that it names."""
