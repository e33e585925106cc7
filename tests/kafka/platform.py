"""A platform for tests of taking back: it writes, edits and deletes, and sees what the bot says.

Everything goes through Kafka. ``settled`` waits until the bot has nothing left to do: every
record of every input topic is committed, those that the bot writes to itself among them.
"""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bot.ask import publish, to_output
from bot.clients import admin, producer
from bot.events import SOURCE, Person, addressed, mention, revision
from bot.events import post as new_post
from bot.handlers import INPUT_TOPICS
from bot.observe import Change, Outcome, OutcomeReader, Outcomes, Position, open_reader
from bot.settings import BotSettings, KafkaSettings
from consumers.reader import Range, range_reader
from schemas import names
from schemas.codes import Outcome as Kind
from schemas.envelope import Envelope, Event
from schemas.feed import (
    DeletedBy,
    Message,
    MessageDeleted,
    MessageEdited,
    Post,
    PostCreated,
    PostDeleted,
    PostEdited,
)
from schemas.replies import ReplyCorrected, ReplyRetracted

PATIENCE_S = 60.0
_numbers = itertools.count(1)


@dataclass
class Platform:
    """One platform on one Kafka. Made by ``platform``."""

    kafka: KafkaSettings
    bot: BotSettings
    writer: AIOKafkaProducer
    reader: OutcomeReader
    client: AIOKafkaAdminClient
    outcomes: Outcomes = field(default_factory=Outcomes)
    landed: dict[Position, Outcome] = field(default_factory=dict)

    # What people do.

    async def tell(self, event: Event[Any]) -> Position:
        """Publish one event; where it stands."""
        return await publish(self.writer, to_output(event))

    async def write(self, post: Post) -> Position:
        return await self.tell(_event(names.POST_CREATED, PostCreated(post=post)))

    async def edit(self, post: Post, text: str) -> Post:
        """The new revision, told on ``feed.posts``."""
        new = edited(post, text)
        data = PostEdited(post=new, previous_revision=post.revision)
        await self.tell(_event(names.POST_EDITED, data))
        return new

    async def delete(self, post: Post) -> Position:
        data = PostDeleted(
            ref=post.ref,
            conversation_id=post.conversation_id,
            deleted_by=DeletedBy.AUTHOR,
            deleted_at=datetime.now(UTC),
        )
        return await self.tell(_event(names.POST_DELETED, data))

    async def edit_message(self, message: Message, text: str) -> Message:
        changes = {"text": text, "revision": revision(text), "version": message.version + 1}
        new = message.model_copy(update=changes)
        data = MessageEdited(message=new, previous_revision=message.revision)
        await self.tell(_event(names.MESSAGE_EDITED, data))
        return new

    async def delete_message(self, message: Message) -> Position:
        data = MessageDeleted(
            ref=message.ref,
            conversation_id=message.conversation_id,
            deleted_by=DeletedBy.AUTHOR,
            deleted_at=datetime.now(UTC),
        )
        return await self.tell(_event(names.MESSAGE_DELETED, data))

    def asking(self, text: str = "How are you?", **fields: Any) -> Post:
        """A post that mentions the bot, not told to anybody yet."""
        shown, facets = addressed(self.bot, f"{text} ({next(_numbers)})")
        given: dict[str, Any] = {"conversation_id": f"thread:{uuid.uuid4()}"} | fields
        return new_post(person(), shown, facets=facets, **given)

    async def mention(self, post: Post, **fields: Any) -> Position:
        """The event that tells the bot of ``post``."""
        return await self.tell(mention(self.bot, post, **fields))

    # What the bot does.

    async def outcome(self, origin: Position) -> Outcome:
        """The outcome of one input."""
        async with asyncio.timeout(PATIENCE_S):
            while origin not in self.landed:
                await self._read()
        return self.landed[origin]

    async def replied(self, post: Post, **fields: Any) -> Outcome:
        """Tell the bot of ``post``, which must be answered."""
        outcome = await self.outcome(await self.mention(post, **fields))
        assert outcome.decision.outcome is Kind.REPLIED, outcome.decision.reason
        return outcome

    async def changed(self, count: int = 1) -> list[Outcome]:
        """Wait for so many outcomes that corrected or retracted something."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.changes) < count:
                await self._read()
        return self.changes

    @property
    def changes(self) -> list[Outcome]:
        """What corrected or retracted something, in the order it came."""
        return [o for o in self.landed.values() if o.changes]

    @property
    def reviews(self) -> list[Outcome]:
        """The outcomes of reviews."""
        return [o for o in self.landed.values() if o.input.topic == names.BOT_REVIEWS]

    async def settled(self) -> None:
        """Until nothing is left to do; then nothing is torn, doubled or a dead letter."""
        async with asyncio.timeout(PATIENCE_S):
            while not (await self._all_committed() and await self._all_committed()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async for record in self.reader.read_to_end():
            self._take(record)
        assert (self.outcomes.torn, self.outcomes.doubles) == ([], [])
        assert self.outcomes.undecided_replies == []
        assert not self.outcomes.dead_letters

    async def _read(self) -> None:
        for record in await self.reader.read():
            self._take(record)

    def _take(self, record: Any) -> None:
        for outcome in self.outcomes.add(record):
            self.landed[outcome.input] = outcome

    async def _all_committed(self) -> bool:
        """In the order of the pipeline: what is committed has written what follows from it."""
        async with range_reader(self.kafka.bootstrap_servers) as reader:
            for topic in INPUT_TOPICS:
                ends: dict[int, int] = {}
                async for record in reader.read(Range(topic)):
                    ends[record.partition] = record.offset + 1
                places = [TopicPartition(topic, partition) for partition in ends]
                if not places:
                    continue
                committed = await self.client.list_consumer_group_offsets(
                    self.kafka.group_id, partitions=places
                )
                if any(committed[place].offset < ends[place.partition] for place in places):
                    return False
        return True


@asynccontextmanager
async def platform(kafka: KafkaSettings, bot: BotSettings) -> AsyncIterator[Platform]:
    """It sees what the bot says from now on."""
    async with open_reader(kafka) as reader, producer(kafka) as writer, admin(kafka) as client:
        yield Platform(kafka, bot, writer, reader, client)


def person(**fields: Any) -> Person:
    """Somebody new."""
    name = f"person-{next(_numbers)}"
    return Person(name, name, **fields)


def edited(post: Post, text: str) -> Post:
    """The next revision; what mentions the bot goes on doing so."""
    shown = f"{post.text[: post.facets[0].byte_end]} {text}" if post.facets else text
    return post.model_copy(
        update={
            "text": shown,
            "revision": revision(shown),
            "version": post.version + 1,
            "edited_at": post.created_at + timedelta(seconds=post.version),
        }
    )


def texts_now(outcome: Outcome) -> list[str]:
    return [c.data.text for c in outcome.changes if isinstance(c.data, ReplyCorrected)]


def is_retraction(change: Change) -> bool:
    return isinstance(change.data, ReplyRetracted)


def _event(kind: str, data: Any) -> Event[Any]:
    envelope = Envelope(id=str(uuid.uuid4()), source=SOURCE, type=kind, time=datetime.now(UTC))
    return Event(envelope, data)
