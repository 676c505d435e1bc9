"""A few minutes' look at everything, without any data: a small synthetic corpus in IEMOCAP's layout.

    python -m sejax.main --config configs/demo.py --workdir runs/demo
"""

from ml_collections import ConfigDict

from sejax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.synthetic.fraction = 0.05
    config.epochs = 6
    return config
