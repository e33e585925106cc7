"""Quotas: how many answers an author, a thread, a target and everybody together get, and how many
corrections a reply and whoever edits.

In: an input that nothing else stops, and the limits in force. Out: ``Taken``: a share of every
quota that it counts for, or the name of the first that is used up. Guaranteed: an input takes its
shares once, however often it is tried, also by another worker where the storage is shared; one
that is refused takes none (but for a race of two workers over the last share of the second
quota, which may cost a share of the first). A storage that is away is a value of the settings,
never a crash. Which shares an input takes is pure (``shares_of``).

Counted are the ids' digests, in sliding windows of the ``limits`` library.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import structlog
from limits import RateLimitItem
from limits.errors import StorageError
from limits.storage import storage_from_string

from bot.limits_file import LimitsInForce
from bot.quota_memory import BoundedMemory
from bot.rates import LiveLimits, rates_of
from bot.settings import LimitsSettings
from schemas.feed import Account

log = structlog.get_logger(__name__)

AGAIN_AFTER_S = 5.0  # so long a storage that was away is left alone
MARK_S = 3600  # so long an input that took its shares is known
AWAY = (StorageError, OSError, TimeoutError)

Told = tuple[str, str, str | None]
"""The name of a quota, its rates, and whose it is; none: it does not count."""


class QuotasUnavailable(Exception):
    """The storage is away, and the settings say to wait for it: try the input again later."""


class Counts(Protocol):
    """What quotas need of a storage of the library."""

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int: ...

    async def clear(self, key: str) -> None: ...

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]: ...

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An input that wants an answer. ``target``: the account under whose post it stands, or
    that post's URI where its author is not known; none where it stands under nobody else's."""

    decision_id: str
    author: Account
    thread: str
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A reply that is to be made anew: the URI that it answers, whose edit asks for it (an
    account, or the post where that is unknown), and since when it waits."""

    decision_id: str
    reply: str
    author: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Share:
    """One share of one quota: ``key`` is what it is counted under."""

    quota: str
    key: str
    rates: tuple[RateLimitItem, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether an input may be answered. ``used_up`` names the quota that says no and its rate, of
    which ``window_s`` is the time; ``again``: it had its shares before; ``local``: counted here,
    the shared storage is away."""

    used_up: str | None = None
    again: bool = False
    local: bool = False
    window_s: int = field(default=0, compare=False)


class Quotas(Protocol):
    """What the policy asks. ``limits`` are those in force for this input."""

    async def limits(self) -> LiveLimits: ...

    async def take(self, claim: Claim | Correction, limits: LiveLimits, now: datetime) -> Taken:
        """The shares of an input. Raises ``QuotasUnavailable``."""
        ...


def shares_of(claim: Claim | Correction, limits: LiveLimits, now: datetime) -> tuple[Share, ...]:
    """What an input counts for, the narrowest first; none where nothing is counted."""
    if not limits.enabled:
        return ()
    told = (
        _told_of_correction(claim, limits)
        if isinstance(claim, Correction)
        else _told_of_claim(claim, limits, now)
    )
    return tuple(
        Share(quota, f"{quota}/{_digest(name)}", rates_of(rates))
        for quota, rates, name in told
        if name is not None and rates_of(rates)
    )


def _told_of_claim(claim: Claim, limits: LiveLimits, now: datetime) -> tuple[Told, ...]:
    young = is_new(claim.author, limits.new_account_days, now)
    author = ("new-author", limits.per_new_author) if young else ("author", limits.per_author)
    return (
        (*author, claim.author.id),
        ("target", limits.per_target, claim.target),
        ("thread", limits.per_thread, claim.thread),
        ("overall", limits.overall, ""),
    )


def _told_of_correction(correction: Correction, limits: LiveLimits) -> tuple[Told, ...]:
    return (
        ("corrections-of-reply", limits.corrections_per_reply, correction.reply),
        ("corrections-by-author", limits.corrections_per_author, correction.author),
    )


def is_new(author: Account, days: float, now: datetime) -> bool:
    """Whether an account is younger than that many days; one of unknown age is not."""
    return author.created_at is not None and now - author.created_at < timedelta(days=days)


class NoQuotas:
    """Nothing is counted: for tests, and for answers that take nobody's share."""

    def __init__(self) -> None:
        self._limits = LiveLimits(enabled=False)

    async def limits(self) -> LiveLimits:
        return self._limits

    async def take(self, claim: Claim | Correction, limits: LiveLimits, now: datetime) -> Taken:
        return Taken()


