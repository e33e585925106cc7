"""Mentions of the bot, below posts that only its views know, for the benches of the whole bot.

Each round has new posts: ``THREADS`` roots on ``feed.posts``, then mentions by turns in all of
the threads, each by one of the people of its thread and with a text of a few sentences.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

from bot.events import SOURCE, Person, addressed, mention, post
from bot.settings import BotSettings
from schemas import codec, names
from schemas.envelope import Envelope
from schemas.feed import Post, PostCreated
from schemas.record import Output
from tests.bench.kafka import PARTITIONS, shuffled_lanes

THREADS = 1_000
AT = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = (
    "We moved the whole fleet to the new release last night and the graphs look odd since then."
    " Has anybody seen requests to the second region take twice as long as before?"
)
QUESTION = (
    "what would you look at first here? The dashboards show nothing unusual, and the people who"
    " were on call say that they did not change anything but the release itself."
)


async def preload(
    bootstrap_servers: str,
    round_name: str,
    count: int,
    words: Callable[[], tuple[str, str]] = lambda: (ROOT, QUESTION),
) -> None:
    """Append a round's roots and ``count`` mentions, each thread in its partition. ``words``: of a
    thread, its root and what is asked below it."""
    bot = BotSettings()
    said = [words() for _ in range(THREADS)]
    roots = [_root(f"{round_name}:{lane}", lane, said[lane][0]) for lane in range(THREADS)]
    lanes = shuffled_lanes(count, THREADS)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, linger_ms=5, max_batch_size=1 << 18
    ) as producer:
        made = [_created(root) for root in roots]
        await _send(producer, ((lane, made[lane]) for lane in range(THREADS)))
        asking = (
            (lane, _mention(bot, roots[lane], n, lane, said[lane][1]))
            for n, lane in enumerate(lanes)
        )
        await _send(producer, asking)


async def _send(producer: AIOKafkaProducer, outputs: Iterator[tuple[int, Output]]) -> None:
    sent = [
        await producer.send(
            one.topic,
            one.value,
            one.key,
            partition=lane % PARTITIONS,
            headers=list(one.headers),
        )
        for lane, one in outputs
    ]
    await asyncio.gather(*sent)


def some_mention(bot: BotSettings) -> Output:
    """One of them, for whoever needs an event and no log."""
    return _mention(bot, _root("thread", 0, ROOT), 0, 0, QUESTION)


def _root(thread: str, lane: int, text: str) -> Post:
    author = Person(f"acct:host:{lane}", f"host{lane}", f"Host {lane}")
    return post(author, text, conversation_id=thread, created_at=AT, uri=f"{thread}:root")


def _created(root: Post) -> Output:
    envelope = Envelope(id=f"{root.uri}#created", source=SOURCE, type=names.POST_CREATED, time=AT)
    return codec.encode(names.FEED_POSTS, root.conversation_id, envelope, PostCreated(post=root))


def _mention(bot: BotSettings, root: Post, number: int, lane: int, question: str) -> Output:
    text, facets = addressed(bot, f"{question} ({number})")
    asking = post(
        Person(f"acct:asker:{lane}", f"asker{lane}", f"Asker {lane}"),
        text,
        conversation_id=root.conversation_id,
        facets=facets,
        above=root,
        created_at=AT,
        uri=f"{root.conversation_id}:{number}",
    )
    event = mention(bot, asking, event_id=f"{asking.uri}#mention")
    data = event.data.model_copy(update={"ancestors_complete": False})
    return codec.encode(names.FEED_MENTIONS, root.conversation_id, event.envelope, data)
