"""Play records into the feed topics and follow each to its one outcome.

Scenes come in (a record, and how to show it); they are produced in order while the outcome
topics are read. Each outcome is handed to ``show`` as it lands. In the end everything that was
committed meanwhile is read once more from the start, so that the ``Report`` can say not only
that each input had an outcome, but that none had two.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from bot.ask import publish
from bot.clients import producer, require_topics
from bot.errors import Trouble
from bot.feed import Entry
from bot.observe import Outcome, OutcomeReader, Outcomes, Position, open_reader, read_all
from bot.settings import KafkaSettings
from schemas.codes import Outcome as Kind
from schemas.names import FEED_DIRECT_MESSAGES, FEED_MENTIONS
from schemas.record import Output

SHOWN_ABOVE = 3  # posts of a thread that are shown above the one that asks
ANSWERED_TOPICS = frozenset({FEED_MENTIONS, FEED_DIRECT_MESSAGES})


@dataclass(frozen=True, slots=True)
class Scene:
    """One record to play, and how to show it: what is going on, and who writes what.

    ``above`` holds the last posts that the event carries beside it, each as who and what;
    ``number`` is its place in the feed, from 1, where somebody counts.
    """

    title: str
    record: Output
    who: str
    text: str
    above: tuple[tuple[str, str], ...] = ()
    number: int = 0


@dataclass(slots=True)
class Report:
    """What came of a feed; ``problems`` is empty when every input had exactly one outcome.

    ``played`` counts all records, ``inputs`` those on topics that the bot answers.
    """

    played: int = 0
    inputs: int = 0
    replied: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dead_lettered: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def replies_per_minute(self) -> float:
        return 60 * self.replied / self.seconds if self.seconds else 0.0

    def count(self, outcome: Outcome) -> None:
        """Add one outcome."""
        reason = outcome.decision.reason or "?"
        match outcome.decision.outcome:
            case Kind.SKIPPED:
                self.skipped[reason] += 1
            case Kind.DEAD_LETTERED:
                self.dead_lettered[reason] += 1
            case _:
                self.replied += 1


@dataclass(slots=True)
class Player:
    """Plays one feed. ``alive`` is awaited at every turn and may raise to end the play;
    ``patience_s`` is how long nothing may happen before the play is given up."""

    kafka: KafkaSettings
    show: Callable[[Scene, Outcome], None]
    alive: Callable[[], Awaitable[None]]
    patience_s: float = 300.0
    _count: int = 0
    _played: dict[Position, Scene] = field(default_factory=dict)
    _landed: dict[Position, Outcome] = field(default_factory=dict)
    _shown: set[Position] = field(default_factory=set)

    async def play(self, scenes: AsyncIterable[Scene]) -> Report:
        """Produce all scenes, follow them to their outcomes, and count."""
        started = time.monotonic()
        async with open_reader(self.kafka) as reader, producer(self.kafka) as writer:
            publishing = asyncio.create_task(self._publish(writer, scenes), name="play the feed")
            try:
                await self._follow(reader, publishing)
            finally:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)
        seconds = time.monotonic() - started
        report = Report(played=self._count, inputs=len(self._played), seconds=seconds)
        for origin in self._shown:
            report.count(self._landed[origin])
        committed = await read_all(self.kafka, reader.starts)
        report.problems = list(self._problems(committed))
        return report

    async def _publish(self, writer: AIOKafkaProducer, scenes: AsyncIterable[Scene]) -> None:
        known: set[str] = set()
        async for scene in scenes:
            if scene.record.topic not in known:
                await require_topics(self.kafka, [scene.record.topic])
                known.add(scene.record.topic)
            origin = await _publish(writer, scene)
            self._count += 1
            if scene.record.topic in ANSWERED_TOPICS:
                self._played[origin] = scene

    async def _follow(self, reader: OutcomeReader, publishing: "asyncio.Task[None]") -> None:
        outcomes = Outcomes()
        progress = time.monotonic()
        while not (publishing.done() and len(self._shown) == len(self._played)):
            if publishing.done():
                publishing.result()  # raises what went wrong
            await self.alive()
            for record in await reader.read():
                for outcome in outcomes.add(record):
                    self._landed[outcome.input] = outcome
            if self._show_new():
                progress = time.monotonic()
            if time.monotonic() - progress > self.patience_s:
                return
        publishing.result()

    def _show_new(self) -> bool:
        new = (self._landed.keys() & self._played.keys()) - self._shown
        for origin in sorted(new, key=lambda origin: str(self._landed[origin].at)):
            self._shown.add(origin)
            self.show(self._played[origin], self._landed[origin])
        return bool(new)

    def _problems(self, committed: Outcomes) -> Iterator[str]:
        for origin in self._played:
            if origin not in self._landed:
                yield f"{origin} has no outcome"
                continue
            outcome = self._landed[origin]
            letters = int(outcome.decision.outcome is Kind.DEAD_LETTERED)
            if committed.decisions[origin] != 1:
                yield f"{origin} has {committed.decisions[origin]} decisions"
            if committed.dead_letters[origin] != letters:
                yield f"{origin} has {committed.dead_letters[origin]} dead letters"
            yield from _reply_problems(origin, outcome, committed)


async def scenes_of(entries: AsyncIterable[Entry]) -> AsyncIterator[Scene]:
    """A feed file as scenes."""
    async for entry in entries:
        yield scene_of(f"line {entry.line}", entry.output)


def scene_of(title: str, record: Output) -> Scene:
    """A record as a scene, told from its bytes as far as any bytes can tell."""
    try:
        data = json.loads(record.value or b"")
        who, text = _writing(data.get("post") or data["message"])
        above = [_writing(post) for post in data.get("ancestors", [])[-SHOWN_ABOVE:]]
        if quoted := data.get("quoted") or (data.get("message") or {}).get("quoted"):
            above.append(_writing(quoted, " (quoted)"))
        return Scene(title, record, who, text, tuple(above))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Scene(title, record, "(no event)", f"{len(record.value or b'')} bytes")


def _writing(post: Mapping[str, Any], note: str = "") -> tuple[str, str]:
    author = post["author"]
    kind = " (bot)" if author.get("bot") else " (private)" if "participants" in post else ""
    return f"@{author['handle']}{kind}{note}", str(post["text"])


async def _publish(writer: AIOKafkaProducer, scene: Scene) -> Position:
    try:
        return await publish(writer, scene.record)
    except KafkaError as error:
        raise Trouble(
            f"the broker refused the record ({type(error).__name__}).",
            where=f"{scene.title}, topic {scene.record.topic}",
            todo="Take it out of the feed, or raise the topic's limit.",
        ) from error


def _reply_problems(origin: Position, outcome: Outcome, committed: Outcomes) -> Iterator[str]:
    replies = outcome.decision.reply_ids
    if bool(replies) is not (outcome.decision.outcome is Kind.REPLIED):
        yield f"{origin} is {outcome.decision.outcome} with {len(replies)} replies"
    for reply in replies:
        if committed.replies[reply] != 1:
            yield f"{origin} has its reply {reply} {committed.replies[reply]} times"
