"""The joint model: class, valence, arousal and dominance from MFCC, short-term features, mel and prosody.

python -m sejax.main --config configs/joint.py:synthetic --workdir runs/synthetic
"""

from ml_collections import ConfigDict

from sejax.config import default_config


def get_config(corpus: str = "synthetic") -> ConfigDict:
    """`corpus`: synthetic, iemocap, emodb or table."""
    config = default_config()
    config.corpus = corpus
    return config
