"""Conversations and decisions read from Kafka for a preview, with a bounded reader.

A URI or a decision id comes in; the record, and what a worker would have known when it came, go
out. No group is joined and nothing is written. Next: ``bot/preview.py``.
"""

from bot.errors import Trouble
from bot.explain.find import Subject, look
from bot.observe import Position
from bot.preview import TOPICS_OF_VIEWS, asked_of, no_question
from bot.values import written
from bot.views import VIEWS
from consumers.errors import TopicMissing
from consumers.reader import Bound, Range, RangeReader
from schemas import names
from schemas.audit import DecisionRecorded
from schemas.record import Record

INPUTS = (names.FEED_MENTIONS, names.FEED_DIRECT_MESSAGES)
_WHOLE = frozenset(topic for view in VIEWS if view.scope == "all" for topic in view.topics)
_FURTHER = "looks further back; without --since it is 7 days."


async def find_question(reader: RangeReader, uri: str, since: Bound) -> Record:
    """The newest question about ``uri``. Raises ``Trouble``."""
    found: Record | None = None
    needle = uri.encode()
    for topic in INPUTS:
        async for record in reader.read(Range(topic, start=since)):
            value = record.value or b""
            if needle not in value and b"\\" not in value:  # JSON may escape what it likes
                continue
            asked = asked_of(record)
            post = written(asked.data) if asked else None
            if post is not None and post.uri == uri:
                newer = found is None or record.timestamp_ms >= found.timestamp_ms
                found = record if newer else found
    if found is None:
        raise no_question(uri, "Kafka", f"`--uri {uri} --since 30d` {_FURTHER}")
    return found


async def find_decision(
    reader: RangeReader, decision_id: str, since: Bound
) -> tuple[DecisionRecorded, Position]:
    """A decision record and where it stands. Raises ``Trouble``."""
    subject = Subject(decision_id)
    hits = await look(reader, subject, private=True, since_ms=since.timestamp_ms)
    found = [one for one in hits.found if one.data.decision_id == decision_id]
    if found:
        return found[0].data, found[0].at
    todo = f"`--decision {decision_id} --since 30d` {_FURTHER}"
    raise Trouble("there is no such decision.", where=decision_id, todo=todo)


async def read_input(reader: RangeReader, decision: DecisionRecorded) -> Record:
    """The record that a decision is about. Raises ``Trouble`` where it is gone."""
    at = decision.input
    bounds = Bound({at.partition: at.offset}), Bound({at.partition: at.offset + 1})
    async for record in reader.read(Range(at.topic, (at.partition,), *bounds)):
        return record
    place = f"{at.topic}/{at.partition}/{at.offset}"
    raise Trouble("the input is gone.", where=place)


async def before(reader: RangeReader, question: Record, since: Bound) -> list[Record]:
    """What a worker would have read for its views up to the question, itself included."""
    records: list[Record] = []
    for topic in TOPICS_OF_VIEWS:
        try:
            records += [record async for record in reader.read(_until(topic, question, since))]
        except TopicMissing:
            continue  # a view of a topic that is not there is empty
    return records


def _until(topic: str, question: Record, since: Bound) -> Range:
    if topic in _WHOLE:
        return Range(topic, end=Bound(timestamp_ms=question.timestamp_ms + 1))
    partition = question.partition
    end = Bound(timestamp_ms=question.timestamp_ms)
    if topic == question.topic:
        end = Bound({partition: question.offset + 1})
    return Range(topic, (partition,), since, end)
