"""Settings as frozen dataclasses, from TOML and from `key=value` words; unknown keys and bad values are refused."""

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from fgclep.errors import UsageError

Settings = TypeVar("Settings")

_NEVER_ZERO = {
    "epochs", "mix", "shortest_crop", "patience", "batch_size", "learning_rate", "accumulation", "rows_per_block",
    "checkpoint_steps", "max_tokens",
}  # fmt: skip
_ANY_SIGN = {"bias_init", "log_scale_init", "threshold"}
_SHARES = {
    "shortest_crop", "balanced_share", "warmup_share", "ema_decay", "left_open_weight", "quantile", "top_p",
    "start_share",
}  # fmt: skip


def read_toml(path: Path | None) -> dict[str, Any]:
    """Return the tables of a TOML file, nothing for None.

    Raises:
        UsageError: for a missing or unreadable file.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not a readable TOML file: {error}.") from error


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` settings of the command line; values are read as TOML, bare words as text.

    Raises:
        UsageError: for a pair without `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise UsageError(f"the setting {pair!r} has no '='; expected key=value, such as epochs=10.")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text.strip()
    return values


def make_settings(
    kind: type[Settings], values: Mapping[str, Any], choices: Mapping[str, Collection[str]], where: str = ""
) -> Settings:
    """Build a settings object whose fields all have defaults.

    Args:
        kind: a dataclass of bool, int, float, str and tuples of str.
        values: what differs from the defaults.
        choices: the words that a text field may hold, by field.
        where: told with an unknown key, such as the file it stands in.

    Raises:
        UsageError: for an unknown key (naming the nearest), a value of another type, or one that cannot be meant.
    """
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    assert MISSING not in defaults.values()
    known = {key: _checked(key, value, defaults, choices, where) for key, value in values.items()}
    return kind(**known)


def refuse_unknown(key: str, known: Collection[str], where: str) -> None:
    """Raise UsageError, naming the nearest key, if there is no such one."""
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        raise UsageError(f"unknown key {key!r} in the training configuration{where and ' ' + where}.", hint)


def _checked(
    key: str, value: Any, defaults: Mapping[str, Any], choices: Mapping[str, Collection[str]], where: str
) -> Any:
    refuse_unknown(key, defaults, where)
    wanted = type(defaults[key])
    if wanted is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            raise UsageError(f'{key} is {value!r}; expected a list of texts, such as ["form", "rhythm"].')
        for word in value:
            _check_choice(key, word, choices)
        return tuple(value)
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise UsageError(f"{key} is {value!r}; expected {wanted.__name__}.")
    if isinstance(value, str):
        _check_choice(key, value, choices)
    elif wanted is not bool:
        _check_range(key, value)
    return value


def _check_choice(key: str, value: str, choices: Mapping[str, Collection[str]]) -> None:
    if key in choices and value not in choices[key]:
        raise UsageError(f"unknown {key} {value!r}; expected one of {', '.join(choices[key])}.")


def _check_range(key: str, value: float) -> None:
    if value != value or abs(value) == float("inf"):
        raise UsageError(f"{key} is {value}; expected a finite number.")
    if (value < 0 or (value == 0 and key in _NEVER_ZERO)) and key not in _ANY_SIGN:
        raise UsageError(f"{key} is {value}; expected {'more than zero' if key in _NEVER_ZERO else 'zero or more'}.")
    if value > 1 and key in _SHARES:
        raise UsageError(f"{key} is {value}; expected at most 1.")
