"""What was said in private never reaches a topic that everybody may read.

Thousands of random talks and threads run through the real handler and the real views, with a
model that repeats everything it sees. Every private text holds a canary; ids, uris and
conversations of private and public things are drawn from the same few names, so that everything
that can be mistaken for something else is. None may turn up on ``bot.replies`` or ``bot.audit``.
"""

import dataclasses
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.audience import ForAll, ForAsker, WouldLeak, audience_of, for_everybody
from bot.context import ContextPost, TalkPost, ThreadPost
from bot.handler import BotHandler
from bot.known import KnowledgeOfViews
from bot.values import Limits
from consumers.handler import GiveUp
from model.echo import EchoEngine
from model.engine import Generation, GenerationRequest
from schemas import names
from schemas.feed import (
    Account,
    MentionCreated,
    MentionReason,
    MessageCreated,
    MessageDeleted,
    Post,
    PostCreated,
    Ref,
    Visibility,
)
from schemas.record import Output, Record
from tests.bot.make import (
    ALICE,
    BOB,
    BOT,
    NOW,
    NOW_MS,
    around,
    direct,
    mention,
    mention_facet,
    message,
    post,
    setup,
)
from tests.bot.views.logs import VIEWS, Log, Opened, deleted, edited
from tests.bot.views.test_replies import reply

