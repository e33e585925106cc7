"""The whole way of taking back in one process: any order of events, of topics and of crashes.

Every topic has one partition and is a list. ``World.step`` handles the next record of a topic as
a worker would, and a crash forgets what was only in memory. Whatever the order, in the end each
reply says what it would say today, or was taken back once.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.handlers import INPUT_TOPICS, Handlers
from bot.knowledge import ReplySet
from bot.known import KnowledgeOfViews
from bot.views import VIEWS, bot_views
from bot.views.records import own_event
from consumers.handler import Handler, Job, RetryLater
from consumers.views.view import View
from consumers.views.views import ViewLost
from model.echo import EchoEngine
from schemas import codec, names
from schemas.feed import DeletedBy, MentionCreated, Post, PostCreated, PostDeleted, PostEdited
from schemas.record import Output, Record
from tests.bot.make import BOB, BOT, NOW, NOW_MS, asked, envelope, mention_facet, post, setup
from tests.bot.views.logs import built

PLAIN, THREADED, ROOT, QUOTE = "at://plain", "at://threaded", "at://root", "at://quote"
URIS = (PLAIN, THREADED, ROOT, QUOTE)
CALL = "@twite"


class Rows:
    """An open view, as the handlers read it. It takes records in when somebody waits for them,
    or when it likes."""

    def __init__(self, view: View) -> None:
        self.db = built(view, [])
        self.positions: dict[str, int] = {}
        self.stuck = False
        self._view = view
        self._waiting: list[Record] = []

    @property
    def as_of_ms(self) -> int:
        return 0 if self._waiting else NOW_MS * 2

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
        if not self.stuck:
            self.catch_up()
        return not self._waiting

    def put(self, record: Record) -> None:
        if record.topic in self._view.topics:
            self._waiting.append(record)

    def catch_up(self) -> None:
        for record in self._waiting:
            self._view.apply(self.db, record)
            self.positions[f"{record.topic}/0"] = record.offset + 1
        self._waiting = []

    def rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        return self.db.execute(sql, parameters).fetchall()

    def lost(self, error: sqlite3.Error) -> ViewLost:
        raise error


class World:
    """Topics, views that lag behind them, and the handlers of a worker."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {}
        self.done: Counter[str] = Counter()
        self.uncommitted: dict[str, list[Sequence[Output]]] = {}  # by topic of the input
        self.views = {view.name: Rows(view) for view in bot_views(BOT.id)}
        self.posts = {uri: _first(uri) for uri in URIS}
        self.deleted: set[str] = set()
        self.asked: set[str] = set()
        self.crash()

    # The worker.

    def crash(self) -> None:
        """Another worker goes on, with views that were caught up before it reads anything; what
        is on the topics is all that it knows, and what was not committed is done again."""
        for topic, outputs in self.uncommitted.items():
            self.done[topic] -= len(outputs)
        self.uncommitted = {}
        self.catch_up()
        self.engine = self.new_engine()
        made = self.new_handlers()
        self.opened: dict[str, Job] = {}
        self.handlers: dict[str, Handler] = {topic: made.make(topic, 0) for topic in INPUT_TOPICS}

    def new_engine(self) -> EchoEngine:
        return EchoEngine()

    def new_handlers(self) -> Handlers:
        views = cast("Any", self)
        return Handlers(setup(), self.engine, views=views, counter=lambda: 0.0, now=lambda: NOW)

    def of(self, partition: int) -> dict[str, Rows]:
        """Stands for ``consumers.views.Views``."""
        return self.views

    def catch_up(self) -> None:
        for view in self.views.values():
            view.catch_up()

    def stick(self, *, stuck: bool) -> None:
        """Nobody's waiting helps while the views are stuck."""
        for view in self.views.values():
            view.stuck = stuck

    async def step(self, topic: str) -> bool:
        """Handle the next record; False where there is none, or it must wait for the views."""
        waiting = self.topics.get(topic, [])[self.done[topic] :]
        if not waiting:
            return False
        await self.engine.start()
        job = self.opened.get(topic) or self.handlers[topic].open(waiting[0])
        self.opened[topic] = job
        try:
            outputs = () if job.done else await self.handlers[topic].handle(job, attempt=1)
        except RetryLater:
            return False
        del self.opened[topic]
        self.done[topic] += 1
        self.uncommitted.setdefault(topic, []).append(outputs)
        return True

    def commit(self, topic: str) -> None:
        """The transactions of that topic's records."""
        for outputs in self.uncommitted.pop(topic, ()):
            for output in outputs:
                self.append(output)

    async def drain(self) -> None:
        """Until nothing is left to do; that comes to an end."""
        for _ in range(300):
            for topic in INPUT_TOPICS:
                await self.step(topic)
            if not self.uncommitted:
                return
            for topic in INPUT_TOPICS:
                self.commit(topic)
        raise AssertionError("it never comes to an end")

    def append(self, output: Output) -> None:
        log = self.topics.setdefault(output.topic, [])
        record = Record(
            topic=output.topic,
            partition=0,
            offset=len(log),
            timestamp_ms=NOW_MS + sum(map(len, self.topics.values())),
            key=output.key,
            value=output.value,
            headers=output.headers,
        )
        log.append(record)
        for view in self.views.values() if self.is_here(record) else ():
            view.put(record)

    def is_here(self, record: Record) -> bool:
        """Whether it is of the partition of the views."""
        return True

    # The platform.

    def tell(self, topic: str, kind: str, data: Any, key: str) -> None:
        count = sum(map(len, self.topics.values()))
        self.append(codec.encode(topic, key, envelope(kind, id=f"event-{count}"), data))

    def write(self, uri: str) -> None:
        one = self.posts[uri]
        self.tell(names.FEED_POSTS, names.POST_CREATED, PostCreated(post=one), one.conversation_id)

    def mention(self, uri: str) -> None:
        one = self.posts[uri]
        threaded = uri == THREADED
        data = MentionCreated(
            post=one,
            mentioned_account_id=BOT.id,
            ancestors=(self.posts[ROOT],) if threaded else (),
            ancestors_complete=threaded,
            quoted=self.posts[QUOTE] if threaded else None,
        )
        self.asked.add(uri)
        self.tell(names.FEED_MENTIONS, names.MENTION_CREATED, data, one.conversation_id)

    def edit(self, uri: str, *, by_mention: bool = False) -> None:
        before = self.posts[uri]
        if uri in self.deleted:
            return
        text = f"{CALL} again" if uri in (PLAIN, THREADED) else "again"
        version = before.version + 1
        self.posts[uri] = before.model_copy(
            update={
                "text": f"{text} {version}",
                "revision": f"r{version}",
                "version": version,
                "edited_at": NOW + timedelta(seconds=version),
            }
        )
        if by_mention and uri in (PLAIN, THREADED):
            self.mention(uri)
            return
        data = PostEdited(post=self.posts[uri], previous_revision=before.revision)
        self.tell(names.FEED_POSTS, names.POST_EDITED, data, before.conversation_id)

    def delete(self, uri: str) -> None:
        one = self.posts[uri]
        self.deleted.add(uri)
        data = PostDeleted(
            ref=one.ref,
            conversation_id=one.conversation_id,
            deleted_by=DeletedBy.AUTHOR,
            deleted_at=NOW,
        )
        self.tell(names.FEED_POSTS, names.POST_DELETED, data, one.conversation_id)

    # What came of it.

    def replies_to(self, uri: str) -> ReplySet | None:
        return self.knowledge().replies_to(uri)

    def knowledge(self) -> KnowledgeOfViews:
        return KnowledgeOfViews(lambda: self.views, BOT.id, wait_s=0.0)

    def told(self, topic: str) -> list[tuple[str, dict[str, Any]]]:
        return [own_event(record) for record in self.topics.get(topic, ())]


