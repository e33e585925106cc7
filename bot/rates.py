"""How much is allowed: the limits that can be changed while a worker runs.

In: what ``twite.toml``, ``TWITE_LIMITS__*`` and the limits file say. Out: ``LiveLimits``, frozen
and checked. Rates are written as the ``limits`` library reads them: ``30 per minute; 300 per
hour``; nothing at all is no limit, ``0 per day`` allows nothing. Next: ``bot/quotas.py`` counts
by them.
"""

import functools
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:  # it takes a moment, and every command reads the settings
    from limits import RateLimitItem

MAX_WINDOW_S = 366 * 86_400
MAX_AMOUNT = 10**9
MAX_RATES = 8  # in one setting
_TIMES = "must have times of 1 second to 366 days"
_NO_TIME = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)  # taken as 1


class LiveLimits(BaseModel):
    """What the limits file may change without a restart."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    enabled: bool = True
    """Whether anything is counted. Off: no quota stops an answer; all other rules hold."""
    per_author: str = "30 per minute; 300 per hour"
    """Most answers to one account. Rates in one setting are separated by semicolons and all
    hold; an empty text is no limit."""
    per_new_author: str = "10 per minute; 60 per hour"
    """Most answers to one account that is younger than ``new_account_days``, in place of
    ``per_author``."""
    new_account_days: float = Field(default=7.0, ge=0, le=36_500)
    """Days for which an account counts as new. An account of unknown age is not new."""
    per_thread: str = "120 per minute; 1200 per hour"
    """Most answers in one conversation, whoever asks."""
    per_target: str = "20 per 10 minutes; 200 per day"
    """Most answers to others under the posts of one person, who did not ask for them: what
    stops a pile-on. The person's own questions don't count."""
    overall: str = "1000000 per hour"
    """Most answers of all workers together (of each worker, where quotas are in memory)."""
    corrections_per_reply: str = "6 per minute; 30 per 10 minutes"
    """Most corrections of one reply because posts that it was built on were edited. What is beyond
    waits, and of the edits that wait for one post the last one counts; what has to be taken
    back, or was deleted, never waits."""
    corrections_per_author: str = "60 per minute"
    """Most corrections, of all replies together, because of the edits of one account."""
    correction_wait_minutes: float = Field(default=15.0, ge=0, le=1440)
    """Minutes that a correction waits for its limits; the reply then stays as it is."""
    max_age_hours: float = Field(default=24.0, gt=0, le=87_600)
    """Hours after Kafka took an input in for which it still gets an answer."""

    @field_validator("new_account_days", "max_age_hours", "correction_wait_minutes", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        """To Python, and so to pydantic, ``true`` is 1."""
        if isinstance(value, bool):
            raise ValueError("must be a number")
        return value

    @field_validator(
        "per_author",
        "per_new_author",
        "per_thread",
        "per_target",
        "overall",
        "corrections_per_reply",
        "corrections_per_author",
    )
    @classmethod
    def _is_a_rate(cls, value: str) -> str:
        rates_of(value)
        return value


@functools.lru_cache(maxsize=256)
def rates_of(text: str) -> "tuple[RateLimitItem, ...]":
    """The rates of one setting, the shortest window first. Raises ``ValueError``."""
    from limits import parse_many

    if not text.strip():
        return ()
    try:
        rates = parse_many(text)
    except ValueError:
        raise ValueError(
            "must be a number per a time, like 30 per minute; more of them after semicolons"
        ) from None
    if len(rates) > MAX_RATES:
        raise ValueError(f"must not hold more than {MAX_RATES} rates")
    if _NO_TIME.search(text):
        raise ValueError(_TIMES)
    for rate in rates:
        if rate.amount > MAX_AMOUNT:
            raise ValueError("must not allow more than 1000000000 in one of its times")
        if not 1 <= rate.get_expiry() <= MAX_WINDOW_S:
            raise ValueError(_TIMES)
    return tuple(sorted(rates, key=lambda rate: (rate.get_expiry(), rate.amount)))
