"""The options of a config together: whether they make sense, what a grid varies, what may change in a workdir."""

import contextlib
import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from sejax.config.checks import CHECKS, TUPLE
from sejax.config.defaults import ACOUSTIC, LARGEST_SEED, STACKED, STRUCTURAL, default_config
from sejax.corpora.join import parse_sources
from sejax.corpora.schema import SAMPLING_RATE
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.runs import CORRUPTED
from sejax.errors import InputError, is_number, shown, single
from sejax.features.corrupt import parse_all
from sejax.features.registry import full_settings
from sejax.pretrained import STREAMS
from sejax.protocols.registry import PROTOCOLS

CHANGEABLE = (
    "cache_dir",
    "workers",
    "tensorboard",
    "checkpoint_every",
    "bootstrap",
    "choose",
    "refit",
    "final",
    "data_dir",
    "corpora",  # their names and labels are in the data, which is compared
    "devices",
    "frames_on",
    "memory_fraction",
    # A checkpoint may lie elsewhere: its contents are compared.
    *(f"features.ssl.{stream}.{name}" for stream in STREAMS for name in ("model", "revision")),
)
"""The options that may differ when a workdir is continued: they do not change what is learned."""


def grid_of(config: ConfigDict) -> dict[str, tuple[Any, ...]]:
    """Returns the values that the grid varies, by the option's full name."""
    return {name: values for name in (*STACKED, *STRUCTURAL) if (values := tuple(at(config.grid, name)))}