CANARY = "canary"
PUBLIC = (names.BOT_REPLIES, names.BOT_AUDIT)
PEOPLE = (ALICE, BOB, Account(id="acc-carol", handle="carol", display_name="Carol"), BOT)
WIDE = Limits(max_graphemes=3_000, max_bytes=20_000, prompt_tokens=20_000, post_tokens=500)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of lines about decisions help nobody."""
    with capture_logs():
        yield


class Parrot(EchoEngine):
    """Says everything that it was shown."""

    async def generate(self, request: GenerationRequest) -> Generation:
        prompt = bytes(t for t in request.prompt.token_ids if t < 256).decode(errors="replace")
        self.turn = getattr(self, "turn", 0) + 1
        return Generation(f"{self.turn} {prompt}", (1,), (0.0,), "stop")


class World:
    """One partition: its topics, its views, and the bot that reads and writes them."""

    def __init__(self, engine: Parrot, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = Log()
        self.views = [make() for make in VIEWS]
        opened = {view.name: Opened(_empty(view)) for view in self.views}
        self.dbs = {name: one.db for name, one in opened.items()}
        knowledge = KnowledgeOfViews(lambda: opened, BOT.id, wait_s=0.0)
        self.handler = BotHandler(
            setup(limits=WIDE), engine, knowledge, now=lambda: NOW, counter=lambda: 0.0
        )
        self.counts: Counter[str] = Counter()

    async def play(self, steps: int) -> None:
        for _ in range(steps):
            record = self.log.add(self.event())
            self.apply(record)
            if record.topic in (names.FEED_MENTIONS, names.FEED_DIRECT_MESSAGES):
                for output in await self.answered(record):
                    self.check(output)
                    self.apply(self.log.put(self.as_record(output)))

    async def answered(self, record: Record) -> list[Output]:
        try:
            return list(await self.handler.handle(self.handler.open(record), attempt=1))
        except GiveUp as error:
            return list(self.handler.give_up(record, error, attempts=1))

    def check(self, output: Output) -> None:
        self.counts[output.topic] += 1
        if CANARY.encode() in (output.value or b""):
            self.counts[f"canary on {output.topic}"] += 1
            assert output.topic not in PUBLIC

    def apply(self, record: Record) -> None:
        for view in self.views:
            if record.topic in view.topics:
                view.apply(self.dbs[view.name], record)

    def as_record(self, output: Output) -> Record:
        return Record(
            topic=output.topic,
            partition=0,
            offset=len(self.log.records),
            timestamp_ms=NOW_MS + 1000 * len(self.log.records),
            key=output.key,
            value=output.value,
            headers=output.headers,
        )

    def event(self) -> Any:
        pick = self.random.choices(
            (self.mention, self.said, self.posted, self.edit, self.deletion, self.forget),
            (6, 6, 3, 2, 1, 1),
        )[0]
        return pick()

    # Everything from the same few names.

    def ref(self) -> Ref | None:
        number = self.random.randrange(8)
        return Ref(uri=f"at://{number}") if number < 6 else None

    def place(self) -> dict[str, Any]:
        return {
            "revision": f"r{self.random.randrange(10**9)}",
            "conversation_id": self.random.choice(("c1", "c2")),
            "author": self.random.choice(PEOPLE),
            "parent": self.ref(),
            "root": self.ref(),
            "quote": self.ref(),
            "created_at": NOW + timedelta(seconds=self.random.randrange(100)),
        }

    def uri(self) -> str:
        return f"at://{self.random.randrange(6)}"

    def fresh(self) -> str:
        return f"at://new/{self.random.randrange(10**9)}"

    def a_post(self, visibility: str | None = None, text: str = "") -> Post:
        seen_by = visibility or self.random.choices(tuple(Visibility), (6, 2, 1, 1))[0]
        word = "open" if seen_by in ("public", "unlisted") else CANARY
        words = f"{text}{word} {self.random.randrange(10**6)}"
        facets = (mention_facet(words, "@twite", BOT.id),) if text else ()
        return post(self.uri(), words, visibility=seen_by, facets=facets, **self.place())

    def mention(self) -> MentionCreated:
        asking = self.a_post(text="@twite ")
        if self.random.random() < 0.8:
            asking = asking.model_copy(update={"uri": self.fresh()})
        above = [self.a_post() for _ in range(self.random.randrange(3))]
        run: list[Post] = []
        for one in above:
            linked = {"conversation_id": asking.conversation_id, "root": None}
            run.append(one.model_copy(update=linked))
        if run and self.random.random() < 0.7:
            asking = asking.model_copy(update={"parent": run[-1].ref})
        return MentionCreated(
            post=asking,
            mentioned_account_id=BOT.id,
            reason=MentionReason.MENTION,
            ancestors=tuple(run),
            quoted=self.a_post() if self.random.random() < 0.3 else None,
        )

    def said(self) -> MessageCreated:
        place, quoted = self.place(), None
        if self.random.random() < 0.3:
            quoted = self.a_post()
        others = self.random.sample([person.id for person in PEOPLE], 2)
        words = f"@twite {CANARY} {self.random.randrange(10**6)}"
        uri = self.uri() if self.random.random() < 0.5 else self.fresh()
        return MessageCreated(
            message=message(
                uri,
                words,
                participants=tuple({BOT.id, place["author"].id, *others}),
                facets=(mention_facet(words, "@twite", BOT.id),),
                quoted=quoted,
                **place,
            )
        )

    def posted(self) -> PostCreated:
        return PostCreated(post=self.a_post())

    def edit(self) -> Any:
        if self.random.random() < 0.5:
            return edited(self.said().message, f"{CANARY} edited")
        return edited(self.a_post("public"), "open, edited")

    def deletion(self) -> Any:
        kind = self.random.choice((None, MessageDeleted))
        return deleted(self.uri(), talk="c1") if kind is None else deleted(self.uri(), kind, "c1")

    def forget(self) -> MessageCreated:
        return MessageCreated(message=message(self.uri(), "/forget", **self.place()))


def _empty(view: Any) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    view.create(db)
    return db


async def leaks(talks: int, steps: int, first: int = 0) -> Counter[str]:
    """How many outputs of each topic there were, and how many of them held a canary.

    ``first``: the seed of the first talk."""
    engine, total = Parrot(context_length=100_000), Counter[str]()
    await engine.start()
    for seed in range(first, first + talks):
        world = World(engine, seed)
        await world.play(steps)
        total += world.counts
    await engine.stop()
    return total


def assert_no_leak(total: Counter[str]) -> None:
    assert total["canary on bot.replies"] == total["canary on bot.audit"] == 0
    # The model did repeat what it saw, and there was something for everybody to read.
    assert total["canary on bot.direct-replies"] > 0.5 * total["bot.direct-replies"] > 0
    assert total["canary on bot.audit-private"] > 0
    assert total["bot.replies"] > total["bot.direct-replies"] / 10
    assert total["bot.dead-letters"] + total["bot.dead-letters-private"] == 0


async def test_no_private_text_reaches_a_public_topic() -> None:
    assert_no_leak(await leaks(talks=30, steps=12))


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(10))
async def test_no_private_text_reaches_a_public_topic_in_10_000_talks(thousand: int) -> None:
    assert_no_leak(await leaks(talks=1000, steps=8, first=1000 * thousand))


# By types: what is for all can only be made of threads.


def test_replies_for_all_are_made_of_open_threads_alone() -> None:
    open_reply = reply(visibility=Visibility.PUBLIC)
    closed = reply(visibility=Visibility.DIRECT)
    context = around(mention())
    assert audience_of(mention(), context, (open_reply,)) == ForAll((open_reply,))
    assert audience_of(direct(), around(direct()), (closed,)) == ForAsker((closed,))
    for question, seen in ((direct(), context), (mention(), around(direct()))):
        assert audience_of(question, seen, (closed,)) == ForAsker((closed,))
        with pytest.raises(WouldLeak):
            audience_of(question, seen, (open_reply,))
    with pytest.raises(WouldLeak):
        audience_of(mention(), context, (closed,))
    with pytest.raises(WouldLeak):
        ForAll((open_reply, closed))


@pytest.mark.parametrize("visibility", [Visibility.FOLLOWERS, Visibility.DIRECT, None])
def test_what_is_narrow_or_unknown_is_for_nobody_else(visibility: Visibility | None) -> None:
    (asking,) = around(mention())
    narrow = dataclasses.replace(asking, visibility=visibility)
    assert for_everybody([asking])
    assert not for_everybody([asking, narrow])
    assert for_everybody([asking, dataclasses.replace(narrow, included=False)])


def test_the_two_kinds_of_posts_are_told_apart_by_type() -> None:
    (asking,) = around(mention())
    (private,) = around(direct())
    assert isinstance(asking, ThreadPost)
    assert isinstance(private, TalkPost)
    assert not issubclass(TalkPost, ThreadPost)
    assert not issubclass(ThreadPost, TalkPost)
    plain = ContextPost(**{f.name: getattr(asking, f.name) for f in dataclasses.fields(asking)})
    assert not for_everybody([plain])
