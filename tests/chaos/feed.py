"""A synthetic feed: what people, bots and faulty programs write, from a seed.

Out come records for the feed topics with their partition: mentions and private messages of
many lanes, some of them hot, one tenth garbage, some repeats, some posts of the bot itself.
The header ``x-expect`` says what must become of each; the bot ignores it. Written as JSON by
hand, not with the project's own schemas.
"""

import json
import random
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.chaos.facts import EXPECT, INPUTS

MENTIONS, MESSAGES = INPUTS
BOT = "twite-bot"
HANDLE = "@twite"
MENTION = "twite.feed.mention.created.v1"
MESSAGE = "twite.feed.direct-message.created.v1"
DELETED = "twite.feed.direct-message.deleted.v1"
TIME = "2026-11-24T12:00:00Z"
HOT = 5  # threads and talks that get a third of everything
REPEAT_WITHIN = 40  # records between a record and its repeat, at most

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A record to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Feed:
    """``items(count)`` gives the same for the same seed. ``name`` sets its ids apart from those
    of other feeds on the same broker."""

    def __init__(self, seed: int, partitions: int, name: str = "feed") -> None:
        self._random = random.Random(seed)
        self._partitions = partitions
        self._name = name
        self._number = 0
        self._recent: deque[Item] = deque(maxlen=REPEAT_WITHIN)

    def items(self, count: int) -> Iterator[Item]:
        """The next ``count`` records."""
        for _ in range(count):
            self._number += 1
            yield self._next()

    def _next(self) -> Item:
        dice = self._random.random()
        if dice < 0.10:
            return self._garbage()
        if dice < 0.16 and self._recent:
            return self._repeat()
        item = self._message() if dice < 0.40 else self._mention()
        self._recent.append(item)
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
        return self._item(MENTIONS, MENTION, post["conversation_id"], data, expect)

    def _message(self) -> Item:
        talk, expect = self._post("talk", 150, ""), "replied"
        author = f"of {talk['conversation_id']}"
        if self._random.random() < 0.1:
            author, expect = BOT, "skipped:own-post"
        talk |= {"author": _account(author), "participants": [author, BOT]}
        if self._random.random() < 0.05:
            return self._deletion(talk)
        return self._item(MESSAGES, MESSAGE, talk["conversation_id"], {"message": talk}, expect)

    def _deletion(self, talk: dict[str, Any]) -> Item:
        conversation = talk["conversation_id"]
        ref = {"uri": talk["uri"], "revision": talk["revision"]}
        data = {"ref": ref, "conversation_id": conversation}
        data |= {"deleted_by": "author", "deleted_at": TIME}
        return self._item(MESSAGES, DELETED, conversation, data, "skipped:deleted")

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
