"""Converted conversations that live on: a platform whose people change their minds.

In: mentions and private messages in the order of their conversations. Out: the same with the
posts that they stand below on the stream of posts, and with edits and deletions, shortly after or
a while later. A mention comes with its ancestors or leaves them to the bot's views; where the
bot's own post is the parent it is a reply to it. Whatever is told of a post is told of its newest
revision; what was deleted is told no more. Depends on the seed only, but for times.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bot.events import SOURCE, deletion_of, edit_of, edited
from bot.settings import BotSettings
from schemas import names
from schemas.envelope import Envelope, Event
from schemas.feed import MentionCreated, MentionReason, Message, MessageCreated, Post, PostCreated

CHANGED = 0.15  # of what was said, edited or deleted
LATER = 40  # events that may lie between something and its change
ON_THE_STREAM = 0.5  # of threads: their posts come on the stream, and not with the mentions


@dataclass
class _Platform:
    """What there is, and what will become of it."""

    bot: BotSettings
    dice: random.Random
    posts: dict[str, Post | Message] = field(default_factory=dict)  # as they read now
    gone: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)  # on the stream
    changes: deque[str] = field(default_factory=deque)  # uris, soonest first

    def mention(self, event: Event[MentionCreated]) -> Iterator[Event[Any]]:
        data, asking = event.data, event.data.post
        above = [self.posts.setdefault(post.uri, post) for post in data.ancestors]
        alive = [post for post in _last_run(above, self.gone) if isinstance(post, Post)]
        streamed = random.Random(asking.conversation_id).random() < ON_THE_STREAM
        if streamed:
            yield from (self._created(post) for post in alive if post.uri not in self.shown)
        self.posts[asking.uri] = asking
        mine = bool(alive) and alive[-1].author.id == self.bot.account_id
        changes = {
            "ancestors": () if streamed else tuple(alive),
            "ancestors_complete": not streamed and len(alive) == len(above),
            "reason": MentionReason.REPLY if mine and not streamed else data.reason,
        }
        yield Event(event.envelope, data.model_copy(update=changes))
        yield from self._later(asking, *alive)

    def message(self, event: Event[MessageCreated]) -> Iterator[Event[Any]]:
        self.posts[event.data.message.uri] = event.data.message
        yield event
        yield from self._later(event.data.message)

    def rest(self) -> Iterator[Event[Any]]:
        """What is still to be changed at the end."""
        while self.changes:
            yield from self._change(self.changes.popleft())

    def _created(self, post: Post) -> Event[PostCreated]:
        self.shown.add(post.uri)
        envelope = Envelope(
            id=f"{post.uri}#created", source=SOURCE, type=names.POST_CREATED, time=post.created_at
        )
        return Event(envelope, PostCreated(post=post))

    def _later(self, *said: Post | Message) -> Iterator[Event[Any]]:
        for post in said:
            if post.author.id != self.bot.account_id and self.dice.random() < CHANGED:
                self.changes.append(post.uri)
        while len(self.changes) > LATER or (self.changes and self.dice.random() < 1 / LATER):
            yield from self._change(self.changes.popleft())

    def _change(self, uri: str) -> Iterator[Event[Any]]:
        if uri in self.gone:
            return
        before = self.posts[uri]
        if self.dice.random() < 0.5:
            self.gone.add(uri)
            yield deletion_of(before)
            return
        said = before.text.removeprefix(f"@{self.bot.handle} ")
        self.posts[uri] = now = edited(before, f"{said} (edited)")
        yield edit_of(before, now)


def lively(events: Iterable[Event[Any]], bot: BotSettings, seed: int) -> Iterator[Event[Any]]:
    """The events with everything that becomes of them."""
    platform = _Platform(bot, random.Random(seed))
    for event in events:
        if isinstance(event.data, MentionCreated):
            yield from platform.mention(event)
        elif isinstance(event.data, MessageCreated):
            yield from platform.message(event)
        else:
            yield event
    yield from platform.rest()


def _last_run(above: list[Post | Message], gone: set[str]) -> list[Post | Message]:
    """Those behind the last one that was deleted."""
    dead = [i for i, post in enumerate(above) if post.uri in gone]
    return above[dead[-1] + 1 :] if dead else above
