"""``Knowledge`` read from the views, with what was decided here and not yet read back over it.

In: the open views of one partition, asked for anew at each look, as they come and go with the
partition. Out: what ``bot/knowledge.py`` promises. Each lookup is a few reads by index. A view
that is lost raises ``ViewLost``, which lets go of the partition: it comes back when the view does.
So do the views of what people and moderators want where they are too far behind, a full disk
being one reason: what they say may be taken back already.
"""

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from bot.knowledge import (
    AccountState,
    Kind,
    KnowledgeUnavailable,
    ReplySet,
    Standing,
    Stored,
    Surface,
    Turn,
)
from bot.memory import ENTRIES, Memory
from bot.values import Question, Seen, Source
from bot.views import accounts, moderation, said, talks, threads, written
from consumers.views.store import is_damage
from consumers.views.views import ViewLost
from schemas.audit import DecisionRecorded
from schemas.envelope import Envelope
from schemas.feed import Message, Post
from schemas.replies import ReplyCreated

_READ = ("conversation", "replies", "accounts", "moderation")
WISHES = ("accounts", "moderation")
"""The views of what people and moderators want: these must be current."""
CURRENT_S = 10.0  # they may be behind by that much
_PROBE_S = 2.0  # for the ends of their logs, where they seem to be further behind
P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

SAID = 20_000  # answers of one view that are kept


def _now_ms() -> int:
    return round(time.time() * 1000)


class OpenView(Protocol):
    """What is needed of ``consumers.views.views.OpenView``."""

    @property
    def db(self) -> sqlite3.Connection: ...

    @property
    def positions(self) -> Mapping[str, int]: ...

    @property
    def as_of_ms(self) -> int: ...

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool: ...

    def lost(self, error: sqlite3.Error) -> ViewLost: ...


@dataclass(slots=True)
class _Said:
    """What a view said, as long as it stands at these positions."""

    positions: Mapping[str, int] | None = None
    answers: dict[Any, Any] = field(default_factory=dict)


