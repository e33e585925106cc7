"""The proxy between a client and a server that speak frames as Kafka does."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from infra.ports import free_port
from tests.chaos.proxy import API_KEYS, HOST, Action, Proxy, Rule
from tests.wait import wait_until

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _answer_all(
    got: list[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A broker that notes every request and answers with its correlation id and its kind."""
    try:
        while True:
            (length,) = struct.unpack(">i", await reader.readexactly(4))
            kind, _, correlation = struct.unpack_from(">hhi", await reader.readexactly(length))
            got.append(correlation)
            body = struct.pack(">ih", correlation, kind)
            writer.write(struct.pack(">i", len(body)) + body)
    except asyncio.IncompleteReadError:
        writer.close()


@asynccontextmanager
async def proxied(
    hits: list[Rule], got: list[int] | None = None
) -> AsyncIterator[tuple[Proxy, Wire]]:
    """A proxy before such a broker, and a client's connection through it."""
    broker = partial(_answer_all, [] if got is None else got)
    server = await asyncio.start_server(broker, HOST, 0)
    proxy, port = Proxy(server.sockets[0].getsockname()[1], hits.append), free_port()
    await proxy.start(port)
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield proxy, (reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        await proxy.stop()
        server.close()


def ask(wire: Wire, kind: str, correlation: int) -> None:
    body = struct.pack(">hhi", API_KEYS[kind], 0, correlation) + b"body"
    wire[1].write(struct.pack(">i", len(body)) + body)


async def answer(wire: Wire) -> tuple[int, int]:
    """Correlation id and kind of the next answer."""
    (length,) = struct.unpack(">i", await asyncio.wait_for(wire[0].readexactly(4), 10))
    found: tuple[int, int] = struct.unpack(">ih", await wire[0].readexactly(length))
    return found


async def test_without_a_rule_everything_goes_through() -> None:
    async with proxied([]) as (_, wire):
        for number, kind in enumerate(API_KEYS):
            ask(wire, kind, number)
        found = [await answer(wire) for _ in API_KEYS]
    assert found == [(number, key) for number, key in enumerate(API_KEYS.values())]


async def test_a_delayed_answer_comes_later_and_only_so_many() -> None:
    hits: list[Rule] = []
    async with proxied(hits) as (proxy, wire):
        proxy.add(Rule("EndTxn", "delay", 0.05, left=2))
        for number in range(3):
            ask(wire, "Produce", 10 + number)
            ask(wire, "EndTxn", number)
        found = [await answer(wire) for _ in range(6)]
    assert [correlation for correlation, _ in found] == [10, 0, 11, 1, 12, 2]
    assert len(hits) == 2


@pytest.mark.parametrize("action", ["drop", "cut"])
async def test_a_lost_answer_never_comes_and_others_do_until_then(action: Action) -> None:
    hits: list[Rule] = []
    async with proxied(hits) as (proxy, wire):
        proxy.add(Rule("EndTxn", action))
        ask(wire, "Produce", 1)
        assert await answer(wire) == (1, API_KEYS["Produce"])
        ask(wire, "EndTxn", 2)
        ask(wire, "Produce", 3)
        if action == "cut":
            with pytest.raises(asyncio.IncompleteReadError):
                await answer(wire)
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wire[0].readexactly(4), 0.2)
    assert [rule.kind for rule in hits] == ["EndTxn"]


async def test_a_request_held_back_arrives_though_its_client_is_gone() -> None:
    hits: list[Rule] = []
    got: list[int] = []
    async with proxied(hits, got) as (proxy, wire):
        rule = Rule("EndTxn", "hold", about=b"bod")
        proxy.add(Rule("EndTxn", "hold", about=b"of another"))
        proxy.add(rule)
        ask(wire, "Produce", 1)
        assert await answer(wire) == (1, API_KEYS["Produce"])
        ask(wire, "EndTxn", 2)
        await wait_until(lambda: bool(hits))
        wire[1].transport.abort()
        assert got == [1]
        rule.released.set()
        await wait_until(lambda: got == [1, 2])
    assert hits == [rule]


async def test_a_rule_that_was_taken_back_does_nothing() -> None:
    hits: list[Rule] = []
    async with proxied(hits) as (proxy, wire):
        rule = Rule("EndTxn", "cut")
        proxy.add(rule)
        proxy.remove(rule)
        ask(wire, "EndTxn", 1)
        assert await answer(wire) == (1, API_KEYS["EndTxn"])
    assert hits == []
