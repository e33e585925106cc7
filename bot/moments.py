"""Moments as people write them: an age, or a time with its zone."""

import re
from datetime import datetime, timedelta

from bot.errors import Trouble

USAGE = 2  # exit status: the command was typed wrong
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGE = re.compile(r"(\d{1,9})([smhd])")


def moment_ms(text: str, now: datetime) -> int:
    """Milliseconds since 1970 of an age (``2h`` ago) or an RFC 3339 time. Raises ``Trouble``."""
    if age := _AGE.fullmatch(text):
        moment = now - timedelta(seconds=int(age[1]) * _UNITS[age[2]])
        return round(moment.timestamp() * 1000)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    if given is None or given.tzinfo is None:
        raise Trouble(
            f"{text!r} is no time.",
            todo="Write an age such as 2h, or a time with its zone: 2026-11-24T06:00:00Z.",
            status=USAGE,
        )
    return round(given.timestamp() * 1000)
