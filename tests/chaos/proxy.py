"""A TCP proxy that knows one thing of Kafka: which answer belongs to which kind of request.

Between workers and broker stands ``Proxy``; the broker has a listener that it advertises under
the proxy's port. Every message is a 4-byte length and a body; a request's body starts with its
kind (api key), version and correlation id, an answer's with the correlation id. A ``Rule``
delays the answers of one kind, lets one vanish with all that would follow on its connection
(the peer just hangs, as behind a dead network), or cuts the connection in its place. Or it holds
a request back, and sends it on although whoever sent it may be dead by then.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

HOST = "127.0.0.1"
API_KEYS = {
    "Produce": 0,
    "Fetch": 1,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "SyncGroup": 14,
    "InitProducerId": 22,
    "AddPartitionsToTxn": 24,
    "AddOffsetsToTxn": 25,
    "EndTxn": 26,
    "TxnOffsetCommit": 28,
}
Action = Literal["hold", "delay", "drop", "cut"]


@dataclass
class Rule:
    """What to do with the next ``left`` answers to requests of one kind; ``hold``: with the
    requests themselves, until ``released``, and only with those that hold ``about``."""

    kind: str
    action: Action
    seconds: float = 0.0
    left: int = 1
    about: bytes = b""
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Forwards to ``upstream``; ``hit`` is told of each answer that a rule was applied to."""

    def __init__(self, upstream: int, hit: Callable[[Rule], None] = lambda rule: None) -> None:
        self._upstream = upstream
        self._hit = hit
        self._rules: list[Rule] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, HOST, port)

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def add(self, rule: Rule) -> None:
        """Apply it from the next answer on."""
        self._rules.append(rule)

    def remove(self, rule: Rule) -> None:
        """Whether it was used up or not."""
        if rule in self._rules:
            self._rules.remove(rule)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # one side is gone, so the other is let go below
        finally:
            writer.close()
            self._connections.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(HOST, self._upstream)
        kinds: dict[int, int] = {}
        pumps = [
            asyncio.create_task(self._requests(reader, up_writer, kinds)),
            asyncio.create_task(self._answers(up_reader, writer, kinds)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            up_writer.close()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: dict[int, int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            kind, _, correlation = struct.unpack_from(">hhi", frame, 4)
            kinds[correlation] = kind
            if rule := self._rule_for(kind, frame):
                await rule.released.wait()
            writer.write(frame)
            await writer.drain()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: dict[int, int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            (correlation,) = struct.unpack_from(">i", frame, 4)
            rule = self._rule_for(kinds.pop(correlation, -1))
            if rule is not None:
                if rule.action == "cut":
                    return
                if rule.action == "drop":
                    await _swallow(reader)
                    return
                await asyncio.sleep(rule.seconds)
            writer.write(frame)
            await writer.drain()

    def _rule_for(self, kind: int, request: bytes | None = None) -> Rule | None:
        for rule in self._rules:
            if (rule.action == "hold") != (request is not None):
                continue
            if API_KEYS[rule.kind] == kind and rule.about in (request or b""):
                rule.left -= 1
                if rule.left <= 0:
                    self._rules.remove(rule)
                self._hit(rule)
                return rule
        return None


async def _frame(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack(">i", length)[0])


async def _swallow(reader: asyncio.StreamReader) -> None:
    """Read and forget until the broker closes, or the client's end of it does."""
    with contextlib.suppress(OSError):
        while await reader.read(1 << 16):
            pass
