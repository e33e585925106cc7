"""What was met before in this assignment of one partition, so that repeats are told from firsts.

In: decoded inputs in offset order. Out: ``Seen``. Bounded: the entries that nobody asked for the
longest go first. It lives in memory and goes with the assignment; a view of the audit topic
takes its place later, behind the same ``meet``.
"""

import hashlib
from collections import OrderedDict

from bot.values import Seen, Source, written
from schemas.envelope import Envelope

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

    def __len__(self) -> int:
        return len(self._decisions)


class Memory:
    """Events by (source, id), posts by (URI, revision), and posts by URI."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._events = Recent(entries)
        self._revisions = Recent(entries)
        self._posts = Recent(entries)

    def meet(self, envelope: Envelope, data: Source, decision: str) -> Seen:
        """What was met before ``decision``'s input; asking again for the same changes nothing."""
        event = self._events.first(decision, envelope.source, envelope.id)
        post = written(data)
        if post is None:
            return Seen(duplicate_of=event)
        revision = self._revisions.first(decision, post.uri, post.revision)
        earlier = self._posts.first(decision, post.uri)
        return Seen(duplicate_of=event or revision, earlier=earlier)


def _digest(key: tuple[str, ...]) -> bytes:
    """16 bytes, so that 100,000 entries take the same room whatever the ids."""
    sizes = b"".join(len(part).to_bytes(8, "big") for part in key)
    return hashlib.blake2b(sizes + "".join(key).encode(), digest_size=16).digest()
