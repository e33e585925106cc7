"""What was met before in this assignment of one partition, so that repeats are told from firsts.

In: decoded inputs in offset order. Out: ``Seen``. Bounded: the entries that nobody asked for the
longest go first. It lives in memory and goes with the assignment; a view of the audit topic
takes its place later, behind the same ``meet``.

A dead letter is an outcome, so a second copy of its record is a repeat. Only a record that
was re-driven on purpose may try again, and only where the first try ended as a dead letter:
it then takes the place of the first, so that a second one of the same is a repeat again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Container

from bot.values import Seen, Source, written
from schemas.envelope import Envelope
from schemas.feed import Message, Post

ENTRIES = 100_000


class Recent:
    """A bounded map from the digest of some strings to the first decision on them."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._decisions: OrderedDict[bytes, str] = OrderedDict()

    def first(self, decision: str, *key: str) -> str | None:
        """The first decision with this key if that is another one; else keeps this one."""
        digest = _digest(key)
        first = self._decisions.setdefault(digest, decision)
        self._decisions.move_to_end(digest)
        if len(self._decisions) > self._entries:
            self._decisions.popitem(last=False)
        return first if first != decision else None

    def replace(self, failed: Container[str], decision: str, *key: str) -> None:
        """Let this decision be the first with this key where the first so far has ``failed``."""
        digest = _digest(key)
        if self._decisions.get(digest) in failed:
            self._decisions[digest] = decision

    def __len__(self) -> int:
        return len(self._decisions)


class Bounded:
    """The newest of some strings."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._items: OrderedDict[str, None] = OrderedDict()

    def add(self, item: str) -> None:
        self._items[item] = None
        if len(self._items) > self._entries:
            self._items.popitem(last=False)

    def __contains__(self, item: object) -> bool:
        return item in self._items


class Memory:
    """Events by (source, id), posts by (URI, revision), and posts by URI."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._events = Recent(entries)
        self._revisions = Recent(entries)
        self._posts = Recent(entries)
        self._failed = Bounded(entries)

    def failed(self, decision: str) -> None:
        """The input of ``decision`` became a dead letter."""
        self._failed.add(decision)

    def meet(
        self, envelope: Envelope, data: Source, decision: str, *, redriven: bool = False
    ) -> Seen:
        """What was met before ``decision``'s input; asking again for the same changes nothing.

        ``redriven``: it is a dead letter's record, published again on purpose.
        """
        post = written(data)
        if redriven:
            self._try_again(envelope, post, decision)
        event = self._events.first(decision, envelope.source, envelope.id)
        if post is None:
            return Seen(duplicate_of=event)
        revision = self._revisions.first(decision, post.uri, post.revision)
        earlier = self._posts.first(decision, post.uri)
        return Seen(duplicate_of=event or revision, earlier=earlier)

    def _try_again(self, envelope: Envelope, post: Post | Message | None, decision: str) -> None:
        self._events.replace(self._failed, decision, envelope.source, envelope.id)
        if post is not None:
            self._revisions.replace(self._failed, decision, post.uri, post.revision)
            self._posts.replace(self._failed, decision, post.uri)


def _digest(key: tuple[str, ...]) -> bytes:
    """16 bytes, so that 100,000 entries take the same room whatever the ids."""
    sizes = b"".join(len(part).to_bytes(8, "big") for part in key)
    return hashlib.blake2b(sizes + "".join(key).encode(), digest_size=16).digest()
