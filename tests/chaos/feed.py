"""A synthetic feed: what people, bots and faulty programs write, from a seed.

Out come records for the feed topics with their partition: mentions and private messages of
many lanes, some of them hot, one tenth garbage, some repeats, some posts of the bot itself.
The header ``x-expect`` says what must become of each; the bot ignores it. Written as JSON by
hand, not with the project's own schemas. With ``changes`` mentions stand below posts and quote
others, and posts and messages are edited and deleted: while they are answered, or long after.
"""

import json
import random
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.chaos.facts import EXPECT, FEED

MENTIONS, MESSAGES, POSTS = FEED
BOT = "twite-bot"
HANDLE = "@twite"
MENTION = "twite.feed.mention.created.v1"
MESSAGE = "twite.feed.direct-message.created.v1"
DELETED = "twite.feed.direct-message.deleted.v1"
MESSAGE_EDITED = "twite.feed.direct-message.edited.v1"
POST_EDITED = "twite.feed.post.edited.v1"
POST_DELETED = "twite.feed.post.deleted.v1"
TIME = "2026-11-24T12:00:00Z"
HOT = 5  # threads and talks that get a third of everything
REPEAT_WITHIN = 40  # records between a record and its repeat, at most
CHANGE_WITHIN = 300  # posts between a post and its change, at most

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A record to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class Thing:
    """Something that can be changed: a post or message as it reads now."""

    post: dict[str, Any]
    asking: bool = False

    @property
    def is_message(self) -> bool:
        return "participants" in self.post


class Feed:
    """``items(count)`` gives the same for the same seed. ``name`` sets its ids apart from those
    of other feeds on the same broker. ``changes``: the share of edits and deletions."""

    def __init__(
        self, seed: int, partitions: int, name: str = "feed", *, changes: float = 0.0
    ) -> None:
        self._random = random.Random(seed)
        self._partitions = partitions
        self._name = name
        self._number = 0
        self._recent: deque[Item] = deque(maxlen=REPEAT_WITHIN)
        self._changes = changes
        self._things: deque[Thing] = deque(maxlen=CHANGE_WITHIN)
        self._made: list[Thing] = []  # by the item that is being made

    def items(self, count: int) -> Iterator[Item]:
        """The next ``count`` records."""
        for _ in range(count):
            self._number += 1
            yield self._next()

    def _next(self) -> Item:
        if self._things and self._random.random() < self._changes:
            return self._change(self._random.choice(self._things))
        dice = self._random.random()
        if dice < 0.10:
            return self._garbage()
        if dice < 0.16 and self._recent:
            return self._repeat()
        self._made = []
        item = self._message() if dice < 0.40 else self._mention()
        self._recent.append(item)
        self._things.extend(self._made)
        return item

    # Good ones.

    def _mention(self) -> Item:
        author, expect = self._author(), "replied"
        visibility = self._random.choices(
            ("public", "unlisted", "followers", "direct", "moon"), (70, 10, 12, 6, 2)
        )[0]
        facets = [{"type": "mention", "byte_start": 0, "byte_end": 6, "account_id": BOT}]
        if visibility == "moon":
            expect = "skipped:visibility"
        if self._random.random() < 0.03:
            facets, expect = [], "skipped:not-addressed"
        if self._random.random() < 0.05:
            author, expect = BOT, "skipped:own-post"
        post = self._post("thread", 400, author) | {"visibility": visibility, "facets": facets}
        data = {"post": post, "mentioned_account_id": BOT, "reason": "mention"}
        if self._changes:
            data |= self._around(post)
            if expect == "replied":
                self._made.append(Thing(post, asking=True))
                expect = "replied|skipped:deleted"
        return self._item(MENTIONS, MENTION, post["conversation_id"], data, expect)

    def _message(self) -> Item:
        talk, expect = self._post("talk", 150, ""), "replied"
        author = f"of {talk['conversation_id']}"
        if self._random.random() < 0.1:
            author, expect = BOT, "skipped:own-post"
        talk |= {"author": _account(author), "participants": [author, BOT]}
        if self._random.random() < 0.05:
            return self._deletion(MESSAGES, DELETED, talk)
        if self._changes and expect == "replied":
            self._made.append(Thing(talk, asking=True))
            expect = "replied|skipped:deleted"
        return self._item(MESSAGES, MESSAGE, talk["conversation_id"], {"message": talk}, expect)

    def _deletion(self, topic: str, kind: str, post: dict[str, Any]) -> Item:
        conversation = post["conversation_id"]
        ref = {"uri": post["uri"], "revision": post["revision"]}
        data = {"ref": ref, "conversation_id": conversation}
        data |= {"deleted_by": "author", "deleted_at": TIME}
        return self._item(topic, kind, conversation, data, "skipped:deleted")

    # Around them, and after them.

    def _around(self, post: dict[str, Any]) -> dict[str, Any]:
        """What comes with a mention: often the post that it answers, sometimes a quoted one of
        another conversation. Both are public, so they narrow nothing."""
        found: dict[str, Any] = {}
        if self._random.random() < 0.3:
            parent = self._public("parent", post["conversation_id"])
            post |= {"parent": _ref(parent), "root": _ref(parent)}
            found |= {"ancestors": [parent], "ancestors_complete": True}
            self._made.append(Thing(parent))
        if self._random.random() < 0.15:
            quoted = self._public("quoted", f"{self._name}:quoted:{self._random.randrange(50)}")
            post["quote"] = _ref(quoted)
            found["quoted"] = quoted
            self._made.append(Thing(quoted))
        return found

    def _public(self, kind: str, conversation: str) -> dict[str, Any]:
        return {
            "uri": self._id(kind),
            "revision": "r1",
            "conversation_id": conversation,
            "author": _account(f"acct-{self._random.randrange(200)}"),
            "text": f"Something that was said before number {self._number}.",
            "visibility": "public",
            "created_at": TIME,
        }

    def _change(self, thing: Thing) -> Item:
        """An edit or a deletion; sometimes the edit comes as a mention of its own, as well."""
        topic = MESSAGES if thing.is_message else POSTS
        if self._random.random() < 0.5:
            self._things.remove(thing)
            kind = DELETED if thing.is_message else POST_DELETED
            return self._deletion(topic, kind, thing.post)
        before = thing.post
        version = before.get("version", 1) + 1
        thing.post = before | {
            "revision": f"r{version}",
            "version": version,
            "text": f"{HANDLE} now what about number {self._number}?",
            "edited_at": TIME,
        }
        conversation, data = before["conversation_id"], {"previous_revision": before["revision"]}
        if thing.is_message:
            data |= {"message": thing.post}
            expect = "skipped:edited|skipped:deleted"
            return self._item(MESSAGES, MESSAGE_EDITED, conversation, data, expect)
        if thing.asking and self._random.random() < 0.3:
            data = {"post": thing.post, "mentioned_account_id": BOT, "reason": "mention"}
            expect = "replied|skipped:edited|skipped:deleted"
            return self._item(MENTIONS, MENTION, conversation, data, expect)
        data |= {"post": thing.post}
        return self._item(POSTS, POST_EDITED, conversation, data, "")

    def _repeat(self) -> Item:
        """The same event again, or the same revision in another event."""
        item = self._random.choice(self._recent)
        if self._random.random() < 0.5 or DELETED.encode() in dict(item.headers).values():
            return item
        headers = dict(item.headers) | {"ce_id": self._id("again").encode()}
        return replace(item, headers=tuple(headers.items()))

    def _post(self, kind: str, lanes: int, author: str) -> dict[str, Any]:
        hot = self._random.random() < 0.33
        number = self._random.randrange(HOT if hot else lanes)
        return {
            "uri": self._id("post"),
            "revision": "r1",
            "conversation_id": f"{self._name}:{kind}:{number}",
            "author": _account(author),
            "text": f"{HANDLE} what about number {self._number}?",
            "created_at": TIME,
        }

    def _author(self) -> str:
        hot = self._random.random() < 0.25
        return f"acct-{self._random.randrange(3 if hot else 200)}"

    def _item(self, topic: str, kind: str, key: str, data: Any, expect: str) -> Item:
        headers = {
            "ce_specversion": "1.0",
            "ce_id": self._id("event"),
            "ce_source": "/chaos",
            "ce_type": kind,
            "ce_time": TIME,
            "content-type": "application/json",
            EXPECT: expect,
        }
        pairs = tuple((name, value.encode()) for name, value in headers.items())
        return Item(topic, self._place(key), key.encode(), json.dumps(data).encode(), pairs)

    def _id(self, kind: str) -> str:
        return f"{self._name}:{kind}:{self._number}"

    def _place(self, key: str) -> int:
        return zlib.crc32(key.encode()) % self._partitions

    # Bad ones.

    def _garbage(self) -> Item:
        good = self._mention() if self._random.random() < 0.7 else self._message()
        faulty = self._random.choice(
            (_noise, _cut, _no_value, _no_headers, _doubled, _other_key, _other_type, _deep, _nan)
        )
        return _expecting(faulty(good, self._random))


