"""Publishes the originals of dead letters again, each once, whatever happens meanwhile.

In: the letters an operator chose, with the marks seen then. For each of them the original goes
to its own topic and partition, byte for byte and with ``twite_redrive_of``, and a mark goes to
the dead letter's own partition, both in one transaction: a kill in between leaves neither.
There is one ``transactional.id`` for all re-driving on a cluster. Its start settles the
transaction that an earlier run left open and fences a run that still goes on; only then the
marks are read, up to what was on the log at that moment, and letters with a new mark are left
out. So two operators at once, or one who starts again after a crash, never publish one twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerFenced

from bot.clients import options, topic_partitions
from bot.dead_letters import Letter, by_partition, read_records
from bot.errors import Trouble
from bot.observe import Position
from bot.settings import KafkaSettings
from consumers import transactions
from consumers.batches import RawBatch, needs_raw_batch, record_size
from consumers.closing import bounded
from consumers.errors import BrokerUnreachable
from consumers.reader import Bound, Range, RangeReader, range_reader
from schemas import names
from schemas.dead_letters import (
    RedriveMark,
    parse_dead_letter,
    parse_redrive_mark,
    redrive_mark,
    redriven,
)
from schemas.record import Output, Record
from schemas.topics import MAX_REQUEST_BYTES, TOPICS

TRANSACTIONAL_ID = "twite.redrive"
TRANSACTION_TIMEOUT_MS = 15_000
COMMIT_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 60.0  # longer than any worker's transaction may stay open
BATCH_LETTERS = 100
BATCH_BYTES = 4 * 1024 * 1024
POLL_S = 0.1

# A dead letter is data: one that names another topic must not make the bot speak.
REDRIVABLE = (names.FEED_MENTIONS, names.FEED_DIRECT_MESSAGES, names.BOT_REVIEWS)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A letter that is left out, and why; ``settled``: because it was re-driven already."""

    letter: Letter
    why: str
    settled: bool = False


