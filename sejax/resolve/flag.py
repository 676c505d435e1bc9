"""The flag --config FILE[:ARGUMENT] and its options, --config.OPTION=VALUE, with a sentence for each mistake."""

import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from sejax.errors import InputError, shown

EXPECTED = "expected --config FILE[:ARGUMENT]"

# How ml_collections and absl say it, with more or fewer quotes.
_UNKNOWN_OPTION = re.compile(
    r"""\W*(?:Key )?\W*(\w+)(?:\W+does not exist.*?)?\W*(?:n?Did you mean \W*(\w+).*)?""", re.DOTALL
)
_OTHER_TYPE = re.compile(
    r"Could not override field '(\w+)' \(reference\)\. (.*) is of original type <class '([\w.]+)'> "
    r"and cannot be casted to type <class '([\w.]+)'>",
    re.DOTALL,
)
_OPTION_VALUE = re.compile(r"flag --config\.([\w.]+)=(.*)", re.DOTALL)
_OPTION = re.compile(r"--?(?:no)?config\.([^=]*)")
_CONFIG_FLAG = re.compile("--?config(=.*)?", re.DOTALL)
_MISSING_FLAG = re.compile(r"flag --(\w+)=None: .*")
_TYPES = {
    "int": "a whole number (int)",
    "float": "a number (float)",
    "bool": "True or False",
    "str": "text (str)",
    "tuple": "a tuple",
}


class _ConfigFile(flags.ArgumentParser):
    """The parser of --config: a file becomes the config that its `get_config` returns."""

    def parse(self, argument: str) -> ConfigDict:
        try:
            return load_config(argument)
        except InputError as error:
            raise flags.Error(str(error)) from error  # absl puts words before a ValueError


def define_config(values: flags.FlagValues, argv: Sequence[str] | None = None) -> flags.FlagHolder:
    """Defines the flag --config, which has to be given, and returns its holder.

    Args:
      values: where it is defined.
      argv: the words that are parsed later, the name of the command first; None: those of this process.
    """
    words = None if argv is None else list(argv)
    holder = config_flags.DEFINE_config_file(
        "config", None, "The study, for instance configs/demo.py.", flag_values=values, sys_argv=words
    )
    values["config"].parser = _ConfigFile()
    flags.mark_flag_as_required("config", flag_values=values)
    return holder


def parse_flags(values: flags.FlagValues, argv: Sequence[str], *, expected: str) -> list[str]:
    """Parses flags, of which --config is one, and returns the words that are none, the name of the command first.

    Args:
      values: the flags.
      argv: the words.
      expected: what has to be given, for the error where it is missing.

    Raises:
      InputError: a flag or an option is wrong, or missing.
    """
    try:
        if sum(bool(_CONFIG_FLAG.fullmatch(word)) for word in argv) > 1:
            raise flags.Error(
                "--config is given more than once, expected one file; its options are changed by --config.OPTION=VALUE"
            )
        return values(list(argv))
    except (flags.Error, AttributeError, TypeError, ValueError, LookupError, OSError) as error:
        problem = _of_flag(error, argv, expected)
    raise InputError(" ".join(problem.split()))


def parse_config(words: Sequence[str]) -> ConfigDict:
    """Returns the config that words of a command line name: `--config FILE --config.OPTION=VALUE ...`, locked.

    Raises:
      InputError: see `parse_flags`; or a word is no flag.
    """
    argv = ["", *words]
    values = flags.FlagValues()
    holder = define_config(values, argv)
    _, *others = parse_flags(values, argv, expected=EXPECTED)
    if others:
        raise InputError(f"{others[0]!r} is not an option; expected --config and --config.OPTION=VALUE")
    return holder.value


def load_config(argument: str) -> ConfigDict:
    """Returns the config of FILE or FILE:ARGUMENT, locked: what the file's `get_config` returns for the argument.

    Raises:
      InputError: the file cannot be read or run, or returns something else than a config.
    """
    file, colon, words = argument.partition(":")
    if not file.strip():
        raise InputError("--config is empty, expected FILE or FILE:ARGUMENT, for instance configs/demo.py")
    module = ModuleType("config_file")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(Path(file).read_bytes(), file, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise InputError(_in_file(error, file)) from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise InputError(f"{file}: has no function get_config, expected one that returns a config (configs/demo.py)")
    arguments = [words] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        expected = f"{file}, because its get_config takes no argument" if colon else f"{file}:ARGUMENT"
        raise InputError(f"--config is {argument}, expected {expected}") from None
    try:
        config = get_config(*arguments)
    except (Exception, SystemExit) as error:
        raise InputError(_in_file(error, file)) from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{argument}: get_config returns {shown(config)}, expected the config of sejax.config.default_config"
        )
    # Options of the command line change a config, which a frozen one does not allow.
    return (config.as_configdict() if isinstance(config, FrozenConfigDict) else config).lock()


def _in_file(error: Exception | SystemExit, file: str) -> str:
    """Returns the sentence for an error that a config file raised."""
    if isinstance(error, InputError):
        return str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines, problem = [error.lineno], error.msg
    elif isinstance(error, OSError) and not lines:
        return f"{file}: cannot be read ({error.strerror}), expected a Python file with a function get_config"
    elif isinstance(error, SystemExit):
        problem = "calls sys.exit, expected a file whose function get_config returns a config"
    else:
        problem = _of_option(error) or "".join(traceback.format_exception_only(error)).strip()
    return f"{file}{f', line {lines[-1]}' if lines else ''}: {problem}"


def _of_option(error: Exception) -> str:
    """Returns the sentence for an option that does not exist or has another type; empty for other errors."""
    if isinstance(error, TypeError) and (found := _OTHER_TYPE.fullmatch(str(error))):
        option, value, kind, expected = found.groups()
        return f"the option {option!r} is {value} ({kind}), expected {_TYPES.get(expected, 'a group of options')}"
    is_unknown = isinstance(error, AttributeError | KeyError) and re.search("does not exist|Did you mean", str(error))
    if is_unknown and (found := _UNKNOWN_OPTION.fullmatch(str(error))):
        return f"the config has no option {found[1]!r}{f', did you mean {found[2]!r}?' if found[2] else ''}"
    return ""


def _of_flag(error: Exception, argv: Sequence[str], expected: str) -> str:
    """Returns the sentence for a wrong flag."""
    from sejax.config import CHECKS, OPTIONS, at, default_config, unknown_option

    problem = str(error)
    if missing := _MISSING_FLAG.fullmatch(problem):
        return f"--{missing[1]} is missing, {expected}"
    if found := _OPTION_VALUE.fullmatch(problem):
        option, value = found[1], shown(found[2].removesuffix(f": {error.__context__}"))
        if option in CHECKS:
            example = f"--config.{option}={at(default_config(), option)}"
            return f"config.{option} is {value}, expected {CHECKS[option].expected}, for instance {example}"
        return f"config.{option} is {value}, expected its options one by one, --config.{option}.NAME=VALUE"
    options = (match[1] for match in map(_OPTION.match, argv) if match)
    unknown = [option for option in options if option not in OPTIONS]
    return problem if isinstance(error, flags.Error) or not unknown else unknown_option(unknown[0])