def listed_settings(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the values that each setting of `config.settings` names, by the option's full name.

    Raises:
      InputError: a setting is not `OPTION=VALUE ...` of options that a grid may vary, or has a value that makes no
        sense.
    """
    return [_read_setting(config, text) for text in config.settings]


def _read_setting(config: ConfigDict, text: str) -> dict[str, Any]:
    """Reads a setting as `sejax.engine.runs.written` writes its values."""
    pairs = [word.partition("=") for word in text.split()]
    names = [name for name, _, _ in pairs]
    if unknown := [name for name in names if name not in (*STACKED, *STRUCTURAL)]:
        close = difflib.get_close_matches(unknown[0], (*STACKED, *STRUCTURAL), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(
            f"config.settings has {text!r}, where {unknown[0]!r} is no option that a grid may vary{hint}, expected "
            "OPTION=VALUE with blanks between several"
        )
    if len(set(names)) < len(names):
        raise InputError(f"config.settings has {text!r}, expected each option once")
    point = {name: _read_value(at(config, name), value) for name, _, value in pairs}
    for name, value in point.items():
        CHECKS[name].require(f"{name} of a setting of config.settings", value)
    return point


def _read_value(own: Any, text: str) -> Any:
    """Reads another value of an option; a text that is none of its type stays one, which the option's check refuses."""
    if isinstance(own, tuple):
        return tuple(text.split("+"))
    if isinstance(own, bool):
        return {"True": True, "False": False}.get(text, text)
    if is_number(own):
        with contextlib.suppress(ValueError):
            return type(own)(text)
    return text


def values_of(config: ConfigDict, name: str) -> tuple[Any, ...]:
    """Returns the values of an option in the settings: of each that is listed, or those of the grid, or its own."""
    own = at(config, name)
    listed = tuple(point.get(name, own) for point in listed_settings(config))
    return listed or tuple(at(config.grid, name)) or (own,)


def with_structure(config: ConfigDict, structure: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of the config with other values of some of the `STRUCTURAL` options.

    Raises:
      InputError: see `check_config`.
    """
    changed = config.copy_and_resolve_references()
    for name, value in structure.items():
        *folders, option = name.split(".")
        node = changed
        for folder in folders:
            node = node[folder]
        node[option] = value
    check_config(changed)
    return changed


OPTIONS = (*CHECKS, *(f"grid.{name}" for name in (*STACKED, *STRUCTURAL)))
"""The full names of all options."""


def unknown_option(name: str) -> str:
    """Returns the sentence for an option that does not exist."""
    (close,) = difflib.get_close_matches(name, OPTIONS, n=1) or ("",)
    return f"the config has no option {name!r}{f', did you mean {close!r}?' if close else ''}"


def check_config(config: ConfigDict) -> None:
    """Checks the options one by one, and together.

    Raises:
      InputError: an option is missing or unknown, or has a value that makes no sense.
    """
    _check_names(config)
    for name, check in CHECKS.items():
        check.require(f"config.{name}", at(config, name))
    sources, protocol = parse_sources(config.corpora), config.protocol
    enough = len(sources) > 1 or not PROTOCOLS[protocol].across
    _expect("corpora", config.corpora, enough, f"two or more, such as 'emodb:emodb.zip', for the protocol {protocol}")
    _check_grid(config)
    _check_settings(config)
    _check_streams(config)
    _check_corruptions(config)
    width, heads = config.model.width, config.model.heads
    _expect("model.width", width, width % (2 * heads) == 0, f"a multiple of 2 * model.heads = {2 * heads}")
    most = LARGEST_SEED + 1 - config.seed
    _expect("seeds", config.seeds, config.seeds <= most, f"at most {most}: the last seed is {LARGEST_SEED:,}")
    expected = "epoch where fewer than two settings train the same tasks"
    _expect("choose", config.choose, config.choose == "epoch" or _comparable(config) > 1, expected)
    trains_vad = min(values_of(config, "alpha")) < 1
    few = trains_vad and config.batch_size < VAD_LOSSES[config.loss.vad].least_rows
    _expect("batch_size", config.batch_size, not few, f"2 or more: one utterance has no loss {config.loss.vad}")


def _comparable(config: ConfigDict) -> int:
    """Returns the number of settings that train all tasks which any setting trains."""
    trained = [(alpha > 0, alpha < 1) for alpha in values_of(config, "alpha")]  # class, VAD
    most = tuple(map(max, zip(*trained, strict=True)))
    others = (len(values) for name, values in grid_of(config).items() if name != "alpha")
    return sum(tasks == most for tasks in trained) * math.prod(others)


def _check_names(config: ConfigDict) -> None:
    """Checks that the config has all options and no others."""
    found = _flat(config.to_dict())
    for name in found:
        if name not in OPTIONS:
            raise InputError(unknown_option(name))
    for name in OPTIONS:
        if name not in found:
            raise InputError(f"config.{name} is missing, expected all options of sejax.config.default_config")


def _check_grid(config: ConfigDict) -> None:
    """Checks the values that the grid varies."""
    for name in (*STACKED, *STRUCTURAL):
        values = at(config.grid, name)
        TUPLE.require(f"config.grid.{name}", values)
        for value in values:
            CHECKS[name].require(f"a value of config.grid.{name}", value)
        if len({single(value) if is_number(value) else value for value in values}) < len(values):
            same = "" if len(set(values)) < len(values) else " (in float32 some are equal)"
            raise InputError(f"config.grid.{name} is {shown(values)}, expected each value once{same}")


def _check_settings(config: ConfigDict) -> None:
    """Checks the settings that are listed in place of a grid."""
    listed, grid = listed_settings(config), grid_of(config)
    _expect("settings", config.settings, not (listed and grid), f"() beside config.grid.{next(iter(grid), '')}")
    seen: dict[frozenset[tuple[str, Any]], str] = {}
    for text, point in zip(config.settings, listed, strict=True):
        key = frozenset((name, single(value) if is_number(value) else value) for name, value in point.items())
        if key in seen:
            raise InputError(f"config.settings has {seen[key]!r} and {text!r}, expected each setting once")
        seen[key] = text


def _check_streams(config: ConfigDict) -> None:
    """Checks the streams together with the options that depend on them."""
    streams, encoder = config.streams, config.model.encoder
    encoded = [stream for stream in streams if encoder[stream] != "none"]
    _expect("model.statistics", False, bool(encoded or config.model.statistics), "True if no stream has an encoder")
    guided = config.model.guided
    guidable = guided in encoded and len(encoded) > 1
    _expect("model.guided", guided, not guided or guidable, "an encoded stream beside at least one other")
    if any(encoder[stream] == "finetune" for stream in streams):
        expected = "train if a model is fine-tuned: raw audio is not normalised"
        _expect("normalisation", config.normalisation, config.normalisation == "train", expected)
    for feature in ACOUSTIC:
        settings = full_settings(feature, config.features[feature].to_dict())
        hop_seconds = int(settings["hop_length"]) / SAMPLING_RATE
        fits = feature not in encoded or not 0 < config.max_seconds < hop_seconds
        _expect(
            "max_seconds", config.max_seconds, fits, f"{hop_seconds:g} or more, a frame of {feature}, or 0 (no limit)"
        )


def _check_corruptions(config: ConfigDict) -> None:
    """Checks the corruptions, and whether runs draw from them."""
    parse_all(config.corruptions)
    shares = values_of(config, CORRUPTED)
    name, value = (f"grid.{CORRUPTED}", shares) if at(config.grid, CORRUPTED) else (CORRUPTED, shares[0])
    expected = "a share above 0 with config.corruptions, and 0 without"
    _expect(name, value, (max(shares) > 0) == bool(config.corruptions), expected)
    tuned = any(config.model.encoder[stream] == "finetune" for stream in config.streams)
    expected = "one share for all runs: those of a seed share the batches of a fine-tuned model"
    _expect(name, value, len(shares) == 1 or not tuned, expected)
    for option in ("augment.noise", "augment.gain"):
        most = max(values_of(config, option))
        expected = "0 without a fine-tuned model: other streams do not hold audio (config.corruptions are for them)"
        _expect(option, most, most == 0 or tuned, expected)


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Returns the options in which a config and that of a workdir (as plain JSON values) differ, in words.

    An option that `there` lacks, because an older version wrote it, counts as its default. Options of `CHANGEABLE`
    do not count, nor do those of fine-tuning where no model is fine-tuned.
    """
    default = unchangeable(json.loads(default_config().to_json_best_effort()))
    here, there = unchangeable(here), unchangeable(there)
    there = {**{name: default[name] for name in here.keys() & default.keys()}, **there}
    tuned = any(name.startswith("model.encoder.") and here[name] == "finetune" for name in here)
    return [
        f"{name} is {here.get(name)!r} here, {there.get(name)!r} in the workdir"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and (tuned or not name.startswith("finetune."))
    ]


def unchangeable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options (nested) that have to stay the same in a workdir, by their full names."""
    return {name: value for name, value in _flat(options).items() if name not in CHANGEABLE}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested options by their full names."""
    return flatten_dict(dict(options), sep=".")


def at(config: ConfigDict, name: str) -> Any:
    """Returns the value of the option of that full name."""
    value = config
    for part in name.split("."):
        value = value[part]
    return value


def _expect(name: str, value: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise InputError(f"config.{name} is {shown(value)}, expected {expected}")
