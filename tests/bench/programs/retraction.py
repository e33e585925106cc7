"""Mentions the bot at a steady rate, deletes some of what was answered, waits for retractions.

Of every ``every`` mentions one is deleted, ``rest_s`` seconds after its reply was read. Tells
``done`` with one delay per deletion, in ms: from the call of ``send``, and from when the broker
appended it (by its own clock, in whole ms), until the retraction was read under
``read_committed``. ``doubled``: retractions that came twice.
"""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from bot.events import SOURCE
from schemas import codec, names
from schemas.envelope import Envelope
from schemas.feed import DeletedBy, Post, PostDeleted
from schemas.record import Output
from tests.bench.programs.asking import Asking, lane_of
from tests.bench.programs.toy import spec, tell


class Deleting(Asking):
    """One run: ``rate`` mentions a second for ``seconds``."""

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__(asked)
        self.waiting: dict[str, tuple[Post, int]] = {}  # to be deleted once answered, by URI
        self.replies: dict[str, str] = {}  # URI by reply id
        self.called: dict[str, float] = {}
        self.appended: dict[str, float] = {}
        self.seen: Counter[str] = Counter()
        self.seen_at: dict[str, float] = {}
        self.deleting: set[asyncio.Task[None]] = set()

    def is_done(self) -> bool:
        wanted: int = -(-self.count // self.asked["every"])
        return len(self.seen) >= wanted

    def asked_one(self, number: int, asking: Post) -> None:
        if number % self.asked["every"] == 0:
            self.waiting[asking.uri] = asking, lane_of(number)

    def take(self, kind: str, value: bytes, now: float) -> None:
        data = json.loads(value)
        if kind == names.REPLY_CREATED:
            uri = data["in_reply_to"]["uri"]
            if (waiting := self.waiting.pop(uri, None)) is not None:
                self.replies[data["reply_id"]] = uri
                task = asyncio.create_task(self._delete(*waiting), name="delete")
                self.deleting.add(task)
                task.add_done_callback(self.deleting.discard)
        elif kind == names.REPLY_RETRACTED:
            uri = self.replies[data["reply_id"]]
            self.seen[uri] += 1
            self.seen_at.setdefault(uri, now)

    async def _delete(self, asking: Post, lane: int) -> None:
        await asyncio.sleep(self.asked["rest_s"])
        output = deletion(asking)
        self.called[asking.uri] = time.time()
        appended = await (await self.send(output, lane))
        self.appended[asking.uri] = appended.timestamp / 1000

    def tell(self) -> None:
        skip = len(self.called) // 10  # connections and caches warm up meanwhile
        uris = sorted(self.called, key=lambda uri: self.called[uri])[skip:]
        tell(
            "done",
            from_send_ms=[1000 * (self.seen_at[uri] - self.called[uri]) for uri in uris],
            from_append_ms=[1000 * (self.seen_at[uri] - self.appended[uri]) for uri in uris],
            doubled=sum(count > 1 for count in self.seen.values()),
        )


def deletion(asking: Post) -> Output:
    """The event that tells of it."""
    now = datetime.now(UTC)
    data = PostDeleted(
        ref=asking.ref,
        conversation_id=asking.conversation_id,
        deleted_by=DeletedBy.AUTHOR,
        deleted_at=now,
    )
    event = Envelope(id=f"{asking.uri}#deleted", source=SOURCE, type=names.POST_DELETED, time=now)
    return codec.encode(names.FEED_POSTS, asking.conversation_id, event, data)


async def main() -> None:
    """One run."""
    run = Deleting(spec())
    await run.run()
    run.tell()


if __name__ == "__main__":
    asyncio.run(main())
