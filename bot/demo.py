"""``twite demo``: everything on one machine, from nothing to the first reply.

Settings come in; stages go by with a line each: Kafka, topics, worker with its model, the feed
with each input beside its outcome, the summary, and at a terminal a talk. Whatever ends the
demo ends its processes. ``run`` returns 0 only if every input had exactly one outcome.
"""

import asyncio
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from bot.ask import open_asker
from bot.clients import options
from bot.demo_feed import scenes
from bot.feed import open_feed
from bot.observe import Outcome
from bot.play import Player, Report, Scene, scenes_of
from bot.repl import Talk, typed_lines
from bot.settings import Settings
from bot.show import outcome_text, plain
from bot.worker_process import WorkerProcess
from infra.broker import LocalBroker
from infra.topics import create_topics

ANSWER_S = 300.0  # how long the talk waits for an answer
WATCH_S = 0.5  # between two looks at the worker


class Demo:
    """One run of the demo. ``landed`` is called with each outcome, after it was printed."""

    def __init__(
        self,
        settings: Settings,
        console: Console,
        *,
        own_broker: bool = True,
        feed: str | None = None,
        data_dir: Path | None = None,
        talk: bool = False,
        landed: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.settings = settings
        self.console = console
        self.report = Report()
        self.worker: WorkerProcess | None = None
        self._own_broker = own_broker
        self._feed = feed
        self._data_dir = data_dir
        self._talk = talk
        self._landed = landed
        self._number = 0
        self._started = time.monotonic()

    async def run(self) -> int:
        """All stages; the exit status."""
        async with AsyncExitStack() as stack:
            await self._start_kafka(stack)
            await self._create_topics()
            worker = await self._start_worker(stack)
            self.report = await self._play(worker)
            self._print_summary()
            if self._talk:
                await self._talk_at_terminal(worker)
        return 1 if self.report.problems else 0

    async def _start_kafka(self, stack: AsyncExitStack) -> None:
        if not self._own_broker:
            self._stage(f"Kafka: using {self.settings.kafka.bootstrap_servers}")
            return
        self._stage("Kafka: starting a broker on this machine")
        folder = self._data_dir / "kafka" if self._data_dir else None
        broker = await stack.enter_async_context(
            LocalBroker(data_dir=folder, progress=self._detail)
        )
        # A static member comes back at once after a kill; here nobody else has its name.
        own = {"bootstrap_servers": broker.bootstrap_servers, "group_instance_id": "demo-worker"}
        kafka = self.settings.kafka.model_copy(update=own)
        self.settings = self.settings.model_copy(update={"kafka": kafka})

    async def _create_topics(self) -> None:
        self._stage("Topics: creating what is not there")
        kafka = self.settings.kafka
        await create_topics(
            kafka.bootstrap_servers,
            partitions=kafka.partitions,
            replication=kafka.replication,
            client=options(kafka),
        )

    async def _start_worker(self, stack: AsyncExitStack) -> WorkerProcess:
        self._stage("Worker: starting one in its own process")
        folder = self._data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="twite-demo-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = WorkerProcess(self.settings, folder / "worker.log", self._detail)
        stack.push_async_callback(self.worker.stop)
        await self.worker.start()
        return self.worker

    async def _play(self, worker: WorkerProcess) -> Report:
        self._stage(f"Feed: playing {self._feed or 'the built-in one'}")
        self.console.print()
        player = Player(self.settings.kafka, self._show, worker.keep_alive)
        return await player.play(self._scenes())

    async def _scenes(self) -> AsyncIterator[Scene]:
        if self._feed is not None:
            async for scene in scenes_of(open_feed(self._feed)):
                yield scene
            return
        for scene in scenes(self.settings.bot, f"demo-{uuid.uuid4().hex[:8]}"):
            yield scene

    def _show(self, scene: Scene, outcome: Outcome) -> None:
        self._number += 1
        title = Text.assemble((f"{self._number}. ", "bold"), (plain(scene.title), "dim"))
        above = [Text(plain(f"{who}: {text}"), "dim") for who, text in scene.above]
        words = Text.assemble((plain(f"{scene.who}: "), "bold cyan"), plain(scene.text))
        body = Group(*above, words, outcome_text(outcome))
        self.console.print(title, Padding(body, (0, 0, 1, 3), expand=False), sep="\n")
        self._landed(outcome)

    def _print_summary(self) -> None:
        report = self.report
        lines = [f"{report.inputs} inputs in {report.seconds:.1f} s: {report.replied} replied"]
        lines += [f"skipped, {reason}: {n}" for reason, n in sorted(report.skipped.items())]
        lines += [f"dead letter, {code}: {n}" for code, n in sorted(report.dead_lettered.items())]
        lines.append(f"{report.replies_per_minute:.0f} replies a minute")
        self.console.print(Text("\n    ".join(lines), "bold"))
        if report.problems:
            for problem in report.problems:
                self.console.print(Text(f"wrong: {problem}", "bold red"))
        else:
            self.console.print(Text("every input had exactly one outcome", "bold green"))

    async def _talk_at_terminal(self, worker: WorkerProcess) -> None:
        self._stage("Talk: write to the bot")
        async with open_asker(self.settings.kafka) as asker:
            talk = Talk(self.settings.bot, self.console, lambda event: asker.ask(event, ANSWER_S))
            talking = asyncio.create_task(talk.run(typed_lines(self.console)), name="talk")
            try:
                while not talking.done():
                    await worker.keep_alive()
                    await asyncio.wait([talking], timeout=WATCH_S)
                talking.result()
            finally:
                talking.cancel()

    def _stage(self, line: str) -> None:
        self.console.print(Text.assemble((f"[{self._elapsed()}] ", "dim"), (line, "bold")))

    def _detail(self, line: str) -> None:
        self.console.print(Text(f"[{self._elapsed()}]   {line}", "dim"))

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started:6.1f} s"
