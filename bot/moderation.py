"""Commands of moderators, given: written down once, with everything that obeys them.

In: who commands what, why, and on which subject. Out: the command on ``bot.moderation`` (of each
subject only the last counts) and on ``bot.moderation-log`` (which keeps them all); of one about a
reply also the ``ReviewAsked`` that has it obeyed, on ``bot.reviews`` in the conversation of the
reply, where it is an input like any other: one outcome, exactly once, also where no worker runs
now. All of it in one transaction, so that nothing is obeyed that is not on the trail.
Next: ``bot/review_handler.py``, ``bot/views/moderation.py``.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from bot.clients import options
from bot.errors import Trouble
from bot.explain.case import Decided
from bot.observe import Position
from bot.publishing import Place, Publishing, source_of
from bot.settings import KafkaSettings
from consumers.closing import bounded
from consumers.errors import BrokerUnreachable
from schemas import codec, names
from schemas.codes import Outcome
from schemas.control import Moderation, ModerationCommanded
from schemas.envelope import Envelope
from schemas.ids import follow_up_id
from schemas.record import Output
from schemas.reviews import ReviewAsked
from schemas.topics import MAX_REQUEST_BYTES

TRANSACTIONAL_ID = "twite.moderate"  # and a random part: moderators don't fence each other
TIMEOUT_S = 15.0
# While a transaction is open nobody reads past it: one that was killed is to hold nothing up.
TRANSACTION_TIMEOUT_S = 3.0
SEND_TIMEOUT_S = 2.5  # below it, so that the commit is asked for in time
_SOMEBODY = "account:ID or conversation:ID"
_SURFACE = "everything, mentions or direct-messages"
_PROMPTED = "mention or direct"
_NAMES = {
    _SURFACE: frozenset({"everything", "mentions", "direct-messages"}),
    _PROMPTED: frozenset({"mention", "direct"}),
}
_SUBJECTS: Mapping[str, Mapping[str, str]] = {
    "block": {_SOMEBODY: ""},
    "unblock": {_SOMEBODY: ""},
    "stop": {_SURFACE: ""},
    "pause": {_SOMEBODY: "pause:"},
    "resume": {_SOMEBODY: "pause:", _SURFACE: ""},
    "cancel": {_SOMEBODY: "cancel:"},
    "approve-first": {_SOMEBODY: "approval:", _SURFACE: "approval:"},
    "publish-directly": {_SOMEBODY: "approval:", _SURFACE: "approval:"},
    "pin": {_PROMPTED: "prompt:"},
    "unpin": {_PROMPTED: "prompt:"},
}
"""By command: what may be named, and what stands before it in the subject."""


@dataclass(frozen=True, slots=True)
class Given:
    """A command that was written. ``review``: the input that has it obeyed, if any."""

    id: str
    command: ModerationCommanded
    review: Position | None = None


def subject_of(command: str, named: str) -> str:
    """The subject that a command is written on. Pauses, cancellations and approvals have subjects
    of their own, or they would undo a block; one is taken as it stands on the log as well. Raises
    ``Trouble``."""
    subjects = _SUBJECTS[command]
    for before in subjects.values():
        named = named.removeprefix(before)
    for what, before in subjects.items():
        if _is_one(named, what):
            return f"{before}{named}"
    raise Trouble(
        f"{named!r} is nothing to {command}.", todo=f"Name {', '.join(subjects)}.", status=2
    )


def _is_one(named: str, what: str) -> bool:
    if what in _NAMES:
        return named in _NAMES[what]
    kind, _, own = named.partition(":")
    return kind in ("account", "conversation") and bool(own)


def commanded(**members: str | None) -> ModerationCommanded:
    """The command that these members make. Raises ``Trouble`` with the member and its limit."""
    try:
        return ModerationCommanded.model_validate(members)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        todo = "Name it as it stands on the platform or in `twite moderate log`."
        field = str(fault["loc"][0])
        raise Trouble(f"{fault['msg']}.", where=field, todo=todo, status=2) from None


def about_reply(decided: Decided, command: ModerationCommanded, event_id: str) -> ReviewAsked:
    """What has a command about the reply of a decision obeyed. Raises ``Trouble``."""
    data = decided.data
    if data.outcome not in (Outcome.REPLIED, Outcome.CORRECTED) or data.source_ref is None:
        what = f"that decision said nothing: it ended as {data.outcome.value}."
        raise Trouble(what, where=data.decision_id, todo="Name one that replied, or its reply.")
    if data.conversation_id is None:
        raise Trouble("that decision names no conversation.", where=data.decision_id)
    moderation = Moderation(
        id=event_id,
        command=command.command,
        subject=command.subject,
        moderator=command.moderator,
        reason=command.reason,
    )
    return ReviewAsked.commanded(
        moderation,
        command.text,
        source=data.source_ref,
        conversation_id=data.conversation_id,
        decision_id=data.decision_id,
        private=decided.private,
        at=datetime.now(UTC),
    )


async def give(
    kafka: KafkaSettings, bot_id: str, command: ModerationCommanded, about: Decided | None = None
) -> Given:
    """Write a command; ``about``: the decision whose reply it is about.

    Raises ``Trouble`` and ``BrokerUnreachable``: then nothing of it counts.
    """
    event = Envelope(
        id=str(uuid.uuid4()),
        source=source_of(bot_id),
        type=names.MODERATION_COMMANDED,
        time=datetime.now(UTC),
    )
    reviews = []
    if about is not None:
        review = about_reply(about, command, event.id)
        own_id = follow_up_id(event.id, "review", review.source.uri)
        command = command.model_copy(update={"review_id": own_id})
        place = Place(names.BOT_REVIEWS, review.conversation_id, about.record.partition)
        publishing = Publishing(bot_id, lambda: event.time)
        reviews.append(publishing.output(place, names.REVIEW_ASKED, own_id, review, event))
    topics = (names.BOT_MODERATION, names.BOT_MODERATION_LOG)
    outputs = [codec.encode(topic, command.subject, event, command) for topic in topics]
    try:
        async with _producer(kafka) as producer, asyncio.timeout(TIMEOUT_S):
            *_, last = await _written(producer, [*outputs, *reviews])
    except (KafkaError, TimeoutError, AssertionError) as error:
        what = f"the command could not be written ({type(error).__name__}); nothing was done."
        raise Trouble(what, todo="Look at the brokers and the rights of this user.") from error
    return Given(event.id, command, last if about is not None else None)


async def _written(producer: AIOKafkaProducer, outputs: Sequence[Output]) -> list[Position]:
    """One transaction; a refused send that nobody awaited would still commit the rest."""
    await producer.begin_transaction()
    places = []
    async with asyncio.timeout(SEND_TIMEOUT_S):
        for one in outputs:
            sent = await producer.send_and_wait(
                one.topic, one.value, one.key, partition=one.partition, headers=list(one.headers)
            )
            places.append(Position(sent.topic, sent.partition, sent.offset))
    await producer.commit_transaction()
    return places


@asynccontextmanager
async def _producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    """Raises ``BrokerUnreachable``."""
    client = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        transactional_id=f"{TRANSACTIONAL_ID}.{uuid.uuid4()}",
        transaction_timeout_ms=round(TRANSACTION_TIMEOUT_S * 1000),
        max_request_size=MAX_REQUEST_BYTES,
        **options(kafka),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.start()
    except (KafkaError, TimeoutError, OSError) as error:
        await bounded(client.stop())
        raise BrokerUnreachable(kafka.bootstrap_servers, error) from error
    try:
        yield client
    finally:
        await bounded(client.stop())
