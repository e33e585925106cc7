"""``twite demo``: everything on one machine, from nothing to the first reply.

Settings come in; stages go by with a line each: Kafka, topics, worker with its model, the feed
with each input beside its outcome, the summary, and at a terminal a talk. Whatever ends the
demo ends its processes. ``run`` returns 0 only if every input had exactly one outcome.
"""

import asyncio
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bot.ask import open_asker
from bot.clients import options
from bot.demo_feed import scenes
from bot.feed import NOTHING, STDIN, check_file, open_feed
from bot.observe import Outcome
from bot.play import Player, Report, scenes_of
from bot.repl import Talk, typed_lines
from bot.scene import Scene
from bot.sealing.sealer import seal_all
from bot.settings import Settings
from bot.show import Indented, outcome_text, plain
from bot.worker_process import WorkerProcess
from infra.broker import LocalBroker
from infra.topics import create_topics
from schemas.replies import ReplyCorrected

WITHOUT = "taken note of; no reply changes"
ANSWER_S = 300.0  # how long the talk waits for an answer
VIEWS_MS = 10_000  # an answer waits so long for the views: nothing played here may be overlooked
WATCH_S = 0.5  # between two looks at the worker
SEALED_S = 5.0  # for the last seal, once the worker is gone
INTERRUPTED_S = 1.0  # what a worker may still do when the demo is broken off


class Demo:
    """One run of the demo. ``landed`` is called with each outcome, after it was printed.

    Where ``starts_worker`` is False, the workers that are there answer.
    """

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
        self.starts_worker = True
        self.worker: WorkerProcess | None = None
        self._own_broker = own_broker
        self._feed = feed
        self._data_dir = data_dir
        self._talk = talk
        self._landed = landed
        self._said: dict[str, str] = {}  # what each reply says, by its id
        self._started = time.monotonic()

    def check(self) -> None:
        """Before anything is started: a file that cannot be played as a whole is ``Trouble``."""
        if self._feed not in (None, STDIN):
            check_file(Path(str(self._feed)))

    async def run(self) -> int:
        """All stages; the exit status: 0, 1 for a wrong outcome, 2 where nothing was played."""
        async with AsyncExitStack() as stack:
            await self._start_kafka(stack)
            await self._create_topics()
            if self._own_broker:
                stack.push_async_exit(self._seal())
            if self.starts_worker:
                await self._start_worker(stack)
            else:
                self._stage("Worker: those that are there answer")
            self.report = await self._play()
            self._print_summary()
            if self._talk:
                await self._talk_at_terminal()
        if self.report.problems:
            return 1
        return 0 if self.report.played else NOTHING

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

    def _seal(self) -> Callable[..., Awaitable[None]]:
        """Seals the decisions beside the worker, as ``twite audit seal`` does; call what is
        returned to stop that."""
        stop = asyncio.Event()
        sealing = asyncio.create_task(seal_all(self.settings.kafka, stop), name="seal the audit")

        async def stopped(*_: object) -> None:
            stop.set()
            await asyncio.wait([sealing], timeout=SEALED_S)
            sealing.cancel()
            await asyncio.gather(sealing, return_exceptions=True)

        return stopped

    async def _start_worker(self, stack: AsyncExitStack) -> None:
        self._stage("Worker: starting one in its own process")
        folder = self._data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="twite-demo-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        views = self.settings.views
        changes: dict[str, object] = {"wait_ms": max(views.wait_ms, VIEWS_MS)}
        if self._own_broker and views.directory is None:
            changes["directory"] = folder / "views"
        self.settings = self.settings.model_copy(update={"views": views.model_copy(update=changes)})
        self.worker = WorkerProcess(self.settings, folder / "worker.log", self._detail)
        stack.push_async_exit(self._stop_worker)
        await self.worker.start()

    async def _keep_alive(self) -> None:
        if self.worker is not None:
            await self.worker.keep_alive()

    async def _stop_worker(self, kind: type[BaseException] | None, *_: object) -> None:
        """In a demo that was broken off nobody waits for what is in flight."""
        if self.worker is not None:
            await self.worker.stop(INTERRUPTED_S if kind else None)

    async def _play(self) -> Report:
        self._stage(f"Feed: playing {self._feed or 'the built-in one'}")
        self.console.print()
        player = Player(self.settings.kafka, self._show, self._keep_alive)
        return await player.play(self._scenes())

    async def _scenes(self) -> AsyncIterator[Scene]:
        number = 0
        async for scene in self._unnumbered():
            number += 1
            yield replace(scene, number=number)

    async def _unnumbered(self) -> AsyncIterator[Scene]:
        if self._feed is not None:
            async for scene in scenes_of(open_feed(self._feed)):
                yield scene
            return
        for scene in scenes(self.settings.bot, f"demo-{uuid.uuid4().hex[:8]}"):
            yield scene

    def _show(self, scene: Scene, outcome: Outcome | None) -> None:
        title = Text.assemble((f"{scene.number}. ", "bold"), (plain(scene.title), "dim"))
        above = [Text(plain(f"{who}: {text}"), "dim") for who, text in scene.above]
        words = Text.assemble((plain(f"{scene.who}: "), "bold cyan"), plain(scene.text))
        came = [Text(WITHOUT, "dim")] if outcome is None else self._came(outcome)
        self.console.print(Indented(title, 0))
        self.console.print(Indented(Group(*above, words, *came), 3))
        self.console.print()
        if outcome is not None:
            self._landed(outcome)

    def _came(self, outcome: Outcome) -> list[RenderableType]:
        """The outcome, and before it what the replies said that it changes."""
        before = [self._said.get(change.data.reply_id) for change in outcome.changes]
        for reply in outcome.replies:
            self._said[reply.data.reply_id] = reply.data.text
        for change in outcome.changes:
            if isinstance(change.data, ReplyCorrected):
                self._said[change.data.reply_id] = change.data.text
        lines = [Text(plain(f"the bot had said: {text}"), "dim") for text in before if text]
        return [*lines, outcome_text(outcome)]

    def _print_summary(self) -> None:
        report = self.report
        if not report.inputs:
            self._print_nothing()
            return
        lines = [f"{report.inputs} inputs in {report.seconds:.1f} s: {report.replied} replied"]
        lines += [f"corrected: {report.corrected}"] if report.corrected else []
        lines += [f"retracted: {report.retracted}"] if report.retracted else []
        lines += [f"skipped, {reason}: {n}" for reason, n in sorted(report.skipped.items())]
        lines += [f"dead letter, {code}: {n}" for code, n in sorted(report.dead_lettered.items())]
        lines.append(f"{report.replies_per_minute:.0f} replies a minute")
        self.console.print(Text("\n    ".join(lines), "bold"))
        if report.problems:
            for problem in report.problems:
                self.console.print(Text(f"wrong: {problem}", "bold red"))
        else:
            self.console.print(Text("every input had exactly one outcome", "bold green"))

    def _print_nothing(self) -> None:
        played = self.report.played
        records = "1 record" if played == 1 else f"{played} records"
        what = f"{records} played, none of which the bot answers" if played else "nothing to play"
        self.console.print(Text(what, "bold" if played else "bold yellow"))

    async def _talk_at_terminal(self) -> None:
        self._stage("Talk: write to the bot")
        async with open_asker(self.settings.kafka) as asker:
            talk = Talk(
                self.settings.bot,
                self.console,
                lambda event: asker.ask(event, ANSWER_S),
                lambda event: asker.change(event, ANSWER_S),
            )
            talking = asyncio.create_task(talk.run(typed_lines(self.console)), name="talk")
            try:
                while not talking.done():
                    await self._keep_alive()
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
