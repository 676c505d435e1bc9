"""What experiments share: studies that are trained once."""

from pathlib import Path

from ml_collections import ConfigDict

from sejax import build
from sejax.engine import devices
from sejax.study import train_and_evaluate
from sejax.workdir import files


def train_once(config: ConfigDict, workdir: Path) -> None:
    """Trains a study on every core, as `sejax.main` does, unless its workdir holds a finished one of the same options.

    Raises:
      InputError: the workdir belongs to other options, or what a study refuses.
    """
    if (workdir / files.METRICS).exists():
        files.check_workdir(str(workdir), build.options(config), must_exist=True)
    else:
        devices.start(distributed=False)
        train_and_evaluate(config, str(workdir))
