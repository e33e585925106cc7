"""The client library's warnings and errors: the same one at most once every few seconds.

While a broker is away aiokafka says so at each attempt of each of its connections, and a worker
has some of those for every partition. What is held back is counted, and the next line of its
kind that comes through says how many there were.
"""

import logging
import time
from collections.abc import Callable

import aiokafka.admin  # noqa: F401 - and the rest with it: loggers must be there to be found

EVERY_S = 10.0
_KINDS = 256  # messages remembered at once


class Damper(logging.Filter):
    """Lets a message of a logger through once in ``every_s`` seconds, by its whole text."""

    def __init__(
        self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}  # when said, held back since

    def filter(self, record: logging.LogRecord) -> bool:
        """Logging asks; below a warning everything passes."""
        if record.levelno < logging.WARNING:
            return True
        text = _text(record)
        now, kind = self._clock(), (record.name, text)
        said, held = self._seen.get(kind, (now - self._every_s, 0))
        if now - said < self._every_s:
            self._seen[kind] = (said, held + 1)
            return False
        if held:
            record.msg = f"{text} (and {held} times more in the {now - said:.0f} s before)"
            record.args = None
        self._remember(kind, now)
        return True

    def _remember(self, kind: tuple[str, str], now: float) -> None:
        """The newest stands last, and the oldest is forgotten first."""
        self._seen.pop(kind, None)
        self._seen[kind] = (now, 0)
        if len(self._seen) > _KINDS:
            del self._seen[next(iter(self._seen))]


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit; logging tells of it later
        return str(record.msg)


_DAMPER = Damper()


def install() -> None:
    """For this process: damp what aiokafka logs. Filters are not inherited, so each gets it."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "aiokafka":
            logging.getLogger(name).addFilter(_DAMPER)