def _ref(post: dict[str, Any]) -> dict[str, Any]:
    return {"uri": post["uri"], "revision": post["revision"]}


def _account(name: str) -> dict[str, Any]:
    return {"id": name, "handle": name.replace(" ", "-").replace(":", "-")}


def _expecting(item: Item) -> Item:
    kept = tuple(header for header in item.headers if header[0] != EXPECT)
    return replace(item, headers=(*kept, (EXPECT, b"dead_lettered")))


def _noise(item: Item, dice: random.Random) -> Item:
    return replace(item, value=dice.randbytes(dice.randrange(1, 300)))


def _cut(item: Item, dice: random.Random) -> Item:
    value = item.value or b""
    return replace(item, value=value[: dice.randrange(1, len(value) - 1)])


def _no_value(item: Item, _: random.Random) -> Item:
    return replace(item, value=None)


def _no_headers(item: Item, _: random.Random) -> Item:
    return replace(item, headers=())


def _doubled(item: Item, _: random.Random) -> Item:
    return replace(item, headers=(*item.headers, ("ce_id", b"another")))


def _other_key(item: Item, _: random.Random) -> Item:
    return replace(item, key=b"somewhere else")


def _other_type(item: Item, _: random.Random) -> Item:
    headers = dict(item.headers) | {"ce_type": b"twite.feed.nothing.v1"}
    return replace(item, headers=tuple(headers.items()))


def _deep(item: Item, _: random.Random) -> Item:
    return replace(item, value=b"[" * 5000 + b"]" * 5000)


def _nan(item: Item, _: random.Random) -> Item:
    return replace(item, value=b'{"post": NaN}')
