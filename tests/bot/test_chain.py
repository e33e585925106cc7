"""Following a change to its end: nothing is overlooked, whatever is shown late."""

import time
from dataclasses import replace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from bot.ask import to_output
from bot.chain import Chain, Following, origin_of
from bot.events import Person, deletion_of, post
from bot.observe import OutcomeReader, Position
from schemas import names
from schemas.codec import encode
from schemas.codes import Outcome as Kind
from schemas.envelope import Envelope
from schemas.record import Output, Record
from tests.bot.outcomes import NOW, as_record, decision

EVENT = deletion_of(post(Person("acct-a", "a"), "hi", conversation_id="c"))
CHANGE = Position(names.FEED_POSTS, 0, 4)
REVIEW = Position(names.BOT_REVIEWS, 0, 0)


class Broker:
    """Logs of one partition each; every read shows one record more, and a little later than a
    broker tells of it. The consumer, admin and reader of a chain in one."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Record]] = {}
        self.read_up_to: dict[str, int] = {}
        self.committed: dict[str, int] = {}
        self.steps: list[Any] = []  # what happens at each turn
        self.starts = {
            TopicPartition(topic, 0): 0 for topic in (names.BOT_REFERENCES, names.BOT_REVIEWS)
        }

    def write(self, topic: str, correlation: str = EVENT.envelope.id) -> None:
        headers = (("ce_id", b"own"), ("ce_correlationid", correlation.encode()))
        self.append(Output(topic=topic, key=b"k", value=b"{}", headers=headers))

    def append(self, output: Output) -> None:
        log = self.logs.setdefault(output.topic, [])
        log.append(replace(as_record(output), offset=len(log)))

    def decide(self, review: Position) -> None:
        data = decision(Kind.SKIPPED, reason="kept", origin=review)
        envelope = Envelope(id="d", source="/t", type=names.DECISION_RECORDED, time=NOW)
        self.append(encode(names.BOT_AUDIT, "c", envelope, data))

    async def read(self) -> list[Record]:
        if self.steps:
            self.steps.pop(0)()
        for topic, log in self.logs.items():
            at = self.read_up_to.get(topic, 0)
            if at < len(log):
                self.read_up_to[topic] = at + 1
                return [log[at]]
        return []

    async def has_read(self, ends: dict[TopicPartition, int]) -> bool:
        return all(self.read_up_to.get(p.topic, 0) >= end for p, end in ends.items())

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self.logs.get(place.topic, [])) for place in places}

    async def list_consumer_group_offsets(
        self, group: str, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, Any]:
        assert group == "workers"
        found = {p: self.committed.get(p.topic, -1) for p in partitions}
        return {place: type("At", (), {"offset": offset}) for place, offset in found.items()}

    def chain(self) -> Chain:
        return Chain("workers", cast("OutcomeReader", self), cast("Any", self), cast("Any", self))

    def following(self, seconds: float = 60.0) -> Following:
        return Following(self.chain(), EVENT.envelope.id, time.monotonic() + seconds)

    def worked_on(self, topic: str, offset: int, *writes: str) -> Any:
        """A transaction of the worker: what it writes is there before its commit."""

        def step() -> None:
            for written in writes:
                self.write(written)
            self.committed[topic] = offset

        return step


async def test_a_change_is_followed_through_all_topics() -> None:
    broker = Broker()
    broker.steps = [
        lambda: None,
        broker.worked_on(names.FEED_POSTS, 5, names.BOT_REFERENCES),
        lambda: None,
        broker.worked_on(names.BOT_REFERENCES, 1, names.BOT_REVIEWS),
        lambda: None,
        lambda: broker.decide(REVIEW),
    ]
    outcomes = await broker.following().outcomes_of(CHANGE)
    assert outcomes is not None
    assert [(one.input, one.decision.reason) for one in outcomes] == [(REVIEW, "kept")]


async def test_of_a_change_that_concerns_nothing_comes_nothing() -> None:
    broker = Broker()
    broker.steps = [
        broker.worked_on(names.FEED_POSTS, 5, names.BOT_REFERENCES),
        broker.worked_on(names.BOT_REFERENCES, 1),
    ]
    assert await broker.following().outcomes_of(CHANGE) == []
    assert broker.steps == []


async def test_a_commit_that_is_told_before_its_records_overlooks_none() -> None:
    broker = Broker()
    for topic, offset in ((names.FEED_POSTS, 5), (names.BOT_REFERENCES, 1)):
        broker.committed[topic] = offset
    broker.write(names.BOT_REFERENCES)
    broker.write(names.BOT_REVIEWS)
    broker.decide(REVIEW)
    outcomes = await broker.following().outcomes_of(CHANGE)
    assert outcomes is not None
    assert [one.input for one in outcomes] == [REVIEW]


async def test_reviews_of_other_changes_are_others() -> None:
    broker = Broker()
    broker.committed = {names.FEED_POSTS: 5, names.BOT_REFERENCES: 1}
    broker.write(names.BOT_REFERENCES, "another")
    broker.write(names.BOT_REVIEWS, "another")
    following = broker.following()
    assert await following.outcomes_of(CHANGE) == []
    assert following.chain.reviews == {REVIEW: "another"}


async def test_an_account_is_told_to_views_only() -> None:
    at = Position(names.FEED_ACCOUNTS, 0, 0)
    assert await Broker().following().outcomes_of(at) == []


async def test_there_is_an_end_to_patience() -> None:
    assert await Broker().following(seconds=0).outcomes_of(CHANGE) is None


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ((("ce_id", b"1"), ("ce_correlationid", b"0")), "0"),
        ((("ce_id", b"1"),), "1"),
        ((("ce_id", b"1"), ("ce_correlationid", None)), "1"),
        ((), ""),
    ],
)
def test_what_a_record_came_of(headers: tuple[tuple[str, bytes | None], ...], origin: str) -> None:
    assert origin_of(Output(topic="t", key=None, value=b"", headers=headers)) == origin
    assert origin_of(to_output(EVENT)) == EVENT.envelope.id
