"""One server: what it is, how it fares, how much it gets; and the choice among several.

A request goes to the server that has the longest run of its prompt warm, unless that one is clearly
busier than the idlest; else to the idlest. So talks stay where their earlier turns are, and a
popular server does not become a hot one.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence

import structlog

from model.openai.affinity import SeenPrefixes
from model.openai.breaker import Breaker, State
from model.openai.client import Client
from model.openai.errors import ServerBusy, ServerError
from model.openai.pace import Pace
from model.openai.probe import Server

log = structlog.get_logger(__name__)

BUSIER = 2  # requests more than the idlest, or a quarter of its pace: clearly busier


class Endpoint:
    """A server by its client. ``server`` is None until it has answered for the first time.
    ``most``: requests at once, where it does not tell itself."""

    def __init__(
        self, client: Client, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.client, self._most, self._clock = client, most, clock
        self.server: Server | None = None
        self.breaker = Breaker(clock)
        self.pace = Pace(most, clock)
        self.seen = SeenPrefixes()
        self.outstanding = 0

    @property
    def where(self) -> str:
        return self.client.where

    @property
    def limit(self) -> int:
        """Most requests at once, now; 0 while it is left alone."""
        if self.server is None or self.breaker.state is State.OPEN:
            return 0
        one = self.breaker.state is State.HALF_OPEN
        return min(1, self.pace.limit) if one else self.pace.limit

    @property
    def has_room(self) -> bool:
        return self.outstanding < self.limit and self.breaker.allows(self.outstanding)

    def is_known(self, server: Server) -> None:
        """It has answered, and this is what it is."""
        self.server = server
        self.pace = Pace(min(self._most, server.slots or self._most), self._clock)
        self.breaker.succeeded()

    def succeeded(self) -> None:
        """It answered a request whole."""
        if self.breaker.state is not State.CLOSED:
            log.info("model server is back", server=self.where)
        self.breaker.succeeded()
        self.pace.went_well()

    def failed(self, error: ServerError) -> None:
        """It did not; what that means for the next requests."""
        if isinstance(error, ServerBusy):
            self.pace.too_much(self.outstanding, error.retry_after)
        elif self.breaker.failed(str(error), at_once=error.at_once):
            self.seen.forget()
            log.warning("model server is left alone", server=self.where, code=error.code)


def choose(
    endpoints: Iterable[Endpoint], keys: Sequence[int], tried: Collection[Endpoint] = ()
) -> Endpoint | None:
    """Where a prompt of these block keys should go; None where nobody has room.

    ``tried``: they failed this request already, so others come first.
    """
    able = [one for one in endpoints if one.has_room]
    fresh = [one for one in able if one not in tried] or able
    if not fresh:
        return None
    idlest = min(fresh, key=_load)
    warmest = max(fresh, key=lambda one: (one.seen.warm(keys), -one.outstanding))
    slack = max(BUSIER, warmest.limit // 4)
    is_warmer = warmest.seen.warm(keys) > idlest.seen.warm(keys)
    if is_warmer and warmest.outstanding <= idlest.outstanding + slack:
        return warmest
    return idlest


def _load(endpoint: Endpoint) -> tuple[float, int]:
    return endpoint.outstanding / endpoint.limit, endpoint.outstanding
