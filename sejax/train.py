"""An alias of `sejax.study` for one release."""

from sejax.study import train_and_evaluate

__all__ = ["train_and_evaluate"]