@dataclass(slots=True)
class Result:
    """What became of the chosen letters. ``done`` maps a dead letter to its new place."""

    done: dict[Position, Position] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: publish ``letters``, and leave out ``refused``."""

    letters: tuple[Letter, ...]
    refused: tuple[Refusal, ...]


def plan(letters: Iterable[Letter], partitions: Mapping[str, int], *, again: bool) -> Plan:
    """What can be re-driven; ``partitions``: the partition count of each topic there is."""
    going: list[Letter] = []
    refused: list[Refusal] = []
    for letter in letters:
        if letter.redriven and not again:
            why = f"was re-driven already, as {letter.redriven[-1]}"
            refused.append(Refusal(letter, why, settled=True))
        elif why := _why_impossible(letter.origin, partitions):
            refused.append(Refusal(letter, why))
        else:
            going.append(letter)
    return Plan(tuple(going), tuple(refused))


def _why_impossible(origin: Position, partitions: Mapping[str, int]) -> str:
    if origin.topic not in REDRIVABLE:
        return f"comes from {origin.topic}, which the bot does not answer"
    if origin.partition >= partitions.get(origin.topic, 0):
        return f"{origin.topic} has no partition {origin.partition} now"
    return ""


async def redrive(
    kafka: KafkaSettings,
    letters: Sequence[Letter],
    told: Callable[[Mapping[Position, Position]], None] = lambda done: None,
) -> Result:
    """Publish the originals of ``letters`` again, those that got no mark since they were read.

    ``told`` hears of each batch that is committed. Raises ``Trouble`` where it had to stop:
    what is done is marked, so the same command goes on from there.
    """
    partitions = await topic_partitions(kafka)
    result = Result()
    async with (
        range_reader(kafka.bootstrap_servers, options(kafka)) as reader,
        _producer(kafka) as producer,
    ):
        await _wait_until_settled(kafka, letters)
        going = await _not_marked_meanwhile(reader, letters, partitions, result)
        async for batch in _batches(read_records(reader, going), result):
            done = await _publish(producer, batch, result)
            result.done |= done
            told(done)
    known = {*result.done, *(refusal.letter.at for refusal in result.refused)}
    gone = (letter for letter in going if letter.at not in known)
    result.refused += [Refusal(letter, "is gone from the log") for letter in gone]
    return result


async def _not_marked_meanwhile(
    reader: RangeReader, letters: Sequence[Letter], partitions: Mapping[str, int], result: Result
) -> tuple[Letter, ...]:
    marks = await _marks(reader, letters)
    same = [letter for letter in letters if marks.get(letter.at, ()) == letter.redriven]
    why = "was re-driven by somebody else meanwhile"
    others = {letter.at for letter in letters} - {letter.at for letter in same}
    result.refused += [Refusal(one, why, settled=True) for one in letters if one.at in others]
    checked = plan(same, partitions, again=True)
    result.refused += checked.refused
    return checked.letters


@dataclass(frozen=True, slots=True)
class _Going:
    """A letter with what is published for it."""

    letter: Letter
    original: Output
    key: bytes | None


async def _batches(
    records: AsyncIterator[tuple[Letter, Record]], result: Result
) -> AsyncIterator[list[_Going]]:
    """Bounded in letters and bytes; what the broker would refuse fails its whole batch, so it
    is left out before."""
    batch: list[_Going] = []
    size = 0
    async for letter, record in records:
        original = redriven(parse_dead_letter(record))
        limit = TOPICS[original.topic].max_message_bytes
        if record_size(original) > limit:
            why = f"with its new header it has more than the {limit} bytes of {original.topic}"
            result.refused.append(Refusal(letter, why))
            continue
        if batch and (len(batch) >= BATCH_LETTERS or size + letter.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(_Going(letter, original, record.key))
        size += letter.size
    if batch:
        yield batch


async def _publish(
    producer: AIOKafkaProducer, batch: Sequence[_Going], result: Result
) -> dict[Position, Position]:
    """One transaction: originals, then their marks. Raises ``Trouble``."""
    try:
        async with asyncio.timeout(COMMIT_TIMEOUT_S):
            return await _transact(producer, batch)
    except ProducerFenced as error:
        raise Trouble(
            "another re-drive was started and took over" + _so_far(result),
            where=TRANSACTIONAL_ID,
            todo="Let it finish, then look at `twite dead-letters list`.",
        ) from error
    except (KafkaError, TimeoutError, AssertionError) as error:
        raise Trouble(
            f"publishing failed ({type(error).__name__}: {error})" + _so_far(result),
            where=TRANSACTIONAL_ID,
            todo="Run the same command again: what is done is marked and not done twice.",
        ) from error


def _so_far(result: Result) -> str:
    return f" after {len(result.done)} dead letters were re-driven."


async def _transact(
    producer: AIOKafkaProducer, batch: Sequence[_Going]
) -> dict[Position, Position]:
    await producer.begin_transaction()
    done = {}
    originals = [await _send(producer, g.original, g.letter.origin.partition) for g in batch]
    marks = []
    for going, sent in zip(batch, await asyncio.gather(*originals), strict=True):
        place = Position(going.original.topic, going.letter.origin.partition, sent.offset)
        done[going.letter.at] = place
        mark = _mark(going, place)
        marks.append(await _send(producer, mark, going.letter.at.partition))
    # A refused send that nobody awaited would still commit the rest.
    await asyncio.gather(*marks)
    await producer.commit_transaction()
    return done


def _mark(going: _Going, place: Position) -> Output:
    letter = going.letter
    mark = RedriveMark(str(letter.origin), str(letter.at), str(place))
    return redrive_mark(letter.at.topic, going.key, mark)


async def _send(producer: AIOKafkaProducer, output: Output, partition: int) -> Any:
    """The future of a send; one that fails while another is awaited is no news."""
    headers = list(output.headers)
    if needs_raw_batch(output):
        batch = RawBatch(output)
        sent = await producer.send_batch(batch, output.topic, partition=partition)
    else:
        sent = await producer.send(
            output.topic, output.value, output.key, partition=partition, headers=headers
        )
    sent.add_done_callback(lambda done: done.cancelled() or done.exception())
    return sent


@asynccontextmanager
async def _producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    """The one transactional producer of re-driving: started, it has fenced every other.

    An open transaction is aborted in the end. Raises ``BrokerUnreachable`` and ``Trouble``.
    """
    client = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        transactional_id=TRANSACTIONAL_ID,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        max_request_size=MAX_REQUEST_BYTES,
        **options(kafka),
    )
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT_S):  # it waits for another's transaction
            await client.start()
    except (KafkaConnectionError, TimeoutError, OSError) as error:
        await bounded(client.stop())
        raise BrokerUnreachable(kafka.bootstrap_servers, error) from error
    except KafkaError as error:
        await bounded(client.stop())
        raise Trouble(
            f"the producer can't start ({type(error).__name__}).",
            where=f"transactional id {TRANSACTIONAL_ID}",
            todo="Re-driving needs the right to write with this transactional id.",
        ) from error
    try:
        yield client
    finally:
        await bounded(_abort(client))
        transactions.look_at_leftovers(client)
        await bounded(client.stop())


async def _abort(client: AIOKafkaProducer) -> None:
    if client._txn_manager.is_in_transaction():
        await client.abort_transaction()


async def _marks(reader: RangeReader, letters: Iterable[Letter]) -> dict[Position, tuple[str, ...]]:
    """What the marks say now, by dead letter: where it was published again."""
    found: dict[Position, tuple[str, ...]] = {}
    for (topic, partition), wanted in by_partition(letters).items():
        span = Range(topic, (partition,), start=Bound({partition: min(wanted)}))
        async for record in reader.read(span):
            if mark := parse_redrive_mark(record):
                at = Position.parse(mark.letter)
                found[at] = (*found.get(at, ()), mark.redriven_as)
    return found


async def _wait_until_settled(kafka: KafkaSettings, letters: Iterable[Letter]) -> None:
    """Until everything that is on the letters' partitions now can be read.

    A mark may stand behind the open transaction of a worker, where ``read_committed`` does not
    see it yet. Raises ``Trouble`` where such a transaction never ends.
    """
    places = [TopicPartition(*place) for place in by_partition(letters)]
    async with _bare_consumer(kafka, "read_uncommitted") as consumer:
        written = await consumer.end_offsets(places)
    async with _bare_consumer(kafka, "read_committed") as consumer:
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while not _reached(  # noqa: ASYNC110 - only asking tells
                    await consumer.end_offsets(places), written
                ):
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise Trouble(
                f"a transaction stays open for more than {SETTLE_TIMEOUT_S:g} s, so what was"
                " re-driven before can't be told.",
                where=", ".join(f"{place.topic}/{place.partition}" for place in places),
                todo="Find it with Kafka's `kafka-transactions.sh find-hanging`.",
            ) from error


def _reached(readable: Mapping[Any, int], written: Mapping[Any, int]) -> bool:
    return all(readable[place] >= end for place, end in written.items())


@asynccontextmanager
async def _bare_consumer(kafka: KafkaSettings, isolation: str) -> AsyncIterator[AIOKafkaConsumer]:
    client = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, isolation_level=isolation, **options(kafka)
    )
    try:
        await client.start()
        yield client
    except KafkaError as error:
        raise BrokerUnreachable(kafka.bootstrap_servers, error) from error
    finally:
        await bounded(client.stop())
