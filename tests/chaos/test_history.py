"""The log of commits, from bytes as the broker writes them."""

import struct

import pytest

from tests.chaos.facts import Commit, Raw
from tests.chaos.history import TOPIC, Written, commits, forgotten


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def key(group: str = "twite", topic: str = "feed.mentions", version: int = 1) -> bytes:
    return struct.pack(">h", version) + text(group) + text(topic) + struct.pack(">i", 3)


def value(version: int, offset: int, metadata: str) -> bytes:
    head = struct.pack(">hq", version, offset)
    if version >= 3:
        head += struct.pack(">i", -1)
    if version < 4:
        return head + text(metadata) + struct.pack(">q", 0)
    return head + varint(len(metadata) + 1) + metadata.encode() + struct.pack(">qb", 0, 0)


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def record(key: bytes | None, value: bytes | None) -> Raw:
    return Raw(TOPIC, 0, 0, key, value, timestamp_ms=5)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("metadata", ["", "1bAQ==", "x" * 4096])
def test_a_commit_of_each_version(version: int, metadata: str) -> None:
    found = list(commits(iter([record(key(), value(version, 7, metadata))]), "twite"))
    assert found == [Written(("feed.mentions", 3), Commit(7, metadata), 5)]


def test_what_is_no_commit_of_the_group_is_left_out() -> None:
    others = [
        record(key(group="another"), value(3, 1, "")),
        record(key(version=2), b"a member"),
        record(key(), None),
        record(key(topic="feed.posts"), value(3, 9, "")),
    ]
    assert [w.place for w in commits(iter(others), "twite")] == [("feed.posts", 3)]


def at(ms: int, offset: int) -> Written:
    return Written(("feed.mentions", 3), Commit(offset), ms)


LOG = [at(0, 1), at(50_000, 5), at(60_000, 8), at(100_000, 9)]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (at(100_500, 9), 0),
        (at(100_000, 8), 0),
        (at(85_000, 5), 0),  # the next one's transaction may be open still
        (at(95_000, 5), 1),
        (at(200_000, 1), 1),
        (at(20_000, 7), 0),  # nothing is through by then
    ],
)
def test_a_commit_is_forgotten_where_the_log_replaced_it_long_before(
    sample: Written, expected: int
) -> None:
    assert forgotten([sample], LOG) == expected
