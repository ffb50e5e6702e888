"""Where things live and which value of a setting counts, with its origin.

Order: flag, then `FGCLEP_<KEY>`, then `fgclep.toml` in the working directory or its nearest parent that has one,
then the user's `config.toml` in the home folder, then the default. No other module reads the environment.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgclep.errors import UsageError

DEFAULTS: dict[str, str | bool | None] = {
    "index": None,
    "model": None,
    "data": None,
    "device": "auto",
    "offline": False,
}
"""Every key with its default. None: `index` falls to the current index, `model` to the shipped bundle."""

PROJECT_FILE = "fgclep.toml"
USER_FILE = "config.toml"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


@dataclass(frozen=True)
class Setting:
    """One resolved setting.

    Attributes:
        value: text, or a boolean for `offline`; None where nobody set it and there is no default.
        origin: `flag`, `FGCLEP_<KEY>`, the configuration file's path, or `default`.
    """

    key: str
    value: str | bool | None
    origin: str


def home() -> Path:
    """Return the folder of indexes, models and the user's own configuration; it need not exist yet."""
    chosen = os.environ.get("FGCLEP_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("fgclep")


def debug() -> bool:
    """Tell whether tracebacks are wanted (`FGCLEP_DEBUG=1`)."""
    return _to_bool("FGCLEP_DEBUG", os.environ.get("FGCLEP_DEBUG", ""))


def export_for_libraries(*, no_color: bool, offline: bool) -> None:
    """Pass `--no-color` and `--offline` on to Rich and the hub client, and keep foreign progress bars off stderr."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if no_color:
        os.environ["NO_COLOR"] = "1"
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def text(key: str, flag: str | None = None) -> str | None:
    """Return the value of a text setting, see `resolve`."""
    value = resolve(key, flag).value
    return None if value is None else str(value)


def resolve(key: str, flag: str | bool | None = None, *, start: Path | None = None) -> Setting:
    """Find the value that counts for a key.

    Args:
        key: one of `DEFAULTS`.
        flag: what the command line gave; None where it gave nothing.
        start: folder from which the project file is looked for, upwards; the working directory unless told.

    Raises:
        UsageError: if a configuration file is not TOML, has an unknown key or a value of the wrong type.
    """
    if flag is not None:
        return Setting(key, flag, "flag")
    variable = f"FGCLEP_{key.upper()}"
    given = os.environ.get(variable)
    if given:
        return Setting(key, _to_bool(variable, given) if isinstance(DEFAULTS[key], bool) else given, variable)
    for file in configuration_files(start):
        values = read_configuration(file)
        if key in values:
            return Setting(key, values[key], str(file))
    return Setting(key, DEFAULTS[key], "default")


def configuration_files(start: Path | None = None) -> list[Path]:
    """List the configuration files that exist, the one that wins first."""
    folder = (start or Path.cwd()).absolute()
    project = next((p / PROJECT_FILE for p in (folder, *folder.parents) if (p / PROJECT_FILE).is_file()), None)
    user = home() / USER_FILE
    return [file for file in (project, user) if file is not None and file.is_file()]


def read_configuration(file: Path) -> dict[str, str | bool]:
    """Read one configuration file.

    A relative `data`, and an `index` or `model` that begins with a dot, are paths from the file's own folder.

    Raises:
        UsageError: if the file is not TOML, has an unknown key or a value of the wrong type.
    """
    import tomllib

    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{file} is not valid TOML: {problem}.", 'Write lines such as: index = "mimic"') from problem
    return {key: _checked(file, key, value) for key, value in values.items()}


def _checked(file: Path, key: str, value: Any) -> str | bool:
    if key not in DEFAULTS:
        raise UsageError(f"{file} has the unknown key {key!r}; {_nearest(key)}", f"Edit {file}.")
    expected = bool if isinstance(DEFAULTS[key], bool) else str
    if not isinstance(value, expected):
        name = "true or false" if expected is bool else "text in quotes"
        raise UsageError(f"{file}: {key} is {value!r}, expected {name}.", f"Edit {file}.")
    if isinstance(value, str) and (key == "data" or (key in {"index", "model"} and value.startswith("."))):
        return str(file.parent / Path(value).expanduser())
    return value


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key.lower(), DEFAULTS, n=1, cutoff=0.5)
    known = f"the known keys are {', '.join(DEFAULTS)}."
    return f"did you mean {near[0]!r}? ({known[:-1]})" if near else known


def _to_bool(variable: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise UsageError(f"{variable} is {value!r}, expected 1 or 0.", f"unset {variable}")
