"""Mentions the bot at a steady rate and waits for the replies.

Tells ``done`` with one delay per mention, in ms from the call of ``send`` until its reply was read
under ``read_committed``, and with the replies per second from the first of them to the last.
"""

import asyncio
import json
import time
from typing import Any

from schemas import names
from schemas.feed import Post
from tests.bench.programs.asking import Asking
from tests.bench.programs.toy import spec, tell


class Answers(Asking):
    """One run: ``rate`` mentions a second for ``seconds``."""

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__(asked)
        self.called: dict[str, float] = {}
        self.seen: dict[str, float] = {}

    def is_done(self) -> bool:
        return len(self.seen) >= self.count

    def asked_one(self, number: int, asking: Post) -> None:
        self.called[asking.uri] = time.time()

    def take(self, kind: str, value: bytes, now: float) -> None:
        uri = json.loads(value)["in_reply_to"]["uri"] if kind == names.REPLY_CREATED else None
        if uri in self.called:
            self.seen.setdefault(uri, now)

    def tell(self) -> None:
        skip = self.count // 10  # connections and caches warm up meanwhile
        uris = sorted(self.called, key=lambda uri: self.called[uri])[skip:]
        at = sorted(self.seen[uri] for uri in uris)
        tell(
            "done",
            from_send_ms=[1000 * (self.seen[uri] - self.called[uri]) for uri in uris],
            replies_per_s=(len(at) - 1) / (at[-1] - at[0]),
        )


async def main() -> None:
    """One run."""
    run = Answers(spec())
    await run.run()
    run.tell()


if __name__ == "__main__":
    asyncio.run(main())
