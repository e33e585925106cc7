# mypy: ignore-errors
"""Quix Streams: one record at a time, in order, in transactions (``exactly-once``).

It has no concurrency within a process, so the handler's time is slept away in its one thread;
``slots`` mean nothing to it.
"""

import json
import sys
import tempfile
import time

from quixstreams import Application

SPEC = json.loads(sys.argv[1])

app = Application(
    broker_address=SPEC["bootstrap"],
    consumer_group=SPEC["group"],
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=1.0,
    state_dir=tempfile.mkdtemp(prefix="quix-", dir=SPEC["folder"]),
    auto_create_topics=False,
    use_changelog_topics=False,
    loglevel="WARNING",
    consumer_extra_config={"session.timeout.ms": SPEC["session_timeout_ms"]},
    producer_extra_config={"linger.ms": 2},
)
serde = {"value_deserializer": "bytes", "key_deserializer": "bytes"}
source = app.topic(SPEC["source"], **serde)
out = app.topic(SPEC["outputs"][0], value_serializer="bytes", key_serializer="bytes")


def answer(value: bytes) -> bytes:
    seconds, tag, _ = value.split(b" ", 2)
    time.sleep(float(seconds))
    return tag + b" " + b"r" * 200


if __name__ == "__main__":
    app.dataframe(source).apply(answer).to_topic(out)
    app.run()
