"""The smallest study that still has everything: what the tests of whole studies train."""

from ml_collections import ConfigDict

from sejax.config import default_config

CLI = (
    "--config.streams=('mfcc',)",
)


def shrink(config: ConfigDict, cache_dir: str) -> ConfigDict:
    """Makes any config small enough to compile and train in seconds; what it is about stays."""
    config.cache_dir = cache_dir
    config.workers = 1
    config.synthetic.fraction = 0.01
    config.epochs = 2
    config.checkpoint_every = 1
    config.batch_size = 8
    config.bootstrap = 20
    config.tensorboard = False
    config.buckets = 1
    config.max_seconds = 2.0
    config.speeds = (1.0,)
    config.streams = ("mfcc",)
    config.model.encoder.mfcc = "none"
    config.model.stride = 8
    config.model.width = 8
    config.model.heads = 2
    config.model.fused = 8
    return config


def tiny_config(cache_dir: str) -> ConfigDict:
    """The default study, shrunk."""
    return shrink(default_config(), cache_dir)
