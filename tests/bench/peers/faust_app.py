# mypy: ignore-errors
"""Faust (faust-streaming). Two ways, since it can have either concurrency or order:

- ``mode`` "concurrent": an agent of ``concurrency`` = slots: no order, at least once (what it
  calls exactly once loses data, see the issue's findings).
- ``mode`` "in-order": one actor per partition (``isolated_partitions``), in order.
"""

import asyncio
import json
import os
import sys
import tempfile

import faust

SPEC = json.loads(sys.argv.pop(1))
CONCURRENT = SPEC["mode"] == "concurrent"

app = faust.App(
    SPEC["group"],
    broker=f"aiokafka://{SPEC['bootstrap']}",
    datadir=tempfile.mkdtemp(prefix="faust-", dir=SPEC["folder"]),
    topic_disable_leader=True,
    topic_allow_declare=False,
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=SPEC["session_timeout_ms"] / 1000,
    broker_heartbeat_interval=1.5,
    broker_commit_interval=1.0,
    stream_buffer_maxsize=4096,
    stream_wait_empty=False,
    stream_publish_on_commit=False,
    producer_linger=0.002,
    producer_max_batch_size=1 << 18,
    web_enabled=False,
)
raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
source = app.topic(SPEC["source"], **raw)
out = app.topic(SPEC["outputs"][0], **raw)
shape = {"concurrency": SPEC["slots"]} if CONCURRENT else {"isolated_partitions": True}


@app.agent(source, **shape)
async def answer(stream) -> None:
    async for event in stream.events():
        seconds, tag, _ = event.value.split(b" ", 2)
        await asyncio.sleep(float(seconds))
        await (await out.send(key=event.key, value=tag + b" " + b"r" * 200))


if __name__ == "__main__":
    os.chdir(SPEC["folder"])
    sys.argv += ["-L", "uvloop", "worker", "-l", "error", "--without-web"]
    app.main()
