"""The one way out: results of a replay on ``bot.replays``, and nothing else anywhere.

In: ``ReplayCompared``. Out: records on that topic, keyed by the replay. Guaranteed by
construction: the only producer of a replay is made here, of a class that refuses every other
topic and every offset commit before anything is sent, and it has no transactional id; no other
module of ``bot.replay`` may import the Kafka client or whatever publishes (import contracts). On a
broker with access lists, a principal that may write to ``bot.replays`` alone is enough.

A result may be published twice, where a replay was killed between that and keeping it: its
``ce_id`` is the same both times.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from bot.errors import Trouble
from consumers.closing import bounded
from consumers.errors import BrokerUnreachable
from schemas import names
from schemas.codec import encode
from schemas.envelope import Envelope
from schemas.ids import NAMESPACE
from schemas.record import Output
from schemas.replays import ReplayCompared
from schemas.topics import MAX_REQUEST_BYTES, MAX_VALUE_BYTES

START_S = 10.0
SOURCE = "twite://replay"


class NotThroughHere(Exception):
    """Something in a replay tried to publish to another topic. A fault in the code."""


class Door(Protocol):
    """Where results go."""

    async def publish(self, results: Sequence[ReplayCompared]) -> None: ...


class NoDoor:
    """Results are kept and shown, but not published."""

    async def publish(self, results: Sequence[ReplayCompared]) -> None:
        return


class ResultsProducer(AIOKafkaProducer):  # type: ignore[misc]  # the library has no types
    """A producer for ``bot.replays`` alone."""

    async def send(self, topic: str, *args: Any, **options: Any) -> Any:
        """Raises ``NotThroughHere`` for any other topic."""
        _require(topic)
        return await super().send(topic, *args, **options)

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        """Raises ``NotThroughHere`` for any other topic."""
        _require(topic)
        return await super().send_batch(batch, topic, partition=partition)

    async def begin_transaction(self) -> NoReturn:
        """Raises ``NotThroughHere``."""
        raise NotThroughHere("a replay has no transactions")

    async def send_offsets_to_transaction(self, offsets: Any, group_id: str) -> NoReturn:
        """Raises ``NotThroughHere``."""
        raise NotThroughHere("a replay moves no group's offsets")


def _require(topic: str) -> None:
    if topic != names.BOT_REPLAYS:
        raise NotThroughHere(f"a replay may not write to {topic}")


class ResultsDoor:
    """See the module. Made by ``results_door``."""

    def __init__(self, producer: ResultsProducer) -> None:
        if type(producer) is not ResultsProducer:
            raise NotThroughHere("only a ResultsProducer may stand behind this door")
        self.__producer = producer

    async def publish(self, results: Sequence[ReplayCompared]) -> None:
        """Returns when the broker has them. Raises ``Trouble``."""
        try:
            sent = [await self._send(output_of(result)) for result in results]
            await asyncio.gather(*sent)
        except KafkaError as error:
            raise Trouble(
                f"results can't be published ({type(error).__name__}).",
                where=names.BOT_REPLAYS,
                todo="Go on with the same command and --resume, or without --publish.",
            ) from error

    async def _send(self, output: Output) -> Any:
        headers = list(output.headers)
        sent = await self.__producer.send(
            output.topic, value=output.value, key=output.key, headers=headers
        )
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
        return sent


@asynccontextmanager
async def results_door(
    bootstrap_servers: str, client: dict[str, Any]
) -> AsyncIterator[ResultsDoor]:
    """``client``: security options. Raises ``BrokerUnreachable``."""
    producer = ResultsProducer(
        bootstrap_servers=bootstrap_servers,
        enable_idempotence=True,
        max_request_size=MAX_REQUEST_BYTES,
        **client,
    )
    try:
        await asyncio.wait_for(producer.start(), START_S)
    except (KafkaConnectionError, TimeoutError) as error:
        await bounded(producer.stop())
        raise BrokerUnreachable(bootstrap_servers, error) from error
    try:
        yield ResultsDoor(producer)
    finally:
        await bounded(producer.stop())


def output_of(result: ReplayCompared) -> Output:
    """The record of a result; of one too large for Kafka without its texts and contexts."""
    made = encode(names.BOT_REPLAYS, result.replay_id, envelope_of(result), result)
    if len(made.value or b"") <= MAX_VALUE_BYTES:
        return made
    bare = {"text": None, "context": ()}
    sides = {
        name: side.model_copy(update=bare)
        for name, side in (("before", result.before), ("after", result.after))
        if side is not None
    }
    notes = (*result.notes, "too large for a record: texts and contexts are in the report")
    small = result.model_copy(update={**sides, "notes": notes})
    return encode(names.BOT_REPLAYS, result.replay_id, envelope_of(result), small)


def envelope_of(result: ReplayCompared) -> Envelope:
    """The same id for the same decision in the same replay."""
    event = uuid.uuid5(NAMESPACE, f"{result.replay_id}/{result.decision_id}/{result.decision}")
    return Envelope(
        id=str(event), source=SOURCE, type=names.REPLAY_COMPARED, time=result.compared_at
    )