def _first(uri: str) -> Post:
    conversation = {QUOTE: "elsewhere"}.get(uri, "conv-1")
    if uri not in (PLAIN, THREADED):
        return post(uri, f"words of {uri}", conversation_id=conversation, author=BOB)
    text = f"{CALL} at first"
    threaded = uri == THREADED
    root, quote = (_first(ROOT).ref, _first(QUOTE).ref) if threaded else (None, None)
    facets = (mention_facet(text, CALL, BOT.id),)
    return post(uri, text, facets=facets, parent=root, root=root, quote=quote)


async def settled(world: World) -> World:
    """After everything was done; what must hold whatever happened."""
    world.stick(stuck=False)
    await world.drain()
    world.catch_up()
    replies = world.told(names.BOT_REPLIES)
    made = Counter(d["reply_id"] for kind, d in replies if kind == names.REPLY_CREATED)
    gone = Counter(d["reply_id"] for kind, d in replies if kind == names.REPLY_RETRACTED)
    assert set(made.values()) | set(gone.values()) <= {1}
    decided = [(d["input"]["topic"], d["input"]["offset"]) for _, d in world.told(names.BOT_AUDIT)]
    inputs = [(t, n) for t in INPUT_TOPICS for n in range(len(world.topics.get(t, ())))]
    silent = (names.FEED_POSTS, names.BOT_REFERENCES)
    assert sorted(decided) == sorted(place for place in inputs if place[0] not in silent)
    for uri in world.asked:
        await _says_what_it_would_say_today(world, uri)
    return world


async def _says_what_it_would_say_today(world: World, uri: str) -> None:
    replies = world.replies_to(uri)
    if replies is None:
        return
    if uri in world.deleted:
        assert replies.standing == ()
        return
    question = world.knowledge().question(uri)
    assert question is not None
    await world.engine.start()
    reviews = cast("Any", world.handlers[names.BOT_REVIEWS])
    today = await reviews._ask(asked(question))
    assert [one.text for one in replies.standing] == [one.text for one in today.replies]


