"""What was built on what, and what changed: the records of ``bot.references``.

In: a decision on an input, or an event that tells of a post's edit or deletion. Out: records
keyed by the URI of the post and dealt out by it, so that a change and everything that was built
on the post meet in one partition, whichever conversations they belong to. Next:
``bot/references.py``, where they meet.

A post too large to travel (of about a megabyte) goes without its text: whoever looks again then
knows that it changed, and leaves it out.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from bot.audience import is_confidential
from bot.conversation import Decision
from bot.publishing import Place, Publishing
from bot.values import (
    Asked,
    BotIdentity,
    Source,
    conversation_of,
    post_of,
    source_ref,
    written,
)
from schemas import names
from schemas.audit import ContextItem
from schemas.codes import SkipReason
from schemas.envelope import Envelope
from schemas.feed import (
    MentionCreated,
    Message,
    MessageDeleted,
    Post,
    PostDeleted,
    PostEdited,
    Ref,
)
from schemas.ids import decision_id, follow_up_id
from schemas.record import Output, Record
from schemas.reviews import PostChanged, ReferenceMade
from schemas.topics import MAX_VALUE_BYTES

# What is wrapped around a change later must fit into a value as well.
ROOM_BYTES = 16 * 1024


def partition_of(uri: str, partitions: int) -> int:
    """Where ``bot.references`` keeps a post: the first 8 bytes of its BLAKE2b, modulo."""
    digest = hashlib.blake2b(uri.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


class Changes:
    """Makes the records for one bot. ``partitions``: how many ``bot.references`` has."""

    def __init__(self, bot: BotIdentity, publishing: Publishing, partitions: int) -> None:
        self._bot = bot
        self._publishing = publishing
        self._partitions = partitions

    def of_decision(self, decision: Decision, asked: Asked) -> tuple[Output, ...]:
        """What an input and its decision mean for others: see the two below."""
        return (*self.references_of(decision, asked), *self.change_of(decision, asked))

    def references_of(self, decision: Decision, asked: Asked) -> tuple[Output, ...]:
        """Of a reply: its source, and everything it was built on that is not the bot's."""
        if not decision.replies:
            return ()
        record, seen = decision.record, _versions(asked.data)
        private = is_confidential(asked.data, decision.context)
        source = source_ref(asked.data)
        return tuple(
            self.reference(
                ReferenceMade(
                    uri=ref.uri,
                    revision=ref.revision,
                    version=seen.get((ref.uri, ref.revision)),
                    conversation_id=conversation_of(asked.data),
                    partition=asked.partition,
                    source=source,
                    decision_id=record.decision_id,
                    private=private,
                ),
                asked.envelope,
            )
            for ref in built_on(source, record.context, self._bot.id)
        )

    def change_of(self, decision: Decision, asked: Asked) -> tuple[Output, ...]:
        """Of a new revision of what was answered before, or of a deleted message: the change."""
        changed = _changed(decision.record.reason, asked)
        if changed is None:
            return ()
        return (self.change(changed, decision.record.decision_id, asked.envelope),)

    def of_post(
        self, record: Record, envelope: Envelope, data: PostEdited | PostDeleted
    ) -> Sequence[Output]:
        """Of an event on ``feed.posts``; the bot's own posts change nothing."""
        if isinstance(data, PostEdited) and data.post.author.id == self._bot.id:
            return ()
        changed = _deleted(data) if isinstance(data, PostDeleted) else _edited(data.post, envelope)
        place = record.topic, record.partition, record.offset
        cause = decision_id(self._bot.id, self._bot.cluster_id, *place)
        return (self.change(changed, cause, envelope),)

    def reference(self, made: ReferenceMade, cause: Envelope) -> Output:
        event = follow_up_id(made.decision_id, "reference", made.uri)
        return self._output(made.uri, names.REFERENCE_MADE, event, made, cause)

    def change(self, changed: PostChanged, cause_id: str, cause: Envelope) -> Output:
        """``cause_id``: of the decision on the input that tells of it."""
        event = follow_up_id(cause_id, "change", changed.uri)
        output = self._output(changed.uri, names.REFERENCED_CHANGED, event, changed, cause)
        if len(output.value or b"") <= MAX_VALUE_BYTES - ROOM_BYTES:
            return output
        return self._output(changed.uri, names.REFERENCED_CHANGED, event, untold(changed), cause)

    def _output(
        self, uri: str, kind: str, event_id: str, data: ReferenceMade | PostChanged, cause: Envelope
    ) -> Output:
        place = Place(names.BOT_REFERENCES, uri, partition_of(uri, self._partitions))
        return self._publishing.output(place, kind, event_id, data, cause)


def built_on(source: Ref, context: Iterable[ContextItem], bot_id: str) -> tuple[Ref, ...]:
    """The source, and every post in the context that was included and is not the bot's; each
    once, in the revision that the model saw."""
    included = {i.ref.uri: i.ref for i in context if i.included and i.author_id != bot_id}
    return tuple(({source.uri: source} | included).values())


def untold(changed: PostChanged) -> PostChanged:
    """The same change without the text."""
    return changed.model_copy(update={"post": None, "message": None})


def _changed(reason: str | None, asked: Asked) -> PostChanged | None:
    data = asked.data
    if isinstance(data, MessageDeleted):
        return _deleted(data) if reason == SkipReason.DELETED else None
    return _edited(post_of(data), asked.envelope) if reason == SkipReason.EDITED else None


def _edited(post: Post | Message, envelope: Envelope) -> PostChanged:
    at: datetime = post.edited_at or envelope.time
    return PostChanged(
        uri=post.uri,
        revision=post.revision,
        version=post.version,
        post=post if isinstance(post, Post) else None,
        message=post if isinstance(post, Message) else None,
        at=at,
    )


def _deleted(data: PostDeleted) -> PostChanged:
    return PostChanged(
        uri=data.ref.uri,
        revision=data.ref.revision,
        deleted=True,
        deleted_by=data.deleted_by,
        at=data.deleted_at,
    )


def _versions(data: Source) -> dict[tuple[str, str | None], int]:
    """Version by URI and revision, of every post that an input carries."""
    return {(post.uri, post.revision): post.version for post in _posts(data)}


def _posts(data: Source) -> Iterator[Post | Message]:
    post = written(data)
    if post is not None:
        yield post
    if isinstance(data, MentionCreated):
        yield from data.ancestors
    quoted = data.quoted if isinstance(data, MentionCreated) else getattr(post, "quoted", None)
    if isinstance(quoted, Post):
        yield quoted
