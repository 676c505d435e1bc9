"""Checkpoints of the stacked state (orbax): written in the background, whole or not at all."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sejax.errors import InputError


class Checkpoints:
    """Checkpoints of one program, one per saved epoch; the two newest are kept.

    Saving returns once the arrays are copied; they are written in the background into a temporary folder that
    is renamed when complete, so a process killed in mid-save leaves the epoch before.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        # Named, the handler also reads the shapes of what another process has saved.
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def latest(self, *, must_exist: bool = False) -> int:
        """Returns the newest complete epoch, 0 if there is none.

        Raises:
          InputError: there is none and one must exist.
        """
        epoch = self._manager.latest_step() or 0
        if must_exist and not epoch:
            raise InputError(f"{self.folder} has no checkpoint, expected one to evaluate: train first")
        return epoch

    def save(self, epoch: int, state: Any) -> None:
        """Begins to write the state after `epoch`."""
        self._manager.save(epoch, args=ocp.args.StandardSave(state))

    def restore(self, epoch: int, like: Any) -> Any:
        """Returns the state after `epoch`, each array placed as its counterpart in `like`.

        Raises:
          InputError: the checkpoint holds other arrays than the model of this config has.
        """
        self._check_shapes(epoch, like)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(epoch, args=ocp.args.StandardRestore(abstract))

    def _check_shapes(self, epoch: int, like: Any) -> None:
        saved = _shapes(self._manager.item_metadata(epoch).tree)
        expected = _shapes(like)
        wrong = sorted(name for name in saved.keys() | expected.keys() if saved.get(name) != expected.get(name))
        if wrong:
            first = wrong[0]
            raise InputError(
                f"{self.folder / str(epoch)} is a checkpoint of another model: {len(wrong)} arrays differ, the "
                f"first {first} is {saved.get(first, 'absent')} there and {expected.get(first, 'absent')} in "
                "this config; use the config it was trained with, or another --workdir"
            )

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
