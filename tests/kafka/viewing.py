"""Views to try with real Kafka: topics, records, and a process that follows and can be killed.

    python -m tests.kafka.viewing BOOTSTRAP DIRECTORY TOPIC PARTITION

The process opens the view of that partition and prints a line once it is caught up.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bot.clients import cluster_id
from bot.remembering import views_of
from bot.settings import Settings
from consumers.metrics import Metrics
from consumers.views.follow import FollowConfig
from consumers.views.view import View
from consumers.views.views import OpenView, Views
from tests.consumers.views.notes import Notes

CLUSTER = "cluster"


def view_of(*topics: str) -> Notes:
    return Notes(topics)


@asynccontextmanager
async def viewing(
    config: FollowConfig, directory: Path, views: Sequence[View], partitions: Sequence[int] = (0,)
) -> AsyncIterator[Views]:
    """Views that are open, and closed at the end."""
    views_ = Views(config, directory, CLUSTER, views)
    await views_.start()
    try:
        for partition in partitions:
            await views_.open(partition)
        yield views_
    finally:
        await views_.close()


@asynccontextmanager
async def viewing_bot(settings: Settings, partitions: Sequence[int]) -> AsyncIterator[Views]:
    """The bot's own views, as a worker opens them."""
    cluster = await cluster_id(settings.kafka)
    views = views_of(settings, cluster, Metrics())
    assert views is not None
    await views.start()
    try:
        for partition in partitions:
            await views.open(partition)
        yield views
    finally:
        await views.close()


def texts(view: OpenView) -> list[bytes]:
    """In the order of the log."""
    return [row[0] for row in view.rows("SELECT text FROM note ORDER BY topic, partition, at")]


def is_caught_up(views: Views) -> bool:
    """Nothing that is open is being read anew."""
    return all(state.ready for state in views.states())


async def reached(view: OpenView, timeout_s: float = 30.0) -> None:
    """Everything that is on the log now is in the view."""
    assert await view.reached(round(time.time() * 1000), timeout_s)


async def main(arguments: Sequence[str]) -> None:
    """Follow until killed."""
    bootstrap_servers, directory, topic, partition = arguments
    config = FollowConfig(bootstrap_servers=bootstrap_servers)
    async with viewing(config, Path(directory), [view_of(topic)], [int(partition)]) as views:
        print("caught up", len(texts(views.of(int(partition))["notes"])), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
