"""A million posts in threads, for the benches of the views: the same ones each time.

Threads have 100 posts; each answers one of the last few before it, so the deepest stand some
forty below their root. Texts are of 40 to 400 characters. Records are numbered by partition, as
Kafka would.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bot.events import SOURCE, Person, post
from schemas import codec, names
from schemas.envelope import Envelope
from schemas.feed import Post, PostCreated
from schemas.record import Output, Record

PER_THREAD = 100
AT = datetime(2026, 1, 1, tzinfo=UTC)
_RECENT = 5  # a post answers one of so many before it
_TEXT = (
    "the graphs look odd since then and nobody knows why, but the second region is slow again"
    " so we moved it back last night, asked around, and found nothing that would explain it"
)
_WORDS = _TEXT.split()


def posts(count: int, partitions: int) -> Iterator[tuple[int, Post]]:
    """(partition, post): threads side by side, a hundred at a time, each in its own order."""
    chance = random.Random(7)
    threads = range(max(1, count // PER_THREAD))
    for first in range(0, len(threads), 100):
        open_threads = [(number, list[Post]()) for number in threads[first : first + 100]]
        for _ in range(PER_THREAD):
            for number, thread in open_threads:
                thread.append(_next(thread, number, chance))
                yield number % partitions, thread[-1]


def _next(thread: list[Post], number: int, chance: random.Random) -> Post:
    place = len(thread)
    person = chance.randrange(20)
    above = thread[-chance.randint(1, min(_RECENT, place))] if place else None
    return post(
        Person(f"acct:{number}:{person}", f"p{number}x{person}", f"Person {person}"),
        " ".join(chance.choices(_WORDS, k=chance.randint(8, 80))),
        conversation_id=f"thread:{number}",
        above=above,
        created_at=AT + timedelta(seconds=number + place),
        uri=f"post:{number}:{place}",
    )


def created(one: Post) -> Output:
    """The event on ``feed.posts``."""
    envelope = Envelope(
        id=f"{one.uri}#created", source=SOURCE, type=names.POST_CREATED, time=one.created_at
    )
    return codec.encode(names.FEED_POSTS, one.conversation_id, envelope, PostCreated(post=one))


def record(output: Output, partition: int, offset: int) -> Record:
    """As a consumer would read it, one a millisecond."""
    return Record(
        topic=output.topic,
        partition=partition,
        offset=offset,
        timestamp_ms=round(AT.timestamp() * 1000) + offset,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )
