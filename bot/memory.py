"""What passed through this process, so that repeats are told from firsts before a view has them.

In: decoded inputs in offset order, and what was decided about them. Out: ``Seen`` and
``ReplySet``. Bounded: the entries that nobody asked for the longest go first. ``NoKnowledge`` is
all that the bot knows where there are no views; ``bot/known.py`` lays ``Memory`` over the views.

A dead letter is an outcome, so a second copy of its record is a repeat. Only a record that
was re-driven on purpose may try again, and only where the first try ended as a dead letter:
it then takes the place of the first, so that a second one of the same is a repeat again.
"""

from collections import OrderedDict
from collections.abc import Collection, Container, Mapping, Sequence
from datetime import datetime

from bot.digests import digest_of
from bot.forget import is_forget
from bot.knowledge import (
    UNKNOWN_ACCOUNT,
    AccountState,
    Kind,
    ReplyPart,
    ReplySet,
    Standing,
    Stored,
    Surface,
    Turn,
)
from bot.values import Question, Seen, Source, is_open, written
from schemas.audit import DecisionRecorded
from schemas.codes import Outcome
from schemas.envelope import Envelope
from schemas.feed import Message, MessageCreated, Post
from schemas.replies import ReplyCreated

ENTRIES = 100_000
REPLIES = 10_000


class Recent:
    """A bounded map from the digest of some strings to the first decision on them."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._decisions: OrderedDict[bytes, str] = OrderedDict()

    def first(self, decision: str, *key: str) -> str | None:
        """The first decision with this key if that is another one; else keeps this one."""
        digest = digest_of(*key, size=16)
        first = self._decisions.setdefault(digest, decision)
        self._decisions.move_to_end(digest)
        if len(self._decisions) > self._entries:
            self._decisions.popitem(last=False)
        return first if first != decision else None

    def replace(self, failed: Container[str], decision: str, *key: str) -> None:
        """Let this decision be the first with this key where the first so far has ``failed``."""
        digest = digest_of(*key, size=16)
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
    """Events by (source, id), posts by (URI, revision), posts by URI, and fresh replies."""

    def __init__(self, entries: int = ENTRIES, replies: int = REPLIES, *, bot_id: str = "") -> None:
        self._bot_id = bot_id  # whom ``/forget`` must name in a group
        self._events = Recent(entries)
        self._revisions = Recent(entries)
        self._posts = Recent(entries)
        self._failed = Bounded(entries)
        self._answered = Bounded(entries)
        self._forgets: OrderedDict[str, datetime] = OrderedDict()
        self._max_replies = replies
        self._replies: OrderedDict[str, ReplySet] = OrderedDict()

    def failed(self, decision: str) -> None:
        """The input of ``decision`` became a dead letter."""
        self._failed.add(decision)

    def decided(self, record: DecisionRecorded, replies: Sequence[ReplyCreated]) -> None:
        """A decision was made; what it says counts from now on."""
        if record.outcome is not Outcome.REPLIED or not replies:
            return
        self._answered.add(record.decision_id)
        said = reply_set(record.decision_id, replies)
        self._replies[said.source.uri] = said
        self._replies.move_to_end(said.source.uri)
        if len(self._replies) > self._max_replies:
            self._replies.popitem(last=False)

    def replies_to(self, source_uri: str) -> ReplySet | None:
        """What was said here lately to that post or message."""
        return self._replies.get(source_uri)

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
        is_first = event is None and revision is None
        if isinstance(data, MessageCreated) and is_first and is_forget(post, self._bot_id):
            self._forget(data.message)
        return Seen(event or revision, earlier, answered=earlier in self._answered)

    def forgotten_until(self, message: Message) -> datetime | None:
        """When the talk was forgotten last before ``message``, as far as it passed through."""
        mark = self._forgets.get(message.conversation_id)
        return mark if mark is not None and mark <= message.created_at else None

    def _forget(self, message: Message) -> None:
        self._forgets[message.conversation_id] = message.created_at
        self._forgets.move_to_end(message.conversation_id)
        if len(self._forgets) > self._max_replies:
            self._forgets.popitem(last=False)

    def _try_again(self, envelope: Envelope, post: Post | Message | None, decision: str) -> None:
        self._events.replace(self._failed, decision, envelope.source, envelope.id)
        if post is not None:
            self._revisions.replace(self._failed, decision, post.uri, post.revision)
            self._posts.replace(self._failed, decision, post.uri)


class NoKnowledge:
    """``Knowledge`` without views: it knows what passed through it, and else nothing."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._memory = Memory(entries)

    def meet(
        self, envelope: Envelope, data: Source, decision_id: str, *, redriven: bool = False
    ) -> None:
        self._memory.meet(envelope, data, decision_id, redriven=redriven)

    def seen(
        self, envelope: Envelope, data: Source, decision_id: str, *, redriven: bool = False
    ) -> Seen:
        return self._memory.meet(envelope, data, decision_id, redriven=redriven)

    def decided(self, record: DecisionRecorded, replies: Sequence[ReplyCreated]) -> None:
        self._memory.decided(record, replies)

    def failed(self, decision_id: str) -> None:
        self._memory.failed(decision_id)

    def replies_to(self, source_uri: str) -> ReplySet | None:
        return self._memory.replies_to(source_uri)

    def replies_to_each(self, source_uris: Sequence[str]) -> Mapping[str, ReplySet]:
        found = ((uri, self.replies_to(uri)) for uri in source_uris)
        return {uri: replies for uri, replies in found if replies is not None}

    def question(self, uri: str, conversation_id: str | None = None) -> Question | None:
        return None

    async def reached(self, timestamp_ms: int) -> bool:
        return False

    def positions(self) -> dict[str, int]:
        return {}

    def account(self, account_id: str) -> AccountState:
        return UNKNOWN_ACCOUNT

    def refusing(self, account_ids: Collection[str]) -> frozenset[str]:
        return frozenset(one for one in account_ids if not self.account(one).consents)

    def conversation_blocked(self, conversation_id: str) -> bool:
        return False

    def stopped(self, surface: Surface) -> bool:
        return False

    def paused(self, conversation_id: str, account_id: str) -> bool:
        return False

    def cancelled_ms(self, conversation_id: str, account_id: str) -> int | None:
        return None

    def reviewed(self, source: str, event_id: str, decision_id: str) -> str | None:
        return None

    def has_approvals(self) -> bool:
        return False

    def standing(self, subjects: tuple[str, ...]) -> tuple[Standing, ...]:
        return ()

    def latest(self, uri: str) -> Stored | None:
        return None

    def is_deleted(self, uri: str, kind: Kind) -> bool:
        return False

    def changed(self, post: Post | Message) -> Stored | None:
        return None

    def ancestors(self, post: Post, limit: int) -> tuple[Post, ...]:
        return ()

    def root(self, post: Post) -> Post | None:
        return None

    def quoted(self, post: Post | Message) -> Post | None:
        return None

    def siblings(self, post: Post, authors: Collection[str], limit: int) -> tuple[Post, ...]:
        return ()

    def turns(self, message: Message, limit: int, oldest: datetime) -> tuple[Turn, ...]:
        return ()


def reply_set(decision_id: str, replies: Sequence[ReplyCreated]) -> ReplySet:
    """The reply as it was made just now; ``replies`` are all its parts, at least one."""
    parts = tuple(map(ReplyPart.of, replies))
    first = replies[0]
    private = not is_open(first.visibility)
    return ReplySet(first.in_reply_to, first.conversation_id, decision_id, parts, private)
