"""Which waiting reviews a later one has overtaken, so that of many edits only the last is answered.

In: the reviews of one partition as they are read, in offset order, and each again when it is done.
Out: whether a later change of the same post is there for the same reply, or the deletion of what
the reply answers. What was read stands on the log and gets an outcome of its own whatever crashes,
so the earlier one need not ask the model. Next: ``bot/review_handler.py`` skips it.
"""

from dataclasses import dataclass, field

from schemas.reviews import PostChanged, ReviewAsked

Pair = tuple[str, str]
"""The source of a reply, and the post that changed."""


@dataclass(slots=True)
class _Latest:
    """The change that counts, of those that were read and are not all done."""

    offset: int
    change: PostChanged
    waiting: set[int] = field(default_factory=set)


class Overtaken:
    """For one assignment of one partition. Bounded by what the worker takes in."""

    def __init__(self) -> None:
        self._latest: dict[Pair, _Latest] = {}

    def read(self, offset: int, review: ReviewAsked) -> None:
        """A review was read. A moderator's command tells of no change."""
        if review.moderation is not None:
            return
        known = self._latest.setdefault(_pair(review), _Latest(offset, review.change))
        known.waiting.add(offset)
        if _counts_after(review.change, known.change):
            known.offset, known.change = offset, review.change

    def done(self, offset: int, review: ReviewAsked) -> None:
        """A review has its outcome."""
        if review.moderation is not None:
            return
        known = self._latest.get(_pair(review))
        if known is None:
            return
        known.waiting.discard(offset)
        if not known.waiting:
            del self._latest[_pair(review)]

    def __len__(self) -> int:
        return len(self._latest)

    def is_overtaken(self, offset: int, review: ReviewAsked) -> bool:
        """Whether a later review takes its change in; never that of a moderator's command."""
        if review.moderation is not None:
            return False
        source = review.source.uri
        whole = self._latest.get((source, source))
        gone = whole is not None and whole.change.deleted and whole.offset > offset
        known = self._latest.get(_pair(review))
        return gone or (known is not None and known.offset > offset)


def _pair(review: ReviewAsked) -> Pair:
    return review.source.uri, review.change.uri


def _counts_after(change: PostChanged, before: PostChanged) -> bool:
    """Whether what comes later on the log is also later in the life of the post."""
    if before.deleted or change.deleted:
        return change.deleted
    if change.version is None or before.version is None:
        return True
    return change.version >= before.version
