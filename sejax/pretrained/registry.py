"""The pretrained families, by the `model_type` of a checkpoint's config.json."""

from sejax.pretrained.base import Backbone
from sejax.pretrained.families.emotion2vec import Emotion2vec
from sejax.pretrained.families.wav2vec2 import Wav2Vec2
from sejax.pretrained.families.whisper import Whisper

BACKBONES: dict[str, type[Backbone]] = {
    "wav2vec2": Wav2Vec2,
    "hubert": Wav2Vec2,
    "wavlm": Wav2Vec2,
    "unispeech-sat": Wav2Vec2,
    "data2vec-audio": Wav2Vec2,
    "emotion2vec": Emotion2vec,
    "whisper": Whisper,
}
