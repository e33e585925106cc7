# mypy: ignore-errors
"""Restate: a virtual object per lane, two service processes with uvloop behind one server.

Order per key, at least once. The handler sleeps and publishes with a producer of its own; no
journal step in between (``ctx.run`` would make it slower, and the reply no more exact).
"""

import asyncio
import json
import os
import sys

import restate
from aiokafka import AIOKafkaProducer
from hypercorn.config import Config
from hypercorn.run import run
from restate.serde import BytesSerde

SPEC = json.loads(os.environ["BENCH_SPEC"])
lane = restate.VirtualObject("Lane")
_producer: list[AIOKafkaProducer] = []
_starting = asyncio.Lock()


async def producer() -> AIOKafkaProducer:
    async with _starting:
        if not _producer:
            made = AIOKafkaProducer(
                bootstrap_servers=SPEC["bootstrap"],
                linger_ms=2,
                max_batch_size=1 << 18,
                enable_idempotence=True,
            )
            await made.start()
            _producer.append(made)
    return _producer[0]


@lane.handler(input_serde=BytesSerde(), accept="*/*")
async def answer(ctx: restate.ObjectContext, value: bytes) -> None:
    seconds, tag, _ = value.split(b" ", 2)
    await asyncio.sleep(float(seconds))
    key, body = ctx.key().encode(), tag + b" " + b"r" * 200
    await (await producer()).send_and_wait(SPEC["outputs"][0], body, key)


app = restate.app(services=[lane], protocol="bidi")

if __name__ == "__main__":
    config = Config()
    config.application_path = "restate_app:app"
    config.bind = [SPEC["bind"]]
    config.workers = 2
    config.worker_class = "uvloop"
    config.h2_max_concurrent_streams = 2000
    config.loglevel = "ERROR"
    config.keep_alive_max_requests = 10_000_000
    sys.exit(run(config))
