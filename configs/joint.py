"""The joint model: class, valence, arousal and dominance of speech, leave one speaker out.

python -m sejax.main --config configs/joint.py:synthetic --workdir runs/synthetic
python -m sejax.main --config configs/joint.py:iemocap --config.data_dir=IEMOCAP_full_release --workdir runs/iemocap
python -m sejax.main --config configs/joint.py:emodb --config.data_dir=emodb.zip --workdir runs/emodb
python -m sejax.main --config configs/joint.py:table --config.data_dir=my.csv --workdir runs/mine
"""

from ml_collections import ConfigDict

from sejax.config import default_config


def get_config(corpus: str = "synthetic") -> ConfigDict:
    """`corpus`: synthetic, iemocap, emodb or table."""
    config = default_config()
    config.corpus = corpus
    if corpus in ("synthetic", "iemocap"):
        # The joint model between the two single-task ones.
        config.grid.alpha = (0.5, 1.0, 0.0)
    if corpus in ("synthetic", "emodb"):
        _small(config)
    if corpus == "emodb":
        # 480 utterances to train on: statistics alone (encoders bring nothing on validation speakers), of more
        # features, of more speech, and several seeds.
        config.model.encoder.mfcc = config.model.encoder.mel = "none"
        config.streams = ("mfcc", "stf", "mel", "prosody")
        config.speeds = (1.0, 0.9, 1.1)
        config.seeds = 5
    return config


def _small(config: ConfigDict) -> None:
    """For a few hundred utterances and two cores: statistics of every stream, small encoders on two."""
    config.model.encoder.stf = "none"
    config.model.width = 32
    config.model.stride = 8
    config.model.fused = 512
    config.max_seconds = 6.0
    config.buckets = 2
    config.learning_rate = 2e-3
    config.dropout = 0.5
    config.epochs = 20
