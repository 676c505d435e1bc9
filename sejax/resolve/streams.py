"""The streams of a config: their pretrained models, the settings of their features, how the model reads them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sejax.config import encoder_of, feature_files
from sejax.corpora.schema import SAMPLING_RATE
from sejax.data.buckets import frame_limit
from sejax.data.inputs import VECTORS, Input
from sejax.data.types import Stream
from sejax.errors import InputError
from sejax.features.extract import Contents
from sejax.models.joint import StreamSpec
from sejax.pretrained.base import Lora, Noise
from sejax.pretrained.convert import Pretrained, find_pretrained
from sejax.pretrained.finetune import Tuning


def find_checkpoints(config: ConfigDict, streams: Iterable[str]) -> dict[str, Pretrained]:
    """Looks up the pretrained models of streams."""
    pretrained = config.features.ssl
    return {name: _find_checkpoint(pretrained[name], name) for name in dict.fromkeys(streams) if name in pretrained}


def check_streams(structures: Sequence[ConfigDict], checkpoints: Mapping[str, Pretrained]) -> None:
    """Checks that the pretrained models fit their streams, before any feature is computed."""
    for structure in structures:
        for name in structure.streams:
            stream_spec(structure, checkpoints, name)


def _find_checkpoint(options: ConfigDict, stream: str) -> Pretrained:
    """Looks up the pretrained model of a stream, in the context that its options name."""
    found = find_pretrained(options.model, revision=options.revision)
    try:
        return found._replace(backbone=found.backbone.in_context(options.context))
    except InputError as error:
        raise InputError(f"config.features.ssl.{stream}: {error}") from error


def feature_of(config: ConfigDict, stream: str) -> str:
    """Returns the stored feature of a stream: an acoustic one, hidden states ("ssl") or the audio itself ("raw").

    That of a stream of a feature file is `VECTORS`.
    """
    if stream in feature_files(config):
        return VECTORS
    if stream not in config.features.ssl:
        return stream
    return "raw" if encoder_of(config, stream) == "finetune" else "ssl"


def settings_of(config: ConfigDict, stream: str) -> dict[str, Any]:
    """Returns the settings of a stream's feature."""
    feature = feature_of(config, stream)
    if feature == "raw":
        return {}
    if feature == "ssl" and encoder_of(config, stream) == "none":
        return pooled_settings(config, stream)
    if feature == "ssl":
        return {**config.features.ssl[stream], "pooled": False}
    return dict(config.features[stream])


def pooled_settings(config: ConfigDict, stream: str) -> dict[str, Any]:
    """Returns the settings of a pretrained model's statistics.

    They are small: one dataset has those of all layers, whichever of them a study reads.
    """
    return {**config.features.ssl[stream], "layers": "all", "pooled": True}


def hop_length(config: ConfigDict, checkpoints: Mapping[str, Pretrained], stream: str) -> int:
    """Returns the samples from one stored frame of a stream to the next; 1 for statistics alone, which have none."""
    feature = feature_of(config, stream)
    if stream not in checkpoints:
        return 1 if feature == VECTORS else config.features[stream].get("hop_length", 1)
    return 1 if feature == "raw" else checkpoints[stream].backbone.hop_length


def stream_spec(config: ConfigDict, checkpoints: Mapping[str, Pretrained], stream: str) -> StreamSpec:
    """Returns how the model reads a stream.

    Raises:
      InputError: the pretrained model does not have the layers that the config names.
    """
    encoder, layers, stride = encoder_of(config, stream), config.model.layers, config.model.stride
    if stream not in checkpoints:
        return StreamSpec(stream, encoder, layers, stride)
    checkpoint = checkpoints[stream]
    try:
        layer = checkpoint.backbone.state(config.features.ssl[stream].layers)
    except InputError as error:
        raise InputError(f"config.features.ssl.{stream}: {error}") from error
    mixed = checkpoint.backbone.layers + 1 if layer is None else 1
    stride = max(1, stride // 2)
    if encoder != "finetune":
        return StreamSpec(stream, encoder, layers, stride, mixed)
    longest = checkpoint.backbone.longest
    if longest is not None and not 0 < config.max_seconds <= longest / SAMPLING_RATE:
        raise InputError(
            f"config.max_seconds is {config.max_seconds:g}, expected a number up to {longest / SAMPLING_RATE:g}: the "
            f"{checkpoint.backbone.family} model of {stream}, which is fine-tuned, has no longer input"
        )
    finetune = dict(config.finetune)
    lora = Lora(finetune.pop("lora_rank"), finetune.pop("lora_alpha"), tuple(finetune.pop("lora_targets")))
    own = {name: value for name in Noise._fields if (value := finetune.pop(name)) is not None}
    backbone = replace(checkpoint.backbone, noise=checkpoint.backbone.noise._replace(**own))
    tuning = Tuning(backbone, layer=layer, lora=lora, **finetune)
    return StreamSpec(stream, "linear", layers, stride, mixed, tuning)


def read_layer(stream: Stream, config: ConfigDict, checkpoints: Mapping[str, Pretrained], name: str) -> Stream:
    """Returns a stream with the statistics of the hidden states that the config reads alone."""
    part = _statistics_read(config, checkpoints, name)
    return stream._replace(statistics=stream.statistics[..., slice(*part)]) if part else stream


def _statistics_read(config: ConfigDict, checkpoints: Mapping[str, Pretrained], name: str) -> tuple[int, int] | None:
    """Returns the place of the statistics of the one hidden state that a stream reads; None where it reads all."""
    if name not in checkpoints or encoder_of(config, name) != "none":
        return None
    backbone = checkpoints[name].backbone
    state = backbone.state(config.features.ssl[name].layers)
    size = 2 * backbone.hidden  # means and deviations
    return None if state is None else (state * size, (state + 1) * size)


def inputs_of(
    config: ConfigDict, contents: Mapping[str, Contents], checkpoints: Mapping[str, Pretrained]
) -> dict[str, Input]:
    """Returns how each stream of a structure is made; those of feature files have no contents."""
    inputs = {}
    for name in config.streams:
        if name not in contents:
            inputs[name] = Input(feature=VECTORS, settings={}, limit=None, dtype="float32")
            continue
        given = contents[name]
        inputs[name] = Input(
            feature=given.feature,
            settings=given.settings,
            limit=frame_limit(config.max_seconds, hop_length(config, checkpoints, name) / SAMPLING_RATE),
            dtype=config.frames_dtype if given.dtype == np.float32 else np.dtype(given.dtype).name,
            statistics=_statistics_read(config, checkpoints, name),
        )
    return inputs
