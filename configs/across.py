"""Across corpora: trained on each corpus and tested on each other, over common classes, as one program per structure.

python -m sejax.main --config configs/across.py --workdir runs/across \
    --config.corpora="('emodb:emodb.zip', 'table:korean/korean.csv')"

A model is trained on each corpus, validated on some of its speakers and tested on all other corpora; the diagonal of
the matrix leaves one speaker of the corpus out. Words name the settings that stand side by side: `acoustic` (MFCC,
short-term features, mel-spectrogram and prosody) or a pretrained stream, here both:

python -m sejax.main --config configs/across.py:acoustic,whisper --workdir runs/across \
    --config.corpora="('emodb:emodb.zip', 'table:korean/korean.csv')" --config.features.ssl.whisper.model=whisper-base

`--config.protocol=leave_one_corpus_out` trains on all corpora but one, `--config.protocol=joint` on all with speakers
of each held out; `--config.labels` chooses other common classes: six, eight, arousal, valence or a CSV file. The model
reads statistics alone, so that corpora of a few hundred utterances train it.
"""

from ml_collections import ConfigDict

from sejax.config import default_config, read_words

ACOUSTIC = "acoustic"


def get_config(words: str = ACOUSTIC) -> ConfigDict:
    """Returns the config of settings side by side.

    Args:
      words: `acoustic` and pretrained streams, with commas between; each is a setting of its own.

    Raises:
      InputError: A word is none of these.
    """
    config = default_config()
    found = read_words("configs/across.py", words, streams=(*config.features.ssl, ACOUSTIC))
    acoustic = ("mfcc", "stf", "mel", "prosody")
    settings = tuple(acoustic if word == ACOUSTIC else (word,) for word in found.streams)
    config.protocol = "cross"
    config.labels = "four"
    config.streams = settings[0]
    if len(settings) > 1:
        config.grid.streams = settings
    for stream in config.model.encoder:
        config.model.encoder[stream] = "none"
    config.model.joined_states = True
    config.model.deviations = False
    config.model.fused = 256
    config.speeds = (1.0, 0.9, 1.1)
    config.learning_rate = 2e-3
    config.dropout = 0.5
    config.buckets = 1  # nothing is padded: statistics have no length
    config.epochs = 20
    config.alpha = 1.0
    return config
