"""The handlers of a worker: one kind for each topic, and what those of one partition share.

In: an assignment, a topic and a partition. Out: its handler. Handlers of the same partition
share one ``Knowledge``, as all topics of a conversation meet in it: what one of them decides the
others know at once. ``open`` and ``release`` go with an assignment; the views of a partition are
opened with its first topic and closed with its last.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

from aiokafka import TopicPartition

from bot import corrections, policy
from bot.activity import Activity, Counted
from bot.changes import Changes
from bot.conversation import Decision, answer
from bot.echoes import Echoes
from bot.handler import BotHandler, utc_now
from bot.held import HeldLog
from bot.knowledge import Knowledge
from bot.known import KnowledgeOfViews
from bot.memory import NoKnowledge
from bot.pins import Pins
from bot.posts import PostsHandler
from bot.presence import Presence
from bot.publishing import Publishing
from bot.quotas import Correction, Quotas
from bot.references import References, ReferencesHandler
from bot.review_handler import Ask, ReviewsHandler
from bot.values import Asked, Setup
from bot.views import said
from bot.views.references import ReferencesView
from bot.views.replies import RepliesView
from consumers.handler import Handler, StopPartition
from consumers.views.views import OpenView, Views
from model.engine import Engine
from schemas import names

INPUT_TOPICS = (
    names.FEED_MENTIONS,
    names.FEED_DIRECT_MESSAGES,
    names.FEED_POSTS,
    names.BOT_REFERENCES,
    names.BOT_REVIEWS,
)
OUTPUT_TOPICS = (
    names.BOT_REPLIES,
    names.BOT_DIRECT_REPLIES,
    names.BOT_AUDIT,
    names.BOT_AUDIT_PRIVATE,
    names.BOT_DEAD_LETTERS,
    names.BOT_DEAD_LETTERS_PRIVATE,
    names.BOT_REFERENCES,
    names.BOT_REVIEWS,
)
SILENT_TOPICS = frozenset({names.FEED_POSTS, names.BOT_REFERENCES})
"""Most of their records ask nothing of the bot, and have no outcome."""

QUICK_TOPICS = frozenset({names.FEED_POSTS, names.BOT_REFERENCES, names.BOT_REVIEWS})
"""What is deleted is told here: they are read however much there is to answer."""

WEIGHTS: Mapping[str, float] = {
    # Words that are gone must go quickly. The first two never ask the model.
    names.FEED_POSTS: 8.0,
    names.BOT_REFERENCES: 8.0,
    names.BOT_REVIEWS: 3.0,
}
"""Shares of a worker that has more to do than it can; 1 for the others."""


class Handlers:
    """Makes the handlers of one worker, on its event loop.

    ``views`` None: they are switched off. ``wait_s``: how long an answer waits for them.
    ``partitions``: how many the topics of a conversation have; ``max_attempts``: of a record.
    ``activity`` counts outcomes; ``presence`` shows private talks that an answer is on its way;
    ``held`` tells moderators which replies wait for them, ``pins`` knows the prompts they may pin.
    """

    def __init__(
        self,
        setup: Setup,
        engine: Engine,
        *,
        views: Views | None = None,
        wait_s: float = 0.0,
        partitions: int = 1,
        max_attempts: int = 5,
        quotas: Quotas | None = None,
        activity: Activity | None = None,
        presence: Presence | None = None,
        held: HeldLog | None = None,
        pins: Pins | None = None,
        now: Callable[[], datetime] = utc_now,
        counter: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._setup = setup
        self._engine = engine
        self._views = views
        self._wait_s = wait_s
        self._max_attempts = max_attempts
        self._quotas = quotas
        self._activity = activity
        self._presence = presence
        self._held = held
        self._pins = pins or Pins()
        self._now = now
        self._counter = counter
        self._echoes = Echoes(counter=counter)
        self._publishing = Publishing(setup.bot.id, now)
        self._changes = Changes(setup.bot, self._publishing, partitions)
        self._knowledge: dict[int, Knowledge] = {}
        self.on_open: Callable[[], None] = lambda: None
        """Called whenever the views of an assignment are open."""
        self._users: Counter[int] = Counter()
        self._prepared: set[TopicPartition] = set()

    @property
    def partitions(self) -> tuple[int, ...]:
        """Those of which something is assigned."""
        return tuple(self._users)

    def make(self, topic: str, partition: int) -> Handler:
        """The handler of one assignment."""
        match topic:
            case names.FEED_POSTS:
                return PostsHandler(self._changes)
            case names.BOT_REFERENCES:
                view = functools.partial(self._view, partition, ReferencesView.name)
                references = References(partition, view)
                return ReferencesHandler(self._setup.bot, self._publishing, references)
            case names.BOT_REVIEWS:
                return self._counted(self._reviews(partition))
        return self._counted(self._answers(partition))

    async def open(self, source: TopicPartition) -> None:
        """For ``Worker(prepare=)``: the views of its partition are caught up on return."""
        self._users[source.partition] += 1
        if self._views is not None:
            await self._views.open(source.partition)
        self._prepared.add(source)
        self.on_open()

    async def release(self, source: TopicPartition) -> None:
        """For ``Worker(release=)``."""
        self._users[source.partition] -= 1
        self._prepared.discard(source)
        if self._users[source.partition] <= 0:
            del self._users[source.partition]
            self._knowledge.pop(source.partition, None)
        if self._views is not None:
            await self._views.release(source.partition)

    async def published(self, source: TopicPartition, offset: int) -> Mapping[int, int]:
        """For ``Worker(published=)``: each input's decision is its outcome. It is first asked
        right after ``open``, when the views hold all that the owner before has published."""
        if self._views is None or source.topic in SILENT_TOPICS:
            return {}
        if source not in self._prepared:
            await self._views.catch_up(source.partition)
        self._prepared.discard(source)
        view = self._views.of(source.partition)[RepliesView.name]
        return said.outcomes(view.db, source.topic, offset)

    def _answers(self, partition: int) -> BotHandler:
        return BotHandler(
            self._setup,
            self._engine,
            self._knowledge_of(partition),
            quotas=self._quotas,
            echoes=self._echoes,
            changes=self._changes,
            presence=self._presence,
            held=self._held,
            pins=self._pins,
            now=self._now,
            counter=self._counter,
        )

    def _reviews(self, partition: int) -> ReviewsHandler:
        knowledge = self._knowledge_of(partition)
        return ReviewsHandler(
            self._setup,
            self._publishing,
            self._changes,
            knowledge,
            self._ask(knowledge),
            max_attempts=self._max_attempts,
        )

    def _ask(self, knowledge: Knowledge) -> Ask:
        """Answers under the rules of a review, which take no share but that of corrections."""
        settings = policy.Settings.of(self._setup.bot, self._setup.limits)

        async def ask(asked: Asked, correction: Correction | None = None) -> Decision:
            async def decide(asked: Asked) -> policy.Verdict:
                return await corrections.decide(
                    asked, settings, knowledge, self._quotas, correction, self._now
                )

            return await answer(
                asked,
                self._pins.setup_for(self._setup, asked.data, knowledge),
                self._engine,
                knowledge,
                decide=decide,
                now=self._now,
                counter=self._counter,
            )

        return ask

    def _knowledge_of(self, partition: int) -> Knowledge:
        if partition not in self._knowledge:
            self._knowledge[partition] = self._new_knowledge(partition)
        return self._knowledge[partition]

    def _new_knowledge(self, partition: int) -> Knowledge:
        if self._views is None:
            return NoKnowledge()
        open_views = functools.partial(self._views.of, partition)
        return KnowledgeOfViews(open_views, self._setup.bot.id, wait_s=self._wait_s)

    def _view(self, partition: int, name: str) -> OpenView | None:
        """Raises ``StopPartition`` where the views were closed meanwhile."""
        if self._views is None:
            return None
        opened = self._views.of(partition).get(name)
        if opened is None:
            raise StopPartition(f"the view {name} is closed")
        return opened

    def _counted(self, handler: Handler) -> Handler:
        return handler if self._activity is None else Counted(handler, self._activity)
