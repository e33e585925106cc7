"""One decision that is to be made again, with what the log still holds of it.

In: a few entries of the plan. Out: ``Loaded`` for each: the decision record, its input, or why
one of them is not there. Guaranteed: the record belongs to its input, by the id that both make;
a record that was edited, or an input that is another than the one of then, is told.
Next: ``bot/replay/frozen.py`` or ``rebuilt.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bot.observe import Position
from bot.publishing import source_of
from bot.replay.log import Held, Log, fetch
from bot.replay.plan import Planned, event_id
from schemas.audit import DecisionRecorded
from schemas.codec import Undecodable, decode
from schemas.ids import decision_id
from schemas.record import Record
from schemas.replays import NotReplayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """``decision`` and ``original`` are none where they are gone; ``why`` says why the decision
    is, ``gone`` why the original is."""

    planned: Planned
    decision: DecisionRecorded | None = None
    original: Record | None = None
    why: NotReplayed | None = None
    gone: NotReplayed | None = None


async def load(
    log: Log, held: Held, entries: Sequence[Planned], bot_id: str, cluster_id: str
) -> list[Loaded]:
    """In the order of ``entries``. ``cluster_id``: of the Kafka cluster, part of every id."""
    records = await fetch(log, held, [one.at for one in entries if one.at and not one.why])
    found = [await _decision(one, records, held, bot_id, cluster_id) for one in entries]
    originals = await fetch(log, held, [place for one in found if (place := _origin(one))])
    return [await _with_original(one, originals, held) for one in found]


async def _decision(
    planned: Planned, records: dict[Position, Record], held: Held, bot_id: str, cluster_id: str
) -> Loaded:
    if planned.why or planned.at is None:
        return Loaded(planned=planned, why=planned.why or NotReplayed.UNKNOWN_ID)
    record = records.get(planned.at)
    if record is None:  # between the plan and now
        return Loaded(planned=planned, why=await held.why_gone(planned.at))
    try:
        data = decode(record).data
    except Undecodable:
        return Loaded(planned=planned, why=NotReplayed.TORN_RECORD)
    if not isinstance(data, DecisionRecorded):
        return Loaded(planned=planned, why=NotReplayed.TORN_RECORD)
    return Loaded(planned=planned, decision=data, why=_fault(data, record, bot_id, cluster_id))


def _fault(
    decision: DecisionRecorded, record: Record, bot_id: str, cluster_id: str
) -> NotReplayed | None:
    if ("ce_source", source_of(bot_id).encode()) not in record.headers:
        return NotReplayed.OTHER_BOT
    whole = _is_whole(decision, record, bot_id, cluster_id)
    return None if whole else NotReplayed.EDITED_RECORD


def _is_whole(decision: DecisionRecorded, record: Record, bot_id: str, cluster_id: str) -> bool:
    """Whether its parts fit each other, as they do in every record that a worker made."""
    at, prompt, output = decision.input, decision.prompt, decision.output
    made = decision_id(bot_id, cluster_id, at.topic, at.partition, at.offset)
    if decision.decision_id != made or event_id(record) != made:
        return False
    if prompt is not None and prompt.segments:
        ends = [0, *(segment.end for segment in prompt.segments)]
        starts = [*(segment.start for segment in prompt.segments), len(prompt.token_ids)]
        if ends != starts:
            return False
    logprobs = output.logprobs if output else ()
    return output is None or not logprobs or len(logprobs) == len(output.token_ids)


def _origin(loaded: Loaded) -> Position | None:
    if loaded.decision is None or loaded.why is not None:
        return None
    at = loaded.decision.input
    return Position(at.topic, at.partition, at.offset)


async def _with_original(loaded: Loaded, originals: dict[Position, Record], held: Held) -> Loaded:
    place = _origin(loaded)
    if place is None or loaded.decision is None:
        return loaded
    record = originals.get(place)
    if record is None:
        return replace(loaded, gone=await held.why_gone(place))
    expected = loaded.decision.input.id
    if expected is not None and event_id(record) not in (expected, None):
        return replace(loaded, gone=NotReplayed.ORIGINAL_GONE)  # the topic was made anew
    return replace(loaded, original=record)
