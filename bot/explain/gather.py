"""What belongs to a decision, collected from the topics around it.

In: a decision and a bounded reader. Out: ``Case``. Each piece is looked for where it must stand:
the input at the place that the decision names; replies in the partition of the decision, around
its time, since one transaction wrote both; later decisions on the same post behind it. What is
not there is named with why, and never guessed. Private topics of the bot are read only where the
caller says so. Next: ``bot/explain/explanation.py``.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from bot.explain.case import (
    Case,
    Command,
    Decided,
    Later,
    Said,
    decided_of,
    said_of,
)
from bot.explain.find import Reader, Subject, Tell
from bot.observe import AUDIT_TOPICS, REPLY_TOPICS
from consumers.errors import RangeGone, TopicMissing
from consumers.reader import Bound, Range
from schemas import headers, names
from schemas.codec import Undecodable, decode
from schemas.codes import SkipReason
from schemas.control import ModerationCommanded
from schemas.faults import Fault
from schemas.feed import FeedbackGiven
from schemas.record import Record
from schemas.replies import ReplyCreated
from schemas.topics import TOPICS

_STOPPABLE = {"everything", "mentions", "direct-messages"}
AROUND_MS = 60_000  # between records of one transaction, generously: the broker stamps each


async def gather(
    reader: Reader,
    decided: Decided,
    *,
    private: bool = False,
    tell: Tell = lambda topic, progress: None,
) -> Case:
    """The case of a decision. ``private``: topics of private talks are read as well."""
    gone: dict[str, str] = {}
    original = await _input(reader, decided, gone)
    said = await _said(reader, decided, gone, private=private)
    later = [
        Later(
            one,
            await _said(reader, one, {}, private=private),
            await _input(reader, one, {}),
        )
        for one in await _later(reader, decided, tell, private=private)
    ]
    return Case(
        decided=decided,
        input=original,
        said=said,
        later=tuple(later),
        commands=await _commands(reader, decided),
        feedback=await _feedback(reader, decided),
        gone=gone,
    )


async def _input(reader: Reader, decided: Decided, gone: dict[str, str]) -> Record | None:
    """The record that was decided on."""
    at = decided.input
    bounds = Bound({at.partition: at.offset}), Bound({at.partition: at.offset + 1})
    try:
        async for record in reader.read(Range(at.topic, (at.partition,), *bounds)):
            if _is_the_input(record, decided):
                return record
            gone["input"] = "another record stands there now: the topic was recreated"
            return None
    except RangeGone:
        gone["input"] = "past retention"
        return None
    except TopicMissing:
        gone["input"] = "its topic is gone"
        return None
    gone["input"] = "no record stands there"
    return None


def _is_the_input(record: Record, decided: Decided) -> bool:
    """Of what could not be decoded no id may be known."""
    known = decided.data.input
    try:
        envelope = headers.read(record.headers)
    except Fault:
        return known.id is None
    return known.id is None or (known.source, known.id) == (envelope.source, envelope.id)


async def _said(
    reader: Reader, decided: Decided, gone: dict[str, str], *, private: bool
) -> tuple[Said, ...]:
    """What the decision published, in the order of the parts."""
    wanted = decided.data.reply_ids
    if not wanted:
        return ()
    topics = REPLY_TOPICS if private else REPLY_TOPICS[:1]
    found = [said for topic in topics async for said in _spoken(reader, topic, decided)]
    missing = set(wanted) - {said.data.reply_id for said in found}
    if missing:
        gone["replies"] = await _why_missing(reader, decided, len(missing))
    return tuple(sorted(found, key=lambda said: wanted.index(said.data.reply_id)))


async def _spoken(reader: Reader, topic: str, decided: Decided) -> AsyncIterator[Said]:
    """What of a decision stands on a topic of replies."""
    taken_in, data = decided.record.timestamp_ms, decided.data
    needle = data.decision_id.encode()
    bounds = Bound(timestamp_ms=taken_in - AROUND_MS), Bound(timestamp_ms=taken_in + AROUND_MS)
    async for record in _there(reader, Range(topic, (decided.record.partition,), *bounds)):
        if needle not in (record.value or b""):
            continue
        try:
            said = said_of(record)
        except Undecodable:
            continue
        is_wanted = said is not None and said.data.reply_id in data.reply_ids
        if said is not None and is_wanted and said.data.decision_id == data.decision_id:
            yield said


async def _why_missing(reader: Reader, decided: Decided, count: int) -> str:
    """Why replies of a decision are not there: taken by retention, or the log is torn."""
    topic, partition = REPLY_TOPICS[decided.private], decided.record.partition
    try:
        bounds = (await reader.bounds(Range(topic, (partition,)))).get(partition)
    except TopicMissing:
        return f"{count} of them: {topic} is gone"
    kept_ms = TOPICS[topic].retention_ms
    age_ms = datetime.now(UTC).timestamp() * 1000 - decided.record.timestamp_ms
    if bounds is None or bounds[0] > 0 or age_ms > kept_ms:
        return f"{count} of them: past retention"
    return f"{count} of them are not on the log, though the decision names them: it is torn"


async def _later(reader: Reader, decided: Decided, tell: Tell, *, private: bool) -> list[Decided]:
    """Decisions behind it in its partition that are on the same post or reply."""
    data = decided.data
    words = {*data.reply_ids, *([data.source_ref.uri] if data.source_ref else [])}
    if not words:
        return []
    needles = [Subject(word).needle for word in sorted(words)]
    partition, found = decided.record.partition, list[Decided]()
    topics = AUDIT_TOPICS if private else (decided.record.topic,)
    for topic in topics:
        span = Range(topic, (partition,), start=_behind(decided, topic))
        async for record in _there(reader, span, lambda p, t=topic: tell(t, p)):
            if any(needle in (record.value or b"") for needle in needles):
                found += _on_the_same(record, decided)
    return sorted(found, key=lambda one: (one.record.timestamp_ms, one.at))


def _behind(decided: Decided, topic: str) -> Bound:
    if topic == decided.record.topic:
        return Bound({decided.record.partition: decided.record.offset + 1})
    return Bound(timestamp_ms=decided.record.timestamp_ms)


def _on_the_same(record: Record, first: Decided) -> list[Decided]:
    try:
        decided = decided_of(record)
    except Undecodable:
        return []
    if decided is None or decided.data.decision_id == first.data.decision_id:
        return []
    one, other = first.data, decided.data
    same_post = (
        one.source_ref is not None
        and other.source_ref is not None
        and one.source_ref.uri == other.source_ref.uri
    )
    return [decided] if same_post or set(one.reply_ids) & set(other.reply_ids) else []


async def _commands(reader: Reader, decided: Decided) -> tuple[Command, ...]:
    """What moderators commanded about the decision, its replies or its conversation."""
    data, found = decided.data, []
    subjects = {data.decision_id, *data.reply_ids, *blockable(decided)}
    if data.reason == SkipReason.STOPPED:
        subjects |= _STOPPABLE
    async for record in _there(reader, Range(names.BOT_MODERATION)):
        command = _payload(record)
        if not isinstance(command, ModerationCommanded):
            continue
        if command.decision_id == data.decision_id or command.subject in subjects:
            at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
            found.append(Command(command, at))
    return tuple(found)


def blockable(decided: Decided) -> list[str]:
    """The subjects that a moderator would block, as ``bot/views/moderation.py`` knows them."""
    asker, conversation = asker_of(decided), decided.data.conversation_id
    named = (("account", asker), ("conversation", conversation))
    return [f"{kind}:{word}" for kind, word in named if word]


def asker_of(decided: Decided) -> str | None:
    """Account id of who asked, as far as the model was shown it."""
    asking = [item for item in decided.data.context if item.why == "asking"]
    return asking[-1].author_id if asking else None


async def _feedback(reader: Reader, decided: Decided) -> Mapping[str, int]:
    """How often the replies were liked, disliked and reported; not by whom."""
    counts: Counter[str] = Counter()
    replies = set(decided.data.reply_ids)
    if not replies:
        return counts
    start = Bound(timestamp_ms=decided.record.timestamp_ms)
    span = Range(names.FEED_FEEDBACK, (decided.record.partition,), start=start)
    async for record in _there(reader, span):
        given = _payload(record)
        if isinstance(given, FeedbackGiven) and given.reply_id in replies:
            counts[given.kind.value] += 1
    return counts


def _payload(record: Record) -> Any:
    """What a record says; none where nobody can tell."""
    try:
        return None if record.value is None else decode(record).data
    except Undecodable:
        return None


async def _there(
    reader: Reader, span: Range, progress: Any = lambda progress: None
) -> AsyncIterator[Record]:
    """The records of a range, as far as there are any."""
    try:
        async for record in reader.read(span, progress):
            yield record
    except (TopicMissing, RangeGone):
        return


def text_of(said: Said) -> str | None:
    """What it says; none for a retraction."""
    return getattr(said.data, "text", None)


def is_first(said: Said) -> bool:
    """Whether it is a reply, and no correction or retraction of one."""
    return isinstance(said.data, ReplyCreated)