class KnowledgeOfViews:
    """``open_views`` gives the views that are open for this partition, by name; ``bot_id`` is the
    bot's account. ``wait_s``: how long ``reached`` waits at most. ``now_ms``: since 1970."""

    def __init__(
        self,
        open_views: Callable[[], Mapping[str, OpenView]],
        bot_id: str,
        *,
        wait_s: float,
        entries: int = ENTRIES,
        now_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self._open_views = open_views
        self._now_ms = now_ms
        self._bot_id = bot_id
        self._wait_s = wait_s
        self._memory = Memory(entries, bot_id=bot_id)
        self._entries = entries
        self._repeats: OrderedDict[str, str] = OrderedDict()  # and what they repeat
        self._said: dict[str, _Said] = {}

    # Repeats, and what was decided.

    def meet(
        self, envelope: Envelope, data: Source, decision_id: str, *, redriven: bool = False
    ) -> None:
        self._memory.meet(envelope, data, decision_id, redriven=redriven)

    def seen(
        self, envelope: Envelope, data: Source, decision_id: str, *, redriven: bool = False
    ) -> Seen:
        here = self._memory.meet(envelope, data, decision_id, redriven=redriven)
        if here.duplicate_of is not None:  # itself perhaps a repeat, of what came before this run
            first = self._repeats.get(here.duplicate_of, here.duplicate_of)
            return replace(here, duplicate_of=first)
        if here.answered:
            return here
        before = self._ask("replies", said.seen, envelope, data, decision_id, redriven)
        if before.duplicate_of is not None:
            self._keep_repeat(decision_id, before.duplicate_of)
        return Seen(
            before.duplicate_of,
            before.earlier if before.answered else here.earlier or before.earlier,
            before.answered,
        )

    def _keep_repeat(self, decision_id: str, first: str) -> None:
        self._repeats[decision_id] = first
        if len(self._repeats) > self._entries:
            self._repeats.popitem(last=False)

    def decided(self, record: DecisionRecorded, replies: Sequence[ReplyCreated]) -> None:
        self._memory.decided(record, replies)

    def failed(self, decision_id: str) -> None:
        self._memory.failed(decision_id)

    def reviewed(self, source: str, event_id: str, decision_id: str) -> str | None:
        return self._ask("replies", said.reviewed, source, event_id, decision_id)

    def replies_to(self, source_uri: str) -> ReplySet | None:
        return self.replies_to_each([source_uri]).get(source_uri)

    def replies_to_each(self, source_uris: Sequence[str]) -> Mapping[str, ReplySet]:
        shown = self._ask("replies", said.replies_to_each, source_uris) if source_uris else {}
        both = ((uri, self._with_made(uri, shown.get(uri))) for uri in source_uris)
        return {uri: replies for uri, replies in both if replies is not None}

    def _with_made(self, source_uri: str, shown: ReplySet | None) -> ReplySet | None:
        """With the parts that were made here and that the view has not read yet."""
        made = self._memory.replies_to(source_uri)
        if shown is None or made is None:
            return shown or made
        known = {part.reply_id for part in shown.parts}
        if all(part.reply_id in known for part in made.parts):
            return shown
        return replace(made, parts=(*shown.parts, *made.parts))

    def question(self, uri: str, conversation_id: str | None = None) -> Question | None:
        mention = self._ask("conversation", threads.question, uri, conversation_id)
        return mention or self._ask("conversation", talks.question, uri, conversation_id)

    # How far the views are.

    async def reached(self, timestamp_ms: int) -> bool:
        views = self._open_views()
        await self._be_current([views[v] for v in WISHES if v in views])
        behind = [views[v] for v in _READ if v in views and views[v].as_of_ms < timestamp_ms]
        if not behind:
            return True
        return all(await asyncio.gather(*(v.reached(timestamp_ms, self._wait_s) for v in behind)))

    async def _be_current(self, views: Sequence[OpenView]) -> None:
        """Where one seems to be too far behind, find out whether it is; waits a bounded moment."""
        oldest_ms = self._oldest_ms()
        behind = [view for view in views if view.as_of_ms < oldest_ms]
        if behind:
            await asyncio.gather(*(view.reached(oldest_ms, _PROBE_S) for view in behind))

    def _oldest_ms(self) -> int:
        return self._now_ms() - round(CURRENT_S * 1000)

    def positions(self) -> dict[str, int]:
        return {
            f"{name}/{place}": offset
            for name, view in self._open_views().items()
            if name in _READ
            for place, offset in view.positions.items()
        }

    # Who wants what, and what moderators decided.

    def account(self, account_id: str) -> AccountState:
        state = self._ask_again("accounts", accounts.state_of, account_id)
        if not self._ask_again("moderation", moderation.is_account_blocked, account_id):
            return state
        return AccountState(state.opted_out, state.blocked_bot, state.deleted, True)

    def refusing(self, account_ids: Collection[str]) -> frozenset[str]:
        refusing = self._ask_each("accounts", accounts.refusing, account_ids)
        blocked = self._ask_each("moderation", moderation.blocked_accounts, account_ids)
        return frozenset(one for one in account_ids if one in refusing or one in blocked)

    def conversation_blocked(self, conversation_id: str) -> bool:
        return self._ask_again("moderation", moderation.is_conversation_blocked, conversation_id)

    def stopped(self, surface: Surface) -> bool:
        return self._ask_again("moderation", moderation.is_stopped, surface)

    def paused(self, conversation_id: str, account_id: str) -> bool:
        whom = (conversation_id, account_id)
        return self._ask_again("moderation", moderation.is_paused, whom)

    def cancelled_ms(self, conversation_id: str, account_id: str) -> int | None:
        whom = (conversation_id, account_id)
        return self._ask_again("moderation", moderation.cancelled_ms, whom)

    def has_approvals(self) -> bool:
        return self._ask_again("moderation", moderation.has_approvals, None)

    def standing(self, subjects: tuple[str, ...]) -> tuple[Standing, ...]:
        return self._ask_again("moderation", moderation.standing, subjects)

    # Posts of this partition.

    def latest(self, uri: str) -> Stored | None:
        return self._ask("conversation", written.latest, uri)

    def is_deleted(self, uri: str, kind: Kind) -> bool:
        told: type[Post] | type[Message] = Post if kind == "post" else Message
        return self._ask("conversation", written.is_deleted, told, uri)

    def changed(self, post: Post | Message) -> Stored | None:
        return self._ask("conversation", written.changed, post)

    def ancestors(self, post: Post, limit: int) -> tuple[Post, ...]:
        return self._ask("conversation", threads.ancestors, post, limit)

    def root(self, post: Post) -> Post | None:
        return self._ask("conversation", threads.root, post)

    def quoted(self, post: Post | Message) -> Post | None:
        if post.quote is None:
            return None
        return self._ask("conversation", threads.quoted, post.quote.uri)

    def siblings(self, post: Post, authors: Collection[str], limit: int) -> tuple[Post, ...]:
        return self._ask("conversation", threads.siblings, post, authors, limit)

    def turns(self, message: Message, limit: int, oldest: datetime) -> tuple[Turn, ...]:
        """Each message followed by the bot's reply to it. What the platform shows of the bot's
        own messages counts only where the reply itself is not known."""
        since = self._memory.forgotten_until(message) or oldest
        told = self._ask("conversation", talks.messages, message, limit, max(oldest, since))
        replies = self.replies_to_each([one.uri for one in told])
        texts = {part.text for reply in replies.values() for part in reply.parts}
        turns: list[Turn] = []
        for one in told:
            parent = replies.get(one.parent.uri) if one.parent else None
            if one.author.id == self._bot_id and (parent is not None or one.text in texts):
                continue
            turns.append(one)
            reply = replies.get(one.uri)
            turns.extend(reply.standing if reply is not None else ())
        return tuple(turns[-limit:])

    def _ask_again(self, view: str, lookup: Callable[[sqlite3.Connection, A], R], about: A) -> R:
        """The same from a view that hardly ever changes: what it said last, as long as it has
        read nothing since. An answer asks half a dozen times about the same people.

        Raises ``ViewLost`` also where the view is too far behind."""
        opened, answers = self._what_it_said(view)
        key = (opened.db, lookup, about)
        if key not in answers:
            answers[key] = self._ask(view, lookup, about)
        answer: R = answers[key]
        return answer

    def _ask_each(
        self,
        view: str,
        lookup: Callable[[sqlite3.Connection, Collection[str]], Collection[str]],
        about: Collection[str],
    ) -> set[str]:
        """The same about several at once, of which ``lookup`` finds some."""
        opened, answers = self._what_it_said(view)
        keys = {one: (opened.db, lookup, one) for one in about}
        new = [one for one, key in keys.items() if key not in answers]
        if new:
            found = self._ask(view, lookup, new)
            answers.update((keys[one], one in found) for one in new)
        return {one for one, key in keys.items() if answers[key]}

    def _what_it_said(self, view: str) -> tuple[OpenView, dict[Any, Any]]:
        """A view, and its answers that still hold. Raises ``ViewLost``."""
        opened, said = self._open_views().get(view), self._said.setdefault(view, _Said())
        if opened is None:
            raise KnowledgeUnavailable(f"the view {view} is not open")
        if opened.as_of_ms < self._oldest_ms():
            raise ViewLost(f"the view {view} is more than {CURRENT_S:.0f} s behind")
        if said.positions != opened.positions or len(said.answers) > SAID:
            said.positions, said.answers = dict(opened.positions), {}
        return opened, said.answers

    def _ask(
        self,
        view: str,
        lookup: Callable[Concatenate[sqlite3.Connection, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """The answer of one view. Raises ``KnowledgeUnavailable`` and ``ViewLost``."""
        opened = self._open_views().get(view)
        if opened is None:
            raise KnowledgeUnavailable(f"the view {view} is not open")
        try:
            return lookup(opened.db, *args, **kwargs)
        except sqlite3.Error as error:
            if is_damage(error):
                raise opened.lost(error) from error
            # SQLite's messages name tables, columns and states, never what stands in a row.
            raise KnowledgeUnavailable(f"{type(error).__name__}: {error}") from error
