"""The joint model: class, valence, arousal and dominance of speech, leave one speaker out.

python -m sejax.main --config configs/joint.py:synthetic --workdir runs/synthetic
python -m sejax.main --config configs/joint.py:iemocap --config.data_dir=IEMOCAP_full_release --workdir runs/iemocap
python -m sejax.main --config configs/joint.py:emodb --config.data_dir=emodb.zip --workdir runs/emodb
python -m sejax.main --config configs/joint.py:table --config.data_dir=my.csv --workdir runs/mine

Names of streams after the corpus replace its default streams:

python -m sejax.main --config configs/joint.py:iemocap,mfcc,stf,mel,hubert,wav2vec2 \
    --config.data_dir=IEMOCAP_full_release --workdir runs/iemocap_ssl

hubert, wav2vec2, wavlm and whisper are pretrained models, by default the base ones of the Hugging Face hub. A folder is
also accepted: --config.features.ssl.hubert.model=FOLDER. Their hidden states are computed once.
--config.model.encoder.hubert=finetune trains adapters in the pretrained model instead (config.finetune).
"""

from ml_collections import ConfigDict

from sejax.config import default_config, read_words


def get_config(words: str = "synthetic") -> ConfigDict:
    """Returns the config of a corpus and streams.

    Args:
      words: A corpus of `CORPORA`, streams, or both, with commas between. The default corpus is synthetic.

    Raises:
      InputError: A word is neither a corpus nor a stream, or there are several corpora.
    """
    config = default_config()
    acoustic = tuple(name for name in config.features if name != "ssl")
    found = read_words("configs/joint.py", words, streams=(*acoustic, *config.features.ssl))
    config.corpus = found.corpus or "synthetic"
    if config.corpus in ("synthetic", "iemocap"):
        # The joint model and the two single-task ones.
        config.grid.alpha = (0.5, 1.0, 0.0)
    if config.corpus in ("synthetic", "emodb"):
        _small(config)
    if config.corpus == "emodb":
        # There are 430 utterances to train on: the model reads statistics alone, because encoders do not improve
        # validation (experiments/emodb). This config also uses more features, speed perturbation and several seeds.
        config.model.encoder.mfcc = config.model.encoder.mel = "none"
        config.streams = ("mfcc", "stf", "mel", "prosody")
        config.speeds = (1.0, 0.9, 1.1)
        config.seeds = 5
    config.streams = found.streams or config.streams
    pretrained = [name for name in config.streams if name in config.features.ssl]
    if config.corpus == "emodb" and pretrained:
        # The same holds for hidden states: their means over time, of every layer.
        for name in pretrained:
            config.model.encoder[name] = "none"
        config.model.joined_states = True
        config.model.deviations = False
        config.model.fused = 128
    return config


def _small(config: ConfigDict) -> None:
    """Sets a small model for a few hundred utterances and two cores: statistics of all streams, encoders of two."""
    config.model.encoder.stf = "none"
    config.model.width = 32
    config.model.stride = 8
    config.model.fused = 512
    config.max_seconds = 6.0
    config.buckets = 2
    config.learning_rate = 2e-3
    config.dropout = 0.5
    config.epochs = 20
