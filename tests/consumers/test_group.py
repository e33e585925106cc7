"""A worker's place in its group: whether it still has it, and whether a twin wants it too."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError

from consumers.config import WorkerConfig
from consumers.group import Group, Membership


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(*places: tuple[float, str]) -> list[float]:
    """When it is told, of assignments (seconds, member id)."""
    membership = Membership(clock := Clock())
    found = []
    for clock.now, member_id in places:
        if membership.has_twin(member_id):
            found.append(clock.now)
    return found


def test_a_member_that_keeps_its_place_has_no_twin() -> None:
    assert told(*((float(second), "a") for second in range(50))) == []


def test_losing_the_place_again_and_again_is_told_now_and_then() -> None:
    assert told(*((2.0 * n, f"member {n}") for n in range(8))) == [6.0, 12.0]


def test_a_place_lost_once_in_a_long_while_is_no_twin() -> None:
    assert told(*((200.0 * n, f"member {n}") for n in range(8))) == []


class Coordinator:
    """What ``is_member`` looks at; ``beat`` is what the broker makes of a heartbeat."""

    def __init__(self, beat: Callable[["Coordinator"], bool]) -> None:
        self.member_id = "me-1"
        self._beat = beat

    async def _do_heartbeat(self) -> bool:
        return self._beat(self)


def lose_place(coordinator: Coordinator) -> bool:
    coordinator.member_id = ""  # as aiokafka does for UNKNOWN_MEMBER_ID and ILLEGAL_GENERATION
    return False


def group_with(coordinator: Coordinator) -> Group:
    consumer = cast("Any", SimpleNamespace(_coordinator=coordinator))
    config = WorkerConfig(bootstrap_servers="none:1", group_id="g", topics=("in",))
    return Group(config, consumer, cast("Any", None), {"in": 1})


async def test_a_heartbeat_says_whether_the_group_counts_us_in() -> None:
    assert await group_with(Coordinator(lambda c: True)).is_member()
    assert not await group_with(Coordinator(lose_place)).is_member()


async def test_one_that_joins_anew_has_lost_its_place() -> None:
    coordinator = Coordinator(lambda c: True)
    coordinator.member_id = ""
    assert not await group_with(coordinator).is_member()


async def test_a_broker_that_is_away_says_nothing() -> None:
    with pytest.raises(KafkaError, match="can't be asked"):
        await group_with(Coordinator(lambda c: False)).is_member()


def test_the_client_library_has_what_we_ask_it() -> None:
    source = inspect.getsource(GroupCoordinator._do_heartbeat)
    assert "self.reset_generation()" in source
    assert "UNKNOWN_MEMBER_ID" in inspect.getsource(GroupCoordinator.reset_generation)
