"""``bot.hosts``: which names of an address nobody knows."""

import socket

import pytest

from bot.hosts import told, unresolved


@pytest.fixture(autouse=True)
def _resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(host: str, port: None) -> list[object]:
        if host in ("localhost", "::1", "127.0.0.1"):
            return [host]
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look)


@pytest.mark.parametrize(
    ("address", "unknown"),
    [
        ("localhost:9092", []),
        ("127.0.0.1", []),
        ("[::1]:9092, ::1", []),
        ("kafak:9092,localhost:9092,kafak:9093", ["kafak"]),
        ("a:1, b:2", ["a", "b"]),
        (",", []),
    ],
)
def test_names_that_do_not_resolve(address: str, unknown: list[str]) -> None:
    assert unresolved(address) == unknown


def test_they_are_told_in_a_sentence() -> None:
    assert told("localhost:1") == ""
    assert told("a:1") == "a is no host name that can be resolved here."
    assert told("a:1,b:1") == "a, b are no host names that can be resolved here."
