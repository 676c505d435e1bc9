"""The settings of a feature: names and values."""

from collections.abc import Mapping

from sejax.errors import InputError

Setting = int | float | str
Settings = Mapping[str, Setting]


def complete_settings(name: str, settings: Settings, defaults: Settings) -> dict[str, Setting]:
    """Returns the settings of the feature `name`, completed by `defaults`.

    Raises:
      InputError: an unknown setting, a value of another type than the default's.
    """
    for key, value in settings.items():
        if key not in defaults:
            raise InputError(f"config.features.{name} has {key!r}, expected one of {tuple(defaults)}")
        if type(value) is not type(defaults[key]):
            kind = type(defaults[key]).__name__
            raise InputError(f"config.features.{name}.{key} is {value!r}, expected a value of type {kind}")
    return {**defaults, **settings}
