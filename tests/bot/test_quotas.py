"""``bot.quotas``: one contract in memory and in a real Redis; and a Redis that goes away."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from bot.limits_file import LimitsInForce
from bot.quota_memory import BoundedMemory
from bot.quotas import (
    AGAIN_AFTER_S,
    Claim,
    CountedQuotas,
    QuotasUnavailable,
    Taken,
    is_new,
    quotas_of,
    shares_of,
)
from bot.rates import LiveLimits
from bot.settings import LimitsSettings
from schemas.feed import Account
from tests.bot.make import ALICE, BOB, NOW
from tests.bot.redis_server import RedisServer

CAROL = Account(id="acc-carol", handle="carol")
NOTHING: dict[str, Any] = dict.fromkeys(
    ("per_author", "per_new_author", "per_thread", "per_target", "overall"), ""
)


def limits(**rates: Any) -> LiveLimits:
    """Only these limits."""
    return LiveLimits(**{**NOTHING, **rates})


def claim(number: int, author: Account = ALICE, thread: str = "t", **fields: Any) -> Claim:
    return Claim(decision_id=f"d-{number}", author=author, thread=thread, **fields)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    one = RedisServer()
    one.start()
    yield one
    one.close()


MakeQuotas = Callable[..., CountedQuotas]


@pytest.fixture(params=["memory", "redis"])
async def make_quotas(
    request: pytest.FixtureRequest, unique: Callable[[str], str]
) -> AsyncIterator[MakeQuotas]:
    """Makes quotas of workers of one fleet; with a Redis they share what they count."""
    uri = request.getfixturevalue("server").uri if request.param == "redis" else None
    namespace, made = unique("fleet"), []

    def make(**settings: Any) -> CountedQuotas:
        told = LimitsSettings(**{"storage_uri": uri, "storage_timeout_ms": 10_000, **settings})
        made.append(quotas_of(told, namespace))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def quotas(make_quotas: MakeQuotas) -> CountedQuotas:
    return make_quotas()


async def take(quotas: CountedQuotas, one: Claim, in_force: LiveLimits) -> str | None:
    taken = await quotas.take(one, in_force, NOW)
    assert not taken.local
    return taken.used_up


async def test_an_author_has_so_many_answers(quotas: CountedQuotas) -> None:
    two = limits(per_author="2 per hour")
    assert [await take(quotas, claim(n), two) for n in range(3)] == [
        None,
        None,
        "author, 2 per 1 hour",
    ]
    assert await take(quotas, claim(4, thread="elsewhere"), two) == "author, 2 per 1 hour"
    assert await take(quotas, claim(5, BOB), two) is None


async def test_a_thread_has_so_many_whoever_asks(quotas: CountedQuotas) -> None:
    two = limits(per_thread="2 per hour")
    for n, author in enumerate((ALICE, BOB)):
        assert await take(quotas, claim(n, author), two) is None
    assert await take(quotas, claim(3, CAROL), two) == "thread, 2 per 1 hour"
    assert await take(quotas, claim(4, CAROL, thread="other"), two) is None


async def test_everybody_together_has_so_many(quotas: CountedQuotas) -> None:
    two = limits(overall="2 per hour")
    for n, author in enumerate((ALICE, BOB)):
        assert await take(quotas, claim(n, author, thread=f"t{n}"), two) is None
    assert await take(quotas, claim(3, CAROL, thread="t3"), two) == "overall, 2 per 1 hour"


async def test_a_pile_on_stops(quotas: CountedQuotas) -> None:
    """Strangers in any number of threads under one person's posts; others go on."""
    three = limits(per_target="3 per 10 minutes")
    for n in range(6):
        stranger = Account(id=f"acc-{n}", handle=f"stranger{n}")
        used_up = await take(
            quotas, claim(n, stranger, thread=f"t{n}", target="account/acc-bob"), three
        )
        assert used_up == (None if n < 3 else "target, 3 per 10 minute")
    assert await take(quotas, claim(7, target="account/acc-carol"), three) is None
    assert await take(quotas, claim(8), three) is None


async def test_a_new_account_has_fewer(quotas: CountedQuotas) -> None:
    young = Account(id="acc-young", handle="young", created_at=NOW - timedelta(days=2))
    told = limits(per_author="3 per hour", per_new_author="1 per hour", new_account_days=7)
    assert await take(quotas, claim(1, young), told) is None
    assert await take(quotas, claim(2, young), told) == "new-author, 1 per 1 hour"
    grown = young.model_copy(update={"created_at": NOW - timedelta(days=8)})
    assert [await take(quotas, claim(n, grown), told) for n in (3, 4, 5)] == [None] * 3


@pytest.mark.parametrize(
    ("age", "days", "new"), [(None, 7, False), (6.9, 7, True), (7, 7, False), (0, 0, False)]
)
def test_how_new_is_new(age: float | None, days: float, new: bool) -> None:
    created = None if age is None else NOW - timedelta(days=age)
    assert is_new(Account(id="a", handle="a", created_at=created), days, NOW) is new


