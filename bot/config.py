"""Where settings come from: a TOML file and ``TWITE_*`` variables to one ``Settings``.

What comes in: a TOML file (``--config``, ``TWITE_CONFIG`` or ``./twite.toml``) and the
environment, which wins. A group and a field are joined by two underscores:
``TWITE_KAFKA__BOOTSTRAP_SERVERS``. What is guaranteed: an unknown key of the file is an error
that names the nearest known one, an unknown ``TWITE_*`` variable is a warning, all problems
are told at once, and every value knows its origin.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableVariable

from bot.settings import PREFIX, Settings, known_fields

CONFIG_VARIABLE = "TWITE_CONFIG"
DEFAULT_FILE = Path("twite.toml")

# Variables that other parts of Twite read, or whose settings come with a later version:
# they are no mistake, so nobody is warned.
OTHER_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        "TWITE_CACHE",
        "TWITE_VIEWS__DIRECTORY",
    }
)

TEST_PREFIX = f"{PREFIX}TEST_"  # what Twite's own tests read


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings: where, what, and what to do about it."""

    where: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what.rstrip('.')}. {self.todo}"


class SettingsError(Exception):
    """The settings cannot be used; ``problems`` has one entry per thing to mend."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with their origins: dotted name to ``default``, a file, or a variable."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None
    warnings: tuple[str, ...]


def load(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read the settings; ``overrides`` (nested, from the command line) win over everything.

    Raises ``SettingsError`` with every problem found.
    """
    path = find_file(file)
    data = _read_toml(path) if path else {}
    origins = _origins(data, path, overrides or {})
    unknown = tuple(_unknown_keys(data, path))
    try:
        settings = _settings_class(data)(**dict(overrides or {}))
    except ValidationError as error:
        told = {name for name, _ in _leaves(data)} - set(origins)
        raise SettingsError((*unknown, *_problems(error, origins, told))) from None
    except UnreadableVariable as error:
        raise SettingsError((*unknown, _unreadable(error))) from None
    if unknown:
        raise SettingsError(unknown)
    return Loaded(settings, origins, path, tuple(_unknown_variables()))


def find_file(file: Path | None) -> Path | None:
    """The file to read: the one named, else ``TWITE_CONFIG``, else ``./twite.toml``."""
    named = file or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is None:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    return named


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that give another process the same settings, secrets included."""
    values: dict[str, str] = {}
    for known in known_fields():
        value = known.read(settings)
        if value is not None:
            values[known.variable] = _as_text(value)
    return values


def _as_text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _settings_class(data: Mapping[str, Any]) -> type[Settings]:
    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, dict(data))

    return FromFile


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what, todo = error.strerror or "cannot be read", "Name a file that is there."
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        what, todo = f"not valid TOML: {error}", "Mend that line."
    raise SettingsError((Problem(str(path), what, todo),))


def _unknown_keys(data: Mapping[str, Any], path: Path | None) -> Iterator[Problem]:
    known = {field.name for field in known_fields()}
    groups = {name.rsplit(".", 1)[0] for name in known}
    for name, value in _leaves(data):
        if name in known:
            continue
        if name in groups:
            what = f"{name} is a group, and here it is {type(value).__name__}"
            yield Problem(str(path), what, f"Write it as a table: [{name}].")
            continue
        yield Problem(str(path), f"unknown setting {name}", _hint(name, known))


def _hint(name: str, known: set[str]) -> str:
    last = {field.rsplit(".", 1)[-1]: field for field in sorted(known)}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not close and name.rsplit(".", 1)[-1] in last:
        close = [last[name.rsplit(".", 1)[-1]]]
    if close:
        return f"Did you mean {close[0]}?"
    return "`twite config show` lists what can be set."


def _unknown_variables() -> Iterator[str]:
    variables = {field.variable for field in known_fields()}
    groups = {name.rsplit("__", 1)[0] for name in variables}  # a whole group as JSON
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in variables | groups | OTHER_VARIABLES:
            continue
        if upper.startswith(TEST_PREFIX):
            continue
        close = difflib.get_close_matches(upper, variables, n=1, cutoff=0.75)
        hint = f" Did you mean {close[0]}?" if close else ""
        yield f"{name} in the environment is no setting of Twite.{hint}"


def _leaves(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; a table that stands where a plain value belongs is a leaf."""
    known = {field.name for field in known_fields()}
    for key, value in data.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict) and name not in known:
            yield from _leaves(value, name)
        else:
            yield name, value


def _origins(
    data: Mapping[str, Any], path: Path | None, overrides: Mapping[str, Any]
) -> dict[str, str]:
    in_file = {name for name, _ in _leaves(data)}
    on_line = {name for name, _ in _leaves(overrides)}
    environment = {name.upper() for name in os.environ}
    origins = {}
    for known in known_fields():
        if known.name in on_line:
            origins[known.name] = "command line"
        elif known.variable in environment:
            origins[known.name] = known.variable
        else:
            origins[known.name] = str(path) if known.name in in_file else "default"
    return origins


def _problems(
    error: ValidationError, origins: Mapping[str, str], told: Container[str]
) -> Iterator[Problem]:
    """What is wrong with values; ``told``: names of which something was said already."""
    fields = {known.name: known for known in known_fields()}
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        name = ".".join(str(step) for step in item["loc"])
        if name in told:
            continue
        what = f"{name}: {item['msg'].removeprefix('Value error, ')}"
        known = fields.get(name)
        todo = f"It means: {known.plain}" if known else "`twite config show` explains each."
        yield Problem(origins.get(name, "settings"), what, todo)


def _unreadable(error: UnreadableVariable) -> Problem:
    """A variable for a whole group that is no JSON; the message of the library names the group."""
    group = next(known.path[0] for known in known_fields() if f'"{known.path[0]}"' in str(error))
    what = "stands for a whole group and is not a JSON object"
    return Problem(f"{PREFIX}{group.upper()}", what, f"Set one field: {PREFIX}{group.upper()}__…")
