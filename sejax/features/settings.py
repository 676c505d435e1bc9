"""The settings of a feature: names and values."""

from collections.abc import Mapping

from sejax.errors import FLAG, WORDS, Check, InputError, number, whole

Setting = int | float | str
Settings = Mapping[str, Setting]
LARGEST = 65_536  # of a length in samples, of a number of filters


def setting_check(default: Setting) -> Check:
    """Returns the check for a setting alone, by the type of its default; whole numbers are lengths and sizes."""
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int):
        return whole(1, LARGEST)
    return number(-1e9, 1e9) if isinstance(default, float) else WORDS


def complete_settings(name: str, settings: Settings, defaults: Settings) -> dict[str, Setting]:
    """Returns the settings of the feature `name`, completed by `defaults`.

    Raises:
      InputError: an unknown setting, a value of another type than the default's or out of range.
    """
    for key, value in settings.items():
        if key not in defaults:
            raise InputError(f"config.features.{name} has {key!r}, expected one of {tuple(defaults)}")
        setting_check(defaults[key]).require(f"config.features.{name}.{key}", value)
    return {**defaults, **settings}
