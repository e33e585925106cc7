"""Play records into the feed topics and follow each to its one outcome.

Scenes come in (a record, and how to show it); they are produced in order while the outcome
topics are read. Each outcome is handed to ``show`` as it lands. Questions go out at once, one
behind the other; a change (an edit, a deletion, what an account wants, ``/forget``) is played
when everything before it has its outcome, and what comes behind it when all that follows from it
is known: the reviews of the replies that were built on the post (``bot/chain.py``), each with an
outcome that is shown with the change. A change of which nothing came is shown with none.

In the end everything that was committed meanwhile is read once more from the start, so that the
``Report`` can say not only that each input had an outcome, but that none had two.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from bot import forget
from bot.ask import publish
from bot.chain import TOPICS, Chain, open_chain, origin_of
from bot.clients import producer, require_topics
from bot.errors import Trouble
from bot.feed import Entry
from bot.observe import Outcome, Outcomes, Position, open_reader, read_all
from bot.scene import Scene, scene_of, type_of
from bot.settings import KafkaSettings
from schemas import names
from schemas.codes import Outcome as Kind

ANSWERED_TOPICS = frozenset({names.FEED_MENTIONS, names.FEED_DIRECT_MESSAGES})
CHANGES = frozenset(
    {
        names.POST_EDITED,
        names.POST_DELETED,
        names.MESSAGE_EDITED,
        names.MESSAGE_DELETED,
        names.ACCOUNT_CHANGED,
    }
)
UNANSWERED_CHANGES = CHANGES - {names.MESSAGE_EDITED, names.MESSAGE_DELETED}
"""Those without an outcome of their own."""


@dataclass(slots=True)
class Report:
    """What came of a feed; ``problems`` is empty when every input had exactly one outcome.

    ``played`` counts all records; ``inputs`` those on topics that the bot answers, and the
    reviews that came of them.
    """

    played: int = 0
    inputs: int = 0
    replied: int = 0
    corrected: int = 0
    retracted: int = 0
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
            case Kind.CORRECTED:
                self.corrected += 1
            case Kind.RETRACTED:
                self.retracted += 1
            case Kind.REPLIED:
                self.replied += 1


@dataclass(slots=True)
class Player:
    """Plays one feed. ``show`` gets each outcome with its scene, and None for a change of which
    nothing came. ``alive`` is awaited at every turn and may raise to end the play;
    ``patience_s`` is how long nothing may happen before the play is given up."""

    kafka: KafkaSettings
    show: Callable[[Scene, Outcome | None], None]
    alive: Callable[[], Awaitable[None]]
    patience_s: float = 300.0
    _count: int = 0
    _played: dict[Position, Scene] = field(default_factory=dict)
    _landed: dict[Position, Outcome] = field(default_factory=dict)
    _shown: set[Position] = field(default_factory=set)
    _changes: dict[Position, Scene] = field(default_factory=dict)  # not followed to their end yet
    _origins: dict[str, Scene] = field(default_factory=dict)  # by the id that reviews name
    _without: dict[str, Scene] = field(default_factory=dict)  # changes of which nothing came yet
    _waiting: bool = False  # for something that is on its way
    _turned: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, scenes: AsyncIterable[Scene]) -> Report:
        """Produce all scenes, follow them to their outcomes, and count."""
        started = time.monotonic()
        async with (
            open_reader(self.kafka, topics=TOPICS) as reader,
            open_chain(self.kafka, reader) as chain,
            producer(self.kafka) as writer,
        ):
            publishing = asyncio.create_task(
                self._publish(writer, chain, scenes), name="play the feed"
            )
            try:
                await self._follow(chain, publishing)
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

    async def _publish(
        self, writer: AIOKafkaProducer, chain: Chain, scenes: AsyncIterable[Scene]
    ) -> None:
        known: set[str] = set()
        async for scene in scenes:
            record = scene.record
            if self._changes or _needs_quiet(scene):
                await self._quiet(chain)
            if record.topic not in known:
                await require_topics(self.kafka, [record.topic])
                known.add(record.topic)
            origin = await _publish(writer, scene)
            self._count += 1
            self._note(scene, origin)
        await self._quiet(chain)

    def _note(self, scene: Scene, origin: Position) -> None:
        """A scene was played."""
        event, kind = origin_of(scene.record), type_of(scene.record)
        if origin.topic in ANSWERED_TOPICS:
            self._played[origin] = scene
        if kind in CHANGES:
            self._changes[origin] = scene
        if kind in UNANSWERED_CHANGES:
            self._without[event] = scene
        if event not in self._origins or kind in CHANGES:
            self._origins[event] = scene

    async def _quiet(self, chain: Chain) -> None:
        """Until everything has its outcome, reviews included, and none can come any more."""
        self._waiting = True
        followed = -1
        while followed < len(self._played):
            await self._until_all_landed()
            followed = len(self._played)
            posts = [one for one in self._changes if one.topic == names.FEED_POSTS]
            await chain.followed(posts, self._turn)
        self._waiting = False
        self._changes.clear()
        for scene in self._without.values():
            self.show(scene, None)
        self._without.clear()

    async def _until_all_landed(self) -> None:
        while len(self._shown) < len(self._played):
            await self._turn()

    async def _turn(self) -> None:
        """Until the reader has read once more."""
        await self._turned.wait()

    async def _follow(self, chain: Chain, publishing: "asyncio.Task[None]") -> None:
        outcomes = Outcomes()
        progress, done = time.monotonic(), self._count
        while not publishing.done():
            await self.alive()
            await self._read(chain, outcomes)
            if self._show_new() or self._count > done or not self._is_anything_due():
                progress, done = time.monotonic(), self._count
            self._turned.set()
            self._turned = asyncio.Event()
            if time.monotonic() - progress > self.patience_s:
                return
        publishing.result()  # raises what went wrong

    async def _read(self, chain: Chain, outcomes: Outcomes) -> None:
        for record in await chain.reader.read():
            if chain.take(record):
                self._take_reviews(chain)
                continue
            for outcome in outcomes.add(record):
                self._landed[outcome.input] = outcome

    def _take_reviews(self, chain: Chain) -> None:
        """Those that came of what was played here are inputs like others."""
        for review, event in chain.reviews.items():
            if event in self._origins and review not in self._played:
                self._played[review] = self._origins[event]
                self._without.pop(event, None)

    def _is_anything_due(self) -> bool:
        return self._waiting or len(self._shown) < len(self._played)

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
        if self._waiting and self._played.keys() <= self._landed.keys():
            yield "what follows from the changes did not come to its end"


async def scenes_of(entries: AsyncIterable[Entry]) -> AsyncIterator[Scene]:
    """A feed file as scenes."""
    async for entry in entries:
        yield scene_of(f"line {entry.line}", entry.output)


def _needs_quiet(scene: Scene) -> bool:
    """Whether it could change what comes of the scenes before it, which it shall not."""
    is_private = scene.record.topic == names.FEED_DIRECT_MESSAGES
    forgets = is_private and scene.text.strip().casefold() == forget.COMMAND
    return forgets or type_of(scene.record) in CHANGES


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
    decision = outcome.decision
    replies = decision.reply_ids
    silent = decision.outcome in (Kind.SKIPPED, Kind.DEAD_LETTERED)
    if bool(replies) is silent:
        yield f"{origin} is {decision.outcome} with {len(replies)} replies"
    changed = {change.data.reply_id for change in outcome.changes}
    for reply in replies:
        if reply not in changed and committed.replies[reply] != 1:
            yield f"{origin} has its reply {reply} {committed.replies[reply]} times"
    for change in outcome.changes:
        if (count := committed.times(change.data)) != 1:
            yield f"{origin} has its change of {change.data.reply_id} {count} times"
