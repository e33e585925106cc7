"""What the tests of the whole way share: settings for the shared broker, and a demo on it.

All of them use one consumer group. The topics of the contract have fixed names, so a second
group would answer what the first one has answered.
"""

import functools
import io
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from rich.console import Console

from bot.demo import Demo
from bot.observe import Outcome
from bot.scene import Scene
from bot.settings import EchoSettings, KafkaSettings, ModelSettings, Settings, ViewsSettings
from tests.conftest import Kafka

GROUP = "twite-tests"


@functools.cache
def _views() -> "tempfile.TemporaryDirectory[str]":
    """A folder for the views of all workers of this run; gone at its end."""
    return tempfile.TemporaryDirectory(prefix="twite-test-views-", ignore_cleanup_errors=True)


def echo_settings(kafka: Kafka, latency_ms: float = 0.0) -> Settings:
    """A worker on the shared broker that answers without a model."""
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=GROUP,
            group_instance_id="the-worker",  # back at once after a kill: one worker at a time
        ),
        model=ModelSettings(engine="echo", echo=EchoSettings(latency_ms=latency_ms)),
        views=ViewsSettings(directory=Path(_views().name)),
    )


def demo_on(
    settings: Settings,
    folder: Path,
    *,
    feed: Path | None = None,
    landed: Callable[[Outcome], None] = lambda outcome: None,
    through: Callable[[AsyncIterator[Scene]], AsyncIterator[Scene]] = lambda scenes: scenes,
) -> tuple[Demo, io.StringIO]:
    """A demo without a terminal on a broker that is there, and what it prints. ``through``: its
    scenes go through that."""
    shown = io.StringIO()

    class Through(Demo):
        def _scenes(self) -> AsyncIterator[Scene]:
            return through(super()._scenes())

    demo = Through(
        settings,
        Console(file=shown, width=120),
        own_broker=False,
        feed=str(feed) if feed else None,
        data_dir=folder,
        landed=landed,
    )
    return demo, shown
