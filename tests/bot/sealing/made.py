"""Decision records as they stand on the audit, and a chain over them."""

import json
from collections.abc import Sequence
from typing import Any

from bot.sealing.check import Verdict, check
from bot.sealing.seals import Head, seal
from schemas.record import Record
from schemas.seals import AuditSealed
from tests.schemas.samples import headers, sample

DECISION = "twite.bot.decision.recorded.v1"


def decision(offset: int, text: str = "hello", **changed: Any) -> Record:
    data = sample(DECISION) | {"decision_id": f"decision:{offset}"} | changed
    data["output"]["text"] = text
    return Record(
        topic="bot.audit",
        partition=1,
        offset=offset,
        timestamp_ms=1_000 + offset,
        key=b"conv:1",
        value=json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode(),
        headers=headers(DECISION),
    )


def log_of(count: int) -> list[Record]:
    """Records with gaps between them, as the markers of transactions leave."""
    return [decision(2 * number, f"text {number}") for number in range(count)]


def chain_of(records: Sequence[Record], each: int = 3) -> list[AuditSealed]:
    made: list[AuditSealed] = []
    head = Head(-1, 0)
    for start in range(0, len(records), each):
        made.append(seal(head, records[start : start + each]))
        head = Head.of(made[-1])
    return made


async def judged(
    records: Sequence[Record], seals: Sequence[AuditSealed], first: int = 0, end: int | None = None
) -> Verdict:
    async def each(values: Sequence[Any]) -> Any:
        for one in values:
            yield one

    return await check(Verdict("bot.audit", 1, first, end), each(seals), each(records))
