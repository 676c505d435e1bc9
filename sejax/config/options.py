"""The options of a config together: whether they make sense, what a grid varies, what may change in a workdir."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from sejax.config.checks import CHECKS, TUPLE, checks_with
from sejax.config.defaults import (
    ACOUSTIC,
    BASELINE,
    COMPUTED,
    DRAWN,
    LARGEST_SEED,
    STACKED,
    STRUCTURAL,
    at,
    default_config,
)
from sejax.config.listed import read_settings
from sejax.corpora.join import parse_sources
from sejax.corpora.schema import SAMPLING_RATE
from sejax.data.engines import ENGINES
from sejax.data.feature_files import parse_feature_files
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.runs import CLASS_TEMPERATURE, CORRUPTED, Setting
from sejax.engine.search import comparable_settings, draw_settings, expand_grid, list_settings
from sejax.errors import Check, InputError, is_number, shown, single
from sejax.features.corrupt import parse_all
from sejax.features.registry import FEATURES, full_settings
from sejax.pretrained import STREAMS
from sejax.protocols.registry import PROTOCOLS

CHANGEABLE = (
    "cache_dir",
    "workers",
    "compute",
    "beam_options",
    "tensorboard",
    "checkpoint_every",
    "bootstrap",
    "choose",
    "refit",
    "explain",
    "importance",
    "baselines",
    "final",
    "data_dir",
    "corpora",  # their names and labels are in the data, which is compared
    "feature_files",  # so are the vectors that streams have
    "jobs",
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


def between_of(config: ConfigDict) -> dict[str, tuple[float, float]]:
    """Returns the lowest and the highest value that a search draws, by the option's full name."""
    return {name: ends for name in DRAWN if (ends := tuple(at(config.search.between, name)))}