async def test_an_input_takes_its_shares_once_however_often_it_is_tried(
    quotas: CountedQuotas,
) -> None:
    two = limits(per_author="2 per hour")
    assert await quotas.take(claim(1), two, NOW) == Taken()
    for _ in range(5):
        assert await quotas.take(claim(1), two, NOW) == Taken(again=True)
    assert await quotas.take(claim(2), two, NOW) == Taken()
    assert await quotas.take(claim(3), two, NOW) == Taken("author, 2 per 1 hour")
    # Used up or not: what had its share may be answered when it is tried again.
    assert await quotas.take(claim(1), two, NOW) == Taken(again=True)
    assert await quotas.take(claim(3), two, NOW) == Taken("author, 2 per 1 hour")


async def test_whoever_is_refused_takes_nothing(quotas: CountedQuotas) -> None:
    told = limits(per_author="2 per hour", per_thread="1 per hour")
    assert await take(quotas, claim(0, BOB), told) is None
    for n in range(1, 5):
        assert await take(quotas, claim(n), told) == "thread, 1 per 1 hour"
    assert await take(quotas, claim(5, thread="t1"), told) is None
    assert await take(quotas, claim(6, thread="t2"), told) is None
    assert await take(quotas, claim(7, thread="t3"), told) == "author, 2 per 1 hour"


async def test_all_rates_of_a_limit_hold(quotas: CountedQuotas) -> None:
    told = limits(per_author="5 per minute; 3 per hour")
    used_up = [await take(quotas, claim(n), told) for n in range(4)]
    assert used_up == [None, None, None, "author, 3 per 1 hour"]


async def test_zero_is_nobody_and_an_empty_text_everybody(quotas: CountedQuotas) -> None:
    assert await take(quotas, claim(1), limits(per_author="0 per day")) == "author, 0 per 1 day"
    for n in range(50):
        assert await take(quotas, claim(n + 2), limits()) is None


async def test_off_is_off(quotas: CountedQuotas) -> None:
    off = limits(enabled=False, per_author="1 per day", overall="0 per day")
    assert [await take(quotas, claim(n), off) for n in range(9)] == [None] * 9
    assert await take(quotas, claim(10), limits(per_author="1 per day")) is None


async def test_a_limit_that_changes_keeps_what_was_counted(quotas: CountedQuotas) -> None:
    for n in range(3):
        assert await take(quotas, claim(n), limits(per_author="9 per hour")) is None
    assert await take(quotas, claim(3), limits(per_author="3 per hour")) == "author, 3 per 1 hour"
    assert await take(quotas, claim(4), limits(per_author="4 per hour")) is None
    assert await take(quotas, claim(5), limits(per_author="4 per hour")) == "author, 4 per 1 hour"


async def test_of_many_at_once_no_more_than_allowed_get_through(quotas: CountedQuotas) -> None:
    ten = limits(per_author="10 per hour", per_thread="100 per hour")
    answers = await asyncio.gather(*(quotas.take(claim(n), ten, NOW) for n in range(60)))
    assert sum(not taken.used_up for taken in answers) == 10


async def test_a_window_passes(make_quotas: MakeQuotas) -> None:
    quotas, one = make_quotas(), limits(per_author="1 per second")
    assert await take(quotas, claim(0), one) is None
    for n in range(1, 10_000):
        if await take(quotas, claim(n), one) is None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("never again")


@pytest.mark.parametrize("make_quotas", ["redis"], indirect=True)
async def test_a_fleet_shares_what_it_counts(make_quotas: MakeQuotas) -> None:
    here, there = make_quotas(), make_quotas()
    two = limits(per_author="2 per hour")
    assert await take(here, claim(1), two) is None
    assert await there.take(claim(1), two, NOW) == Taken(again=True), "replayed by another worker"
    assert await take(there, claim(2), two) is None
    assert await take(here, claim(3), two) == "author, 2 per 1 hour"
    many = await asyncio.gather(
        *(one.take(claim(n, BOB), two, NOW) for n in range(10, 40) for one in (here, there))
    )
    assert sum(not taken.used_up and not taken.again for taken in many) == 2


async def test_bots_and_groups_that_share_a_redis_are_kept_apart(server: RedisServer) -> None:
    settings = LimitsSettings(storage_uri=server.uri, storage_timeout_ms=10_000)
    one = limits(per_author="1 per hour")
    for namespace in ("bot-a", "bot-b"):
        quotas = quotas_of(settings, namespace)
        assert await take(quotas, claim(1), one) is None
        await quotas.close()


