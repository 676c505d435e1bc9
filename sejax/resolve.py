"""From options to what they mean: which features, which corpus, which model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sejax.corpora.read import read_corpus
from sejax.corpora.synthetic import write_synthetic
from sejax.data.prepare import Prepared, prepare
from sejax.models.joint import StreamSpec
from sejax.ssl.convert import Pretrained
from sejax.ssl.finetune import Tuning
from sejax.ssl.modules import Lora


def stream_spec(config: ConfigDict, pretrained: Mapping[str, Pretrained], name: str) -> StreamSpec:
    """How the model reads a stream."""
    encoder, layers, stride = config.model.encoder[name], config.model.layers, config.model.stride
    if name not in pretrained:
        return StreamSpec(name, encoder, layers, stride)
    own = pretrained[name]
    layer = own.architecture.state(config.features.ssl[name].layers)
    mixed = own.architecture.layers + 1 if layer is None else 1
    stride = max(1, stride // 2)
    if encoder != "finetune":
        return StreamSpec(name, encoder, layers, stride, mixed)
    options = dict(config.finetune)
    lora = Lora(options.pop("lora_rank"), options.pop("lora_alpha"), tuple(options.pop("lora_targets")))
    return StreamSpec(
        name,
        "linear",
        layers,
        stride,
        mixed,
        Tuning(own.architecture, own.normalise, layer=layer, lora=lora, **options),
    )


def _feature(config: ConfigDict, name: str) -> str:
    """What is stored of a stream: an acoustic feature, hidden states of a pretrained model, or the audio itself."""
    if name not in config.features.ssl:
        return name
    return "raw" if config.model.encoder[name] == "finetune" else "ssl"


def _settings(config: ConfigDict, name: str) -> dict[str, Any]:
    """The settings of a stream's feature."""
    feature = _feature(config, name)
    if feature == "raw":
        return {}
    if feature == "ssl":
        return {**config.features.ssl[name], "pooled": config.model.encoder[name] == "none"}
    return dict(config.features[name])


def hop_length(config: ConfigDict, pretrained: Mapping[str, Pretrained], name: str) -> int:
    """Samples from frame to frame of a stream, as it is stored."""
    if name not in pretrained:
        return config.features[name].hop_length
    return 1 if _feature(config, name) == "raw" else pretrained[name].architecture.hop_length


def trains_whole_model(config: ConfigDict) -> bool:
    """Whether each run trains a pretrained model of its own."""
    return config.finetune.mode == "full" and any(_feature(config, name) == "raw" for name in config.streams)


def prepare_corpus(config: ConfigDict, streams: Sequence[str]) -> Prepared:
    """Corpus and features, built where they are missing."""
    cache_dir = os.path.expanduser(config.cache_dir)
    data_dir = os.path.expanduser(config.data_dir)
    if config.corpus == "synthetic":
        fraction, seed = config.synthetic.fraction, config.synthetic.seed
        data_dir = data_dir or os.path.join(cache_dir, f"synthetic-{fraction:g}-{seed}")
        write_synthetic(data_dir, fraction=fraction, seed=seed, workers=config.workers or None)
    return prepare(
        read_corpus(config.corpus, data_dir, labels=config.labels),
        streams=streams,
        features={name: _feature(config, name) for name in streams},
        settings={name: _settings(config, name) for name in streams},
        speeds=config.speeds,
        cache_dir=cache_dir,
        workers=config.workers or None,
        max_bad_fraction=config.max_bad_fraction,
    )


def protocol(config: ConfigDict, folds: int) -> dict[str, Any]:
    """What every number of this study has to be quoted with."""
    left_out = {
        "loso": "leave one speaker out",
        "loso_session": "leave one session out",
        "official": "the corpus's own splits",
        "table": "the folds of the table",
    }[config.protocol]
    transductive = config.normalisation == "speaker"
    chosen = "epoch chosen on the TEST speakers: optimistic" if config.select_on_test else "epoch chosen on validation"
    normalised = "features normalised per speaker, the test speaker too: transductive"
    return {
        "name": config.protocol,
        "description": "; ".join([left_out, chosen, *([normalised] if transductive else [])]),
        "normalisation": config.normalisation,
        "transductive": transductive,
        "select_on_test": config.select_on_test,
        "optimistic": config.select_on_test,
        "seeds": config.seeds,
        "folds": folds,
    }