class CountedQuotas:
    """Quotas of one worker, counted in ``storage``; ``local`` counts while that is away.

    ``timeout_s``: after so long a storage that does not answer counts as away. ``counter`` is
    seconds that only go up.
    """

    def __init__(
        self,
        in_force: LimitsInForce,
        local: BoundedMemory,
        storage: Any = None,
        *,
        timeout_s: float = 0.5,
        away: Literal["memory", "retry"] = "memory",
        counter: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_force = in_force
        self._local = local
        self._storage = storage
        self._timeout_s = timeout_s
        self._away = away
        self._counter = counter
        self._away_until: float | None = None

    async def limits(self) -> LiveLimits:
        return await self._in_force.now()

    async def take(self, claim: Claim | Correction, limits: LiveLimits, now: datetime) -> Taken:
        """The shares of an input. Raises ``QuotasUnavailable``."""
        shares = shares_of(claim, limits, now)
        if not shares:
            return Taken()
        if self._storage is None:
            return await _take(self._local, claim.decision_id, shares)
        return await self._take_shared(claim.decision_id, shares)

    @property
    def shared(self) -> bool:
        """Whether workers count together."""
        return self._storage is not None

    async def is_there(self) -> bool:
        """Whether the storage answers; memory always does."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return self._storage is None or bool(await self._storage.check())
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Let the storage's connections go."""
        if self._storage is not None:
            await self._storage.bridge.get_connection().aclose()

    async def _take_shared(self, decision: str, shares: Sequence[Share]) -> Taken:
        if self._away_until is None or self._counter() >= self._away_until:
            try:
                async with asyncio.timeout(self._timeout_s):
                    taken = await _take(self._storage, decision, shares)
            except AWAY as error:
                self._went_away(error)
            else:
                self._is_there()
                return taken
        if self._away == "retry":
            raise QuotasUnavailable("the storage of the quotas is away")
        taken = await _take(self._local, decision, shares)
        return replace(taken, local=True)

    def _went_away(self, error: BaseException) -> None:
        if self._away_until is None:
            what = "counting in memory" if self._away == "memory" else "inputs wait"
            cause = type(error.__cause__ or error).__name__  # its text may hold the password
            log.error("storage of quotas is away", error=cause, so=what)
        self._away_until = self._counter() + AGAIN_AFTER_S

    def _is_there(self) -> None:
        if self._away_until is not None:
            self._away_until = None
            log.info("storage of quotas is there again")


async def _take(storage: Counts, decision: str, shares: Sequence[Share]) -> Taken:
    """The mark comes first: whatever happens after it, nothing is counted twice."""
    mark = f"taken/{decision}"
    if await storage.incr(mark, MARK_S) > 1:
        return Taken(again=True)
    refused = await _first_used_up(storage, shares) or await _count(storage, shares)
    if refused is None:
        return Taken()
    await storage.clear(mark)
    return refused


async def _first_used_up(storage: Counts, shares: Sequence[Share]) -> Taken | None:
    """The first quota that has no share left; nothing is counted."""
    for share in shares:
        for rate in share.rates:
            length = rate.get_expiry()
            key = _key(share, length)
            previous, left, current, _ = await storage.get_sliding_window(key, length)
            if int(previous * left / length) + current + 1 > rate.amount:
                return _used_up(share, rate)
    return None


async def _count(storage: Counts, shares: Sequence[Share]) -> Taken | None:
    """A share of each; the first that was used up meanwhile, by another worker."""
    for share in shares:
        for rate in share.rates:
            length = rate.get_expiry()
            key = _key(share, length)
            if not await storage.acquire_sliding_window_entry(key, rate.amount, length):
                return _used_up(share, rate)
    return None


def _key(share: Share, length: int) -> str:
    """Without the amount, so that a limit that changes keeps what was counted."""
    return f"{share.key}/{length}"


def _used_up(share: Share, rate: RateLimitItem) -> Taken:
    return Taken(f"{share.quota}, {rate}", window_s=rate.get_expiry())


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]


def quotas_of(settings: LimitsSettings, namespace: str) -> CountedQuotas:
    """The quotas of a worker. ``namespace`` keeps bots and groups apart that share a storage.

    Raises ``limits.errors.ConfigurationError`` for an address that can't be one; nothing
    connects before the first input.
    """
    return CountedQuotas(
        LimitsInForce(settings, settings.file),
        BoundedMemory(settings.memory_keys),
        _storage(settings, namespace),
        timeout_s=settings.storage_timeout_ms / 1000,
        away=settings.storage_away,
    )


def _storage(settings: LimitsSettings, namespace: str) -> Any:
    """None where each worker counts on its own."""
    uri = settings.storage_uri.get_secret_value() if settings.storage_uri else "memory://"
    if uri == "memory://":
        return None
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    seconds = settings.storage_timeout_ms / 1000
    options: dict[str, Any] = {
        "implementation": "redispy",
        "wrap_exceptions": True,
        "key_prefix": f"twite:{_digest(namespace)}",
        "retry": Retry(NoBackoff(), 1),  # a stale connection; its own would wait for seconds
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
    }
    return storage_from_string(f"async+{uri}", **options)
