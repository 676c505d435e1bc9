"""The settings that a config lists in place of a grid, each written as tables name it: `alpha=0.9 streams=mfcc+mel`."""

import contextlib
import difflib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sejax.config.defaults import STACKED, STRUCTURAL, at
from sejax.errors import Check, InputError, is_number


def read_settings(config: ConfigDict, checks: Mapping[str, Check]) -> list[dict[str, Any]]:
    """Returns the values that each setting of `config.settings` names, by the option's full name.

    Args:
      config: all options.
      checks: what each option may be, by its full name.

    Raises:
      InputError: a setting is not `OPTION=VALUE ...` of options that a grid may vary, or has a value that makes no
        sense.
    """
    return [_read_setting(config, text, checks) for text in config.settings]


def _read_setting(config: ConfigDict, text: str, checks: Mapping[str, Check]) -> dict[str, Any]:
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
    point = {}
    for name, _, value in pairs:
        point[name] = _read_value(at(config, name), value)
        checks[name].require(f"{name} of a setting of config.settings", point[name])
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
