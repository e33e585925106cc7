"""The views of a worker without the worker: opened for all partitions, measured, closed.

Tells ``ready`` with the seconds from the first connection until all are caught up, processor
seconds, peak memory, rows' bytes and the records that were applied. ``bare`` in its spec: a view
that keeps nothing, which is what reading alone costs.
"""

import asyncio
import resource
import sqlite3
import time
from pathlib import Path
from typing import Any

import structlog

from bot.clients import cluster_id
from bot.settings import KafkaSettings
from bot.views.conversation import ConversationView
from consumers.metrics import Metrics
from consumers.views.follow import FollowConfig
from consumers.views.view import View
from consumers.views.views import Views
from schemas.record import Record
from tests.bench.programs.toy import spec, tell


class BareView(ConversationView):
    """Reads the same topics and writes nothing but its offsets."""

    name = "bare"

    def create(self, db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE kept (at INTEGER PRIMARY KEY)")

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        return

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        return None


async def main() -> None:
    """Open, tell, close."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    asked = spec()
    view: View = BareView("bot") if asked.get("bare") else ConversationView("bot")
    cluster = await cluster_id(KafkaSettings(bootstrap_servers=asked["bootstrap"]))
    config = FollowConfig(bootstrap_servers=asked["bootstrap"])
    metrics = Metrics()
    views = Views(config, Path(asked["directory"]), cluster, [view], metrics)
    started, before = time.perf_counter(), time.process_time()
    await views.start()
    await asyncio.gather(*(views.open(p) for p in range(asked["partitions"])))
    found: dict[str, Any] = {
        "seconds": time.perf_counter() - started,
        "processor_s": time.process_time() - before,
        "records": metrics.view_records.total,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    await views.close()
    tell("ready", **found, file_bytes=_size(Path(asked["directory"]), view.name))


def _size(directory: Path, view: str) -> int:
    return sum(path.stat().st_size for path in directory.glob(f"*/{view}/*.sqlite"))


if __name__ == "__main__":
    asyncio.run(main())
