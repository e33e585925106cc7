# mypy: ignore-errors
"""FastStream. Two ways, since it can have either concurrency or order:

- ``mode`` "concurrent": ``max_workers`` = slots. Offsets are committed by a timer, handled or
  not (``ACK_FIRST``, the only policy that allows this), and there is no order.
- ``mode`` "in-order": ``max_workers`` = partitions and ``ACK``, one record of a partition at a
  time: in order, at least once.
"""

import asyncio
import json
import logging
import sys

import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage

SPEC = json.loads(sys.argv[1])
CONCURRENT = SPEC["mode"] == "concurrent"

broker = KafkaBroker(
    SPEC["bootstrap"], logger=None, linger_ms=2, max_batch_size=1 << 18, enable_idempotence=True
)
app = FastStream(broker, logger=None)


@broker.subscriber(
    SPEC["source"],
    group_id=SPEC["group"],
    auto_offset_reset="earliest",
    session_timeout_ms=SPEC["session_timeout_ms"],
    heartbeat_interval_ms=1500,
    auto_commit_interval_ms=1000,
    max_records=500,
    max_workers=SPEC["slots"] if CONCURRENT else SPEC["partitions"],
    ack_policy=AckPolicy.ACK_FIRST if CONCURRENT else AckPolicy.ACK,
)
async def answer(body: bytes, message: KafkaMessage) -> None:
    seconds, tag, _ = body.split(b" ", 2)
    await asyncio.sleep(float(seconds))
    await broker.publish(tag + b" " + b"r" * 200, SPEC["outputs"][0], key=message.raw_message.key)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    uvloop.run(app.run())