def test_a_world_begins_silent() -> None:
    assert World().topics == {}


async def test_deleted_after_the_answer() -> None:
    world = World()
    world.mention(PLAIN)
    await settled(world)
    assert world.replies_to(PLAIN) is not None
    world.delete(PLAIN)
    await settled(world)
    (decision,) = [d for _, d in world.told(names.BOT_AUDIT) if d["outcome"] == "retracted"]
    assert decision["reason"] == "deleted"


@pytest.mark.parametrize("by_mention", [False, True])
async def test_edited_after_the_answer(by_mention: bool) -> None:
    world = World()
    world.mention(PLAIN)
    await settled(world)
    before = world.replies_to(PLAIN)
    world.edit(PLAIN, by_mention=by_mention)
    await settled(world)
    after = world.replies_to(PLAIN)
    assert before is not None
    assert after is not None
    assert after.standing[0].reply_id == before.standing[0].reply_id
    assert after.standing[0].text != before.standing[0].text


@pytest.mark.parametrize("uri", [ROOT, QUOTE])
async def test_what_it_was_built_on_is_edited_and_then_deleted(uri: str) -> None:
    world = World()
    world.write(ROOT)
    world.mention(THREADED)
    await settled(world)
    texts = []
    for change in (world.edit, world.delete):
        change(uri)
        await settled(world)
        replies = world.replies_to(THREADED)
        assert replies is not None
        texts.append(replies.standing[0].text)
    assert len(set(texts)) == 2


async def test_an_edit_that_the_answer_did_not_see_corrects_it() -> None:
    world = World()
    world.mention(PLAIN)
    world.stick(stuck=True)
    world.edit(PLAIN)
    for topic in (names.FEED_POSTS, names.BOT_REFERENCES, names.FEED_MENTIONS):
        assert await world.step(topic)
        world.commit(topic)
    assert not world.told(names.BOT_REVIEWS)
    await settled(world)
    assert [kind for kind, _ in world.told(names.BOT_REPLIES)] == [
        names.REPLY_CREATED,
        names.REPLY_CORRECTED,
    ]


async def test_an_edit_that_is_told_twice_is_looked_at_once() -> None:
    world = World()
    world.mention(PLAIN)
    await settled(world)
    world.edit(PLAIN)
    world.mention(PLAIN)
    await settled(world)
    assert len(world.told(names.BOT_REVIEWS)) == 1


async def test_two_deletions_at_once_before_either_retraction_is_committed() -> None:
    world = World()
    world.mention(THREADED)
    await settled(world)
    world.delete(QUOTE)
    world.delete(THREADED)
    for topic in (names.FEED_POSTS, names.BOT_REFERENCES):
        while await world.step(topic):
            world.commit(topic)
    assert len(world.told(names.BOT_REVIEWS)) == 2
    while await world.step(names.BOT_REVIEWS):
        assert world.uncommitted
    await settled(world)
    kinds = [kind for kind, _ in world.told(names.BOT_REPLIES)]
    assert kinds == [names.REPLY_CREATED, names.REPLY_RETRACTED]


_STEP = st.tuples(st.just("step"), st.sampled_from(INPUT_TOPICS))
_COMMIT = st.tuples(st.just("commit"), st.sampled_from(INPUT_TOPICS))
_CHANGE = st.tuples(st.sampled_from(["edit", "edit-by-mention", "delete"]), st.sampled_from(URIS))
_MOVES = st.one_of(
    st.tuples(st.just("mention"), st.sampled_from([PLAIN, THREADED])),
    *(_CHANGE, _CHANGE),
    *(_STEP, _STEP, _STEP, _STEP),
    *(_COMMIT, _COMMIT, _COMMIT),
    st.tuples(st.just("catch-up"), st.sampled_from([view.name for view in VIEWS])),
    st.tuples(st.just("stick"), st.sampled_from(["stuck", "stuck", "free"])),
    st.tuples(st.just("crash"), st.just("")),
)


@given(st.booleans(), st.lists(_MOVES, min_size=10, max_size=50))
async def test_whatever_happens_in_whatever_order(
    answered: bool, moves: list[tuple[str, str]]
) -> None:
    world = World()
    world.write(ROOT)
    for uri in (PLAIN, THREADED):
        world.mention(uri)
    if answered:
        await world.drain()
    for move, what in moves:
        match move:
            case "mention":
                world.mention(what)
            case "edit":
                world.edit(what)
            case "edit-by-mention":
                world.edit(what, by_mention=True)
            case "delete":
                world.delete(what)
            case "step":
                await world.step(what)
            case "commit":
                world.commit(what)
            case "catch-up":
                world.views[what].catch_up()
            case "stick":
                world.stick(stuck=what == "stuck")
            case "crash":
                world.crash()
    await settled(world)
