"""The handlers of a worker: a kind for each topic, and one knowledge for each partition."""

from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from bot.activity import Activity, Counted
from bot.handler import BotHandler
from bot.handlers import (
    INPUT_TOPICS,
    OUTPUT_TOPICS,
    QUICK_TOPICS,
    SILENT_TOPICS,
    WEIGHTS,
    Handlers,
)
from bot.posts import PostsHandler
from bot.references import ReferencesHandler
from bot.review_handler import ReviewsHandler
from bot.views.replies import RepliesView
from consumers.handler import StopPartition
from model.echo import EchoEngine
from schemas import names
from schemas.record import Record
from schemas.topics import MEETING
from tests.bot.make import setup
from tests.bot.views.logs import Opened, built


class Closed:
    """Views of which none is open."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    async def open(self, partition: int) -> None:
        self.opened.append(partition)

    async def release(self, partition: int) -> None:
        self.opened.remove(partition)

    def of(self, partition: int) -> dict[str, Any]:
        return {}


def handlers(**fields: Any) -> Handlers:
    return Handlers(setup(), EchoEngine(), **fields)


def knowledge(handler: Any) -> object:
    return handler._knowledge


def test_every_topic_has_its_kind() -> None:
    made = {topic: type(handlers().make(topic, 0)) for topic in INPUT_TOPICS}
    assert made == {
        names.FEED_MENTIONS: BotHandler,
        names.FEED_DIRECT_MESSAGES: BotHandler,
        names.FEED_POSTS: PostsHandler,
        names.BOT_REFERENCES: ReferencesHandler,
        names.BOT_REVIEWS: ReviewsHandler,
    }


def test_the_topics_fit_together() -> None:
    assert {*INPUT_TOPICS, *OUTPUT_TOPICS} <= set(MEETING)
    assert set(INPUT_TOPICS) > SILENT_TOPICS
    assert set(WEIGHTS) < set(INPUT_TOPICS)
    assert SILENT_TOPICS < QUICK_TOPICS < set(INPUT_TOPICS)


async def test_a_partition_shares_what_it_knows_until_its_last_topic_goes() -> None:
    one = handlers()
    sources = [TopicPartition(topic, 0) for topic in (names.FEED_MENTIONS, names.BOT_REVIEWS)]
    first = [one.make(*source) for source in sources]
    for source in sources:
        await one.open(source)
    assert knowledge(first[0]) is knowledge(first[1])
    assert knowledge(one.make(names.FEED_MENTIONS, 1)) is not knowledge(first[0])
    await one.release(sources[0])
    assert knowledge(one.make(*sources[0])) is knowledge(first[1])
    await one.release(sources[1])
    assert knowledge(one.make(*sources[0])) is not knowledge(first[1])


async def test_views_are_opened_and_closed_with_every_topic() -> None:
    views = Closed()
    one = handlers(views=views)
    source = TopicPartition(names.BOT_REFERENCES, 3)
    await one.open(source)
    assert views.opened == [3]
    await one.release(source)
    assert views.opened == []


class Caught(Closed):
    """With an empty view of replies; counts how often it is caught up besides ``open``."""

    def __init__(self) -> None:
        super().__init__()
        self.caught_up = 0
        self._replies = Opened(built(RepliesView(), []))

    async def catch_up(self, partition: int | None) -> None:
        self.caught_up += 1

    def of(self, partition: int) -> dict[str, Any]:
        return {RepliesView.name: self._replies}


async def test_views_are_caught_up_once_for_whoever_takes_over() -> None:
    views = Caught()
    one = handlers(views=views)
    source = TopicPartition(names.FEED_MENTIONS, 3)
    for times in (0, 1):  # it goes, and comes back
        await one.open(source)
        assert await one.published(source, 0) == {}
        assert views.caught_up == times, "it was, when it was opened"
        await one.published(source, 0)
        assert views.caught_up == times + 1, "after a transaction that failed"
        await one.release(source)


async def test_a_view_that_is_closed_is_not_taken_for_none() -> None:
    handler = handlers(views=Closed()).make(names.BOT_REFERENCES, 0)
    headers = (("ce_type", names.REFERENCED_CHANGED.encode()),)
    record = Record(
        topic=names.BOT_REFERENCES,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=b"at://p/1",
        value=b'{"uri": "at://p/1", "deleted": true}',
        headers=headers,
    )
    with pytest.raises(StopPartition):
        handler.open(record)


def test_what_has_outcomes_is_counted() -> None:
    one = handlers(activity=Activity())
    counted = {t for t in INPUT_TOPICS if isinstance(cast("Any", one.make(t, 0)), Counted)}
    assert counted == set(INPUT_TOPICS) - SILENT_TOPICS