async def test_a_redis_holds_no_ids_and_nothing_for_ever(server: RedisServer) -> None:
    settings = LimitsSettings(storage_uri=server.uri, storage_timeout_ms=10_000)
    quotas = quotas_of(settings, "bot-canary")
    author = Account(id="canary-account", handle="canary-handle")
    one = claim(1, author, thread="canary-thread", target="account/canary-target")
    with redis.Redis(port=server.port) as client:
        client.flushall()  # what other tests left may end while it is looked at
        assert await take(quotas, one, LiveLimits()) is None
        await quotas.close()
        keys = [key for key in client.keys("*") if isinstance(key, bytes)]
        assert len(keys) >= 5
        assert not [key for key in keys if b"canary" in key]
        left_s = {key: client.ttl(key) for key in keys}
        assert not {key: left for key, left in left_s.items() if not 0 < left <= 2 * 86_400}


# A Redis that goes away.


class Clock:
    """Seconds that go up when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def shared(uri: str, clock: Clock, **settings: Any) -> CountedQuotas:
    """As ``quotas_of`` makes them, with a clock of the test."""
    made = quotas_of(LimitsSettings(storage_uri=uri, **settings), "away")
    made._counter = clock
    return made


async def test_a_redis_that_dies_and_comes_back() -> None:
    redis_server, clock = RedisServer(), Clock()
    redis_server.start()
    quotas, two = shared(redis_server.uri, clock), limits(per_author="2 per hour")
    try:
        with capture_logs() as logs:
            assert await quotas.take(claim(1), two, NOW) == Taken()
            redis_server.kill()
            # Its count is gone with it: this worker counts for itself, and still says no.
            answers = [await quotas.take(claim(n), two, NOW) for n in (2, 3, 4)]
            assert answers == [
                Taken(local=True),
                Taken(local=True),
                Taken("author, 2 per 1 hour", local=True),
            ]
            redis_server.start()
            assert (await quotas.take(claim(5), two, NOW)).local, "it is left alone for a while"
            clock.seconds += AGAIN_AFTER_S
            assert await quotas.take(claim(6), two, NOW) == Taken()
        told = [(entry["log_level"], entry["event"]) for entry in logs]
        assert told == [
            ("error", "storage of quotas is away"),
            ("info", "storage of quotas is there again"),
        ]
    finally:
        await quotas.close()
        redis_server.close()


async def test_a_redis_that_was_never_there_keeps_its_password() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"redis://user:canary-secret@127.0.0.1:{nobody.getsockname()[1]}/0"
        quotas = shared(uri, Clock())
        with capture_logs() as logs:
            taken = await quotas.take(claim(1), limits(per_author="1 per hour"), NOW)
        assert taken == Taken(local=True)
        assert len(logs) == 1
        assert "canary-secret" not in str(logs)
        await quotas.close()


async def test_a_redis_that_does_not_answer_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        quotas = shared(uri, Clock(), storage_timeout_ms=50)
        taken = await quotas.take(claim(1), limits(per_author="1 per hour"), NOW)
        assert taken == Taken(local=True)
        await quotas.close()


async def test_where_the_settings_say_so_inputs_wait_for_the_storage() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        quotas = shared(uri, Clock(), storage_away="retry")
        for n in range(2):
            with pytest.raises(QuotasUnavailable):
                await quotas.take(claim(n), limits(per_author="1 per hour"), NOW)
        assert await quotas.take(claim(3), limits(), NOW) == Taken(), "nothing to count"
        await quotas.close()


class Crashing(BoundedMemory):
    """Dies after so many calls."""

    def __init__(self, calls: int) -> None:
        super().__init__(100)
        self.calls = calls

    def _call(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        self._call()
        return await super().incr(key, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        self._call()
        return await super().get_sliding_window(key, expiry)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        self._call()
        return await super().acquire_sliding_window_entry(key, limit, expiry, amount)


@pytest.mark.parametrize("calls", range(6))
async def test_a_crash_anywhere_never_makes_an_input_count_twice(calls: int) -> None:
    storage = Crashing(calls)
    quotas = CountedQuotas(LimitsInForce(LiveLimits()), storage)
    told = limits(per_author="3 per hour", per_thread="3 per hour")
    crashed = False
    try:
        await quotas.take(claim(1), told, NOW)
    except KeyboardInterrupt:
        crashed = True
    assert crashed is (calls < 5)
    storage.calls = 1000
    assert not (await quotas.take(claim(1), told, NOW)).used_up
    more = [await quotas.take(claim(n), told, NOW) for n in range(2, 9)]
    assert sum(not taken.used_up for taken in more) in (2, 3)


def test_which_shares_an_input_takes() -> None:
    one = claim(1, target="account/acc-bob")
    shares = shares_of(one, LiveLimits(), NOW)
    assert [share.quota for share in shares] == ["author", "target", "thread", "overall"]
    assert [share.quota for share in shares_of(claim(1), LiveLimits(), NOW)] == [
        "author",
        "thread",
        "overall",
    ]
    assert shares_of(one, LiveLimits(enabled=False), NOW) == ()
    other = shares_of(replace(one, author=BOB, thread="u"), LiveLimits(), NOW)
    same = [mine.key == theirs.key for mine, theirs in zip(shares, other, strict=True)]
    assert same == [False, True, False, True]
