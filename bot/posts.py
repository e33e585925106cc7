"""``feed.posts``: of the whole stream of posts, those that were edited or deleted.

In: the records of one partition. Out: for each edit and deletion a ``PostChanged`` on
``bot.references``, nothing for all others, of which not even the value is looked at: what posts
say is for the views. A record that can't be read is counted and skipped, never a dead letter:
nobody asked anything. Next: ``bot/references.py``.
"""

from collections import Counter
from collections.abc import Sequence

import structlog

from bot.changes import Changes
from consumers.handler import GiveUp, Job, StopPartition
from schemas import codec, names
from schemas.codec import Undecodable
from schemas.envelope import Event
from schemas.feed import PostDeleted, PostEdited
from schemas.record import Output, Record

log = structlog.get_logger(__name__)

_CREATED = names.POST_CREATED.encode()
_NOTHING = "nothing to do"  # the lane of what takes none


class PostsHandler:
    """The handler of one assignment of one partition; ``skipped`` counts by error code."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.skipped: Counter[str] = Counter()

    def open(self, record: Record) -> Job:
        """Never raises."""
        if any(name == "ce_type" and value == _CREATED for name, value in record.headers):
            return Job(record, _NOTHING, None, done=True)
        try:
            event = codec.decode(record)
        except Undecodable as error:
            self.skipped[error.code.value] += 1
            log.info("skipped", topic=record.topic, offset=record.offset, code=error.code.value)
            return Job(record, _NOTHING, None, done=True)
        return Job(record, ("post", _uri(event)), event, quick=True)

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        """What changed."""
        event: Event[PostEdited | PostDeleted] = job.payload
        return self._changes.of_post(job.record, event.envelope, event.data)

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        """A deletion must not be lost: it is tried again after the partition was let go."""
        raise StopPartition(f"{error.code} on {record.topic}")


def _uri(event: Event[PostEdited | PostDeleted]) -> str:
    return event.data.post.uri if isinstance(event.data, PostEdited) else event.data.ref.uri