def listed_settings(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the values that each listed setting names, by the option's full name; see `read_settings`."""
    return read_settings(config, checks_with(tuple(feature_files(config)))) if config.settings else []


def settings_of(config: ConfigDict) -> list[Setting]:
    """Returns the settings of a study: those that it lists, or all of the grid, or those that the search draws.

    Raises:
      InputError: the search has fewer settings than draws, or a listed one cannot be read.
    """
    listed, grid, between, search = listed_settings(config), grid_of(config), between_of(config), config.search
    varied = {name for point in (grid, *listed) for name in point}
    base = {name: at(config, name) for name in (*STACKED, *STRUCTURAL) if name in STACKED or name in varied}
    if listed:
        return list_settings(base, listed)
    if search.draws:
        return draw_settings(base, grid, between, draws=search.draws, seed=search.seed)
    return expand_grid(base, grid)


def values_of(config: ConfigDict, name: str) -> tuple[Any, ...]:
    """Returns the values that settings may have of an option: listed, of the grid, the ends of a range, or its own."""
    own = at(config, name)
    listed = tuple(point.get(name, own) for point in listed_settings(config))
    drawn = between_of(config).get(name, ())
    return listed or tuple(at(config.grid, name)) or drawn or (own,)


def _place_of(config: ConfigDict, name: str) -> str:
    """Returns the full name of the option that holds the values of an option, for errors."""
    if any(name in point for point in listed_settings(config)):
        return "settings"
    places = (f"grid.{name}", f"search.between.{name}") if name in DRAWN else (f"grid.{name}",)
    return next((place for place in places if at(config, place)), name)


def feature_files(config: ConfigDict) -> dict[str, str]:
    """Returns the paths of the config's feature files, by stream.

    Raises:
      InputError: see `parse_feature_files`.
    """
    return parse_feature_files(config.feature_files, (*COMPUTED, *FEATURES))


def encoder_of(config: ConfigDict, stream: str) -> str:
    """Returns the encoder of a stream; vectors of a feature file have none."""
    return config.model.encoder[stream] if stream in COMPUTED else "none"


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


VARIED = (*(f"grid.{name}" for name in (*STACKED, *STRUCTURAL)), *(f"search.between.{name}" for name in DRAWN))
"""The options that hold values of other options."""

OPTIONS = (*CHECKS, *VARIED)
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
    CHECKS["feature_files"].require("config.feature_files", config.feature_files)
    checks = checks_with(tuple(feature_files(config)))
    for name, check in checks.items():
        check.require(f"config.{name}", at(config, name))
    sources, protocol = parse_sources(config.corpora), config.protocol
    enough = len(sources) > 1 or not PROTOCOLS[protocol].across
    _expect("corpora", config.corpora, enough, f"two or more, such as 'emodb:emodb.zip', for the protocol {protocol}")
    _check_grid(config, checks)
    _check_search(config)
    _check_listed(config)
    _check_streams(config)
    _check_feature_files(config)
    _check_corruptions(config)
    _check_imbalance(config)
    for name, row in ENGINES.items():
        if row and row.options and name != config.compute:
            given = config[row.options]
            _expect(row.options, given, not given, f"() unless config.compute is {name}")
    width, heads = config.model.width, config.model.heads
    _expect("model.width", width, width % (2 * heads) == 0, f"a multiple of 2 * model.heads = {2 * heads}")
    most = LARGEST_SEED + 1 - config.seed
    _expect("seeds", config.seeds, config.seeds <= most, f"at most {most}: the last seed is {LARGEST_SEED:,}")
    trains_vad = min(values_of(config, "alpha")) < 1
    few = trains_vad and config.batch_size < VAD_LOSSES[config.loss.vad].least_rows
    _expect("batch_size", config.batch_size, not few, f"2 or more: one utterance has no loss {config.loss.vad}")


def _check_names(config: ConfigDict) -> None:
    """Checks that the config has all options and no others."""
    found = _flat(config.to_dict())
    for name in found:
        if name not in OPTIONS:
            raise InputError(unknown_option(name))
    for name in OPTIONS:
        if name not in found:
            raise InputError(f"config.{name} is missing, expected all options of sejax.config.default_config")


def _check_grid(config: ConfigDict, checks: Mapping[str, Check]) -> None:
    """Checks the values that the grid varies."""
    for name in (*STACKED, *STRUCTURAL):
        values = at(config.grid, name)
        TUPLE.require(f"config.grid.{name}", values)
        for value in values:
            checks[name].require(f"a value of config.grid.{name}", value)
        if len({single(value) if is_number(value) else value for value in values}) < len(values):
            same = "" if len(set(values)) < len(values) else " (in float32 some are equal)"
            raise InputError(f"config.grid.{name} is {shown(values)}, expected each value once{same}")


def _check_listed(config: ConfigDict) -> None:
    """Checks the settings that are listed in place of a grid."""
    listed = listed_settings(config)
    others = [*(f"grid.{name}" for name in grid_of(config)), *(f"search.between.{name}" for name in between_of(config))]
    if config.search.draws:
        others.append("search.draws")
    _expect("settings", config.settings, not (listed and others), f"() beside config.{', config.'.join(others)}")
    seen: dict[frozenset[tuple[str, Any]], str] = {}
    for text, point in zip(config.settings, listed, strict=True):
        key = frozenset((name, single(value) if is_number(value) else value) for name, value in point.items())
        if key in seen:
            raise InputError(f"config.settings has {seen[key]!r} and {text!r}, expected each setting once")
        seen[key] = text


def _check_search(config: ConfigDict) -> None:
    """Checks what a search draws, and that what validation speakers choose from compares."""
    grid, search = grid_of(config), config.search
    for name in DRAWN:
        ends, option = at(search.between, name), f"search.between.{name}"
        TUPLE.require(f"config.{option}", ends)
        for end in ends:
            CHECKS[name].require(f"a value of config.{option}", end)
        rising = len(ends) == 2 and single(ends[0]) < single(ends[1])
        _expect(option, ends, not ends or rising, "the lowest and the highest value, or () for none")
        _expect(option, ends, not ends or name not in grid, f"() if config.grid.{name} has values")
    between = between_of(config)
    _expect("search.draws", search.draws, search.draws > 0 or not between, "1 or more if config.search.between has any")
    varies = bool(grid or between)
    _expect(
        "search.draws", search.draws, search.draws == 0 or varies, "0 if neither config.grid nor search.between vary"
    )
    chooses, settings = config.choose == "setting", settings_of(config)
    expected = "epoch where fewer than two settings train the same tasks"
    _expect("choose", config.choose, not chooses or len(comparable_settings(settings)) > 1, expected)
    expected = "0 unless config.choose is setting: each fold keeps others"
    _expect("search.halving", search.halving, chooses or search.halving == 0, expected)
    _expect("search.halving", search.halving, search.halving <= config.epochs, "at most config.epochs")
    if config.test_epoch == "last":
        _expect("patience", config.patience, config.patience == 0, "0 with config.test_epoch=last, which chooses none")
    if config.select_on_test:
        expected = "epoch with config.select_on_test: a fold's own validation speakers choose its setting"
        _expect("choose", config.choose, not chooses, expected)
        expected = "False with config.test_epoch=last, which chooses none"
        _expect("select_on_test", config.select_on_test, config.test_epoch == "best", expected)
    if search.halving:
        _expect("patience", config.patience, config.patience == 0, "0 with config.search.halving, which stops runs")


def _check_streams(config: ConfigDict) -> None:
    """Checks the streams together with the options that depend on them."""
    streams = config.streams
    encoded = [stream for stream in streams if encoder_of(config, stream) != "none"]
    _expect("model.statistics", False, bool(encoded or config.model.statistics), "True if no stream has an encoder")
    guided = config.model.guided
    guidable = guided in encoded and len(encoded) > 1
    _expect("model.guided", guided, not guided or guidable, "an encoded stream beside at least one other")
    if any(encoder_of(config, stream) == "finetune" for stream in streams):
        expected = "train if a model is fine-tuned: raw audio is not normalised"
        _expect("normalisation", config.normalisation, config.normalisation == "train", expected)
    for feature in ACOUSTIC:
        settings = full_settings(feature, config.features[feature].to_dict())
        if FEATURES[feature].whole:
            continue
        hop_seconds = int(settings["hop_length"]) / SAMPLING_RATE
        fits = feature not in encoded or not 0 < config.max_seconds < hop_seconds
        _expect(
            "max_seconds", config.max_seconds, fits, f"{hop_seconds:g} or more, a frame of {feature}, or 0 (no limit)"
        )


def _check_feature_files(config: ConfigDict) -> None:
    """Checks that the feature files are read, and that they have all that is read of a stream."""
    files = feature_files(config)
    read = {name for streams in (config.streams, *values_of(config, "streams")) for name in streams}
    of_baselines = {name.removesuffix(BASELINE) for name in config.baselines}
    for name in files:
        expected = f"{name} among config.streams, or {name}{BASELINE} among config.baselines"
        _expect("feature_files", config.feature_files, name in read | of_baselines, expected)
    if own := [name for name in config.streams if name in files]:
        only = f"with the stream {own[0]}: the vectors of a feature file are of the original recordings"
        _expect("speeds", config.speeds, len(config.speeds) == 1, f"(1.0,) {only}")
        _expect("corruptions", config.corruptions, not config.corruptions, f"() {only}")
        expected = f"True with the stream {own[0]}: the vectors of a feature file are statistics"
        _expect("model.statistics", config.model.statistics, config.model.statistics, expected)


def _check_corruptions(config: ConfigDict) -> None:
    """Checks the corruptions, and whether runs draw from them."""
    parse_all(config.corruptions)
    shares = values_of(config, CORRUPTED)
    name = _place_of(config, CORRUPTED)
    value = at(config, name)
    expected = "a share above 0 with config.corruptions, and 0 without"
    _expect(name, value, (max(shares) > 0) == bool(config.corruptions), expected)
    tuned = any(encoder_of(config, stream) == "finetune" for stream in config.streams)
    expected = "one share for all runs: those of a seed share the batches of a fine-tuned model"
    _expect(name, value, len(set(shares)) == 1 or not tuned, expected)
    for option in ("augment.noise", "augment.gain"):
        most = max(values_of(config, option))
        expected = "0 without a fine-tuned model: other streams do not hold audio (config.corruptions are for them)"
        _expect(option, most, most == 0 or tuned, expected)


def _check_imbalance(config: ConfigDict) -> None:
    """Checks that what belongs to a way of treating imbalance comes with it."""
    for option, default, to, needed in (
        ("loss.effective_beta", 0.99, "loss.class_weight", "effective"),
        ("loss.prior_tau", 1.0, "loss.class_prior", "corpus or train"),
    ):
        there = any(way in needed.split(" or ") for way in values_of(config, to))
        name, default_alone = _place_of(config, option), set(values_of(config, option)) == {default}
        _expect(name, at(config, name), there or default_alone, f"{default:g} without config.{to} = {needed}")
    most = max(values_of(config, CLASS_TEMPERATURE))
    tuned = any(encoder_of(config, stream) == "finetune" for stream in config.streams)
    expected = "1 with a fine-tuned model: the folds share its batches, and have different classes to balance"
    _expect(CLASS_TEMPERATURE, most, most == 1 or not tuned, expected)


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Returns the options in which a config and that of a workdir (as plain JSON values) differ, in words.

    An option that `there` lacks, because an older version wrote it, counts as its default. Options of `CHANGEABLE`
    do not count, nor do those of fine-tuning where no model is fine-tuned, nor the settings of features that no stream
    is made of, which an older version may have had otherwise.
    """
    default = unchangeable(json.loads(default_config().to_json_best_effort()))
    here, there = unchangeable(here), unchangeable(there)
    there = {**{name: default[name] for name in here.keys() & default.keys()}, **there}
    tuned = any(name.startswith("model.encoder.") and here[name] == "finetune" for name in here)
    return [
        f"{name} is {here.get(name)!r} here, {there.get(name)!r} in the workdir"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and (tuned or not name.startswith("finetune.")) and not _unread(name, here)
    ]


def _unread(name: str, options: Mapping[str, Any]) -> bool:
    """Returns whether an option is a setting of an acoustic feature that no stream of a study is made of."""
    kind, _, rest = name.partition(".")
    feature = rest.partition(".")[0]
    named = [options[option] for option in ("streams", "grid.streams", "settings")]
    return kind == "features" and feature in ACOUSTIC and feature not in json.dumps(named)


def unchangeable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options (nested) that have to stay the same in a workdir, by their full names."""
    return {name: value for name, value in _flat(options).items() if name not in CHANGEABLE}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested options by their full names."""
    return flatten_dict(dict(options), sep=".")


def _expect(name: str, value: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise InputError(f"config.{name} is {shown(value)}, expected {expected}")
