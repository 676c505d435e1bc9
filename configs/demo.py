"""A demonstration of a few minutes without any data: a small synthetic corpus in IEMOCAP's layout.

python -m sejax.main --config configs/demo.py --workdir runs/demo
"""

from ml_collections import ConfigDict

from sejax.config import default_config


def get_config() -> ConfigDict:
    """Returns a config of two streams and a small network, joint and single-task (alpha 0.5, 1 and 0)."""
    config = default_config()
    config.synthetic.fraction = 0.04
    config.streams = ("mfcc", "mel")
    config.model.encoder.mfcc = "lstm"
    config.model.width = 32
    config.model.fused = 64
    config.model.stride = 8
    config.max_seconds = 6.0
    config.buckets = 1
    config.epochs = 8
    config.checkpoint_every = 4
    config.grid.alpha = (0.5, 1.0, 0.0)
    return config
