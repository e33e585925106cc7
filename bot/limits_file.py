"""The limits that are in force now: those of the settings, or of a file that is read again when
it changes.

In: a TOML file with any fields of ``bot.rates.LiveLimits``, at its top or in a table
``[limits]``. Out: ``LiveLimits``. The file is looked at once a second at most, by its time and
size, on a thread of its own. A file that is missing, broken, no regular file or holds anything
else leaves the last good limits in force and one line in the log that says where it is wrong.
"""

import asyncio
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from bot.files import read_regular
from bot.rates import LiveLimits

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
MAX_BYTES = 65_536

Stamp = tuple[int, int, int]  # time in ns, size, inode: a file moved into place has another one


class BrokenFile(Exception):
    """The limits file can't be used; the message says where and why, without its values."""


class LimitsInForce:
    """``counter`` is seconds that only go up."""

    def __init__(
        self,
        settings: LiveLimits,
        file: Path | None = None,
        *,
        counter: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._file = file
        self._counter = counter
        self._limits = LiveLimits.model_validate(settings.model_dump())
        self._stamp: Stamp | None = (0, 0, 0)  # of no file
        self._look_at = counter()

    async def now(self) -> LiveLimits:
        """What is in force. Whoever comes while the file is being read gets the ones before."""
        if self._file is not None and self._counter() >= self._look_at:
            self._look_at = self._counter() + LOOK_EVERY_S
            await asyncio.to_thread(self._look, self._file)
        return self._limits

    def _look(self, file: Path) -> None:
        """Read the file if it is another one than before."""
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._limits = read(file, self._settings)
        except BrokenFile as error:
            log.error("limits file not used, the last good limits stay", error=str(error))
        else:
            log.info("limits read", file=str(file))


def read(file: Path, settings: LiveLimits) -> LiveLimits:
    """The limits of ``file``, those of ``settings`` where it says nothing.

    Raises ``BrokenFile``.
    """
    told = _parse(file)
    inner = told.pop("limits", {})
    if not isinstance(inner, dict):
        raise BrokenFile(f"{file}: limits must be a table, [limits]")
    told |= inner
    for name in told:
        if name not in LiveLimits.model_fields:
            known = ", ".join(LiveLimits.model_fields)
            raise BrokenFile(f"{file}: {name[:80]!r} can't be set in this file, only {known}")
    try:
        values = {name: getattr(settings, name) for name in LiveLimits.model_fields}
        return LiveLimits.model_validate(values | told)
    except ValidationError as error:
        raise BrokenFile(f"{file}: {_first(error)}") from None


def _parse(file: Path) -> dict[str, Any]:
    try:
        content = read_regular(file, MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BrokenFile(f"{file}: more than {MAX_BYTES} bytes")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise BrokenFile(f"{file}: {error.strerror or 'cannot be read'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenFile(f"{file}: not valid TOML: {error}") from None
    except ValueError:  # what Python does not take as a number, whatever TOML says
        raise BrokenFile(f"{file}: a number in it has too many digits") from None


def _first(error: ValidationError) -> str:
    first: Mapping[str, Any] = error.errors(
        include_input=False, include_url=False, include_context=False
    )[0]
    name = ".".join(str(step) for step in first["loc"])
    return f"{name}: {first['msg'].removeprefix('Value error, ')}"


def _stamp(file: Path) -> Stamp | None:
    """None where there is no file that can be looked at."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # the latter for a NUL in the path
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
