"""Every commit of a group, in the order of the broker's own log of them.

The group coordinator keeps commits in memory and writes each to ``__consumer_offsets``, as part
of a transaction where it came with one. What it answers and what stands in that log must be the
same; where they differ, it is the broker that forgot. Source of the format: Apache Kafka's
``OffsetCommitKey.json`` and ``OffsetCommitValue.json``.
"""

import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.facts import Commit, Place, Raw

TOPIC = "__consumer_offsets"
_KEY_VERSIONS = (0, 1)  # a commit; others are members of groups
_THROUGH_MS = 30_000  # by then the transaction of a commit has ended, well or not
_FLEXIBLE = 4  # from this version on texts are compact


@dataclass(frozen=True, slots=True)
class Written:
    """A commit as the log has it; ``at_ms`` is the broker's time of it."""

    place: Place
    commit: Commit
    at_ms: int


def commits(records: Iterator[Raw], group: str) -> Iterator[Written]:
    """The commits of ``group`` among these records of ``TOPIC``; removals are left out."""
    for record in records:
        place = _place(record.key or b"", group)
        if place is not None and record.value is not None:
            yield Written(place, _commit(record.value), record.timestamp_ms)


def forgotten(samples: Iterable[Written], written: Iterable[Written]) -> int:
    """How often the broker answered with a commit that its own log had replaced long before.

    ``samples`` are what it answered, and when. Kafka 4.4, killed often while its coordinator reads
    a long log, was seen to come back with commits of a quarter of an hour ago, not saying a word.
    """
    times: dict[Place, list[int]] = defaultdict(list)
    last: dict[tuple[Place, Commit], int] = {}  # where in the log of its place it stands last
    for one in written:
        last[one.place, one.commit] = len(times[one.place])
        times[one.place].append(one.at_ms)
    found = 0
    for one in samples:
        through = bisect_left(times[one.place], one.at_ms - _THROUGH_MS)
        found += last.get((one.place, one.commit), -1) < through - 1
    return found


def _place(key: bytes, group: str) -> Place | None:
    (version,) = struct.unpack_from(">h", key)
    if version not in _KEY_VERSIONS:
        return None
    name, at = _text(key, 2)
    topic, at = _text(key, at)
    (partition,) = struct.unpack_from(">i", key, at)
    return (topic, partition) if name == group else None


def _commit(value: bytes) -> Commit:
    version, offset = struct.unpack_from(">hq", value)
    at = 10 + (4 if version >= 3 else 0)  # behind a leader's epoch
    metadata, _ = _compact(value, at) if version >= _FLEXIBLE else _text(value, at)
    return Commit(offset, metadata)


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def _compact(data: bytes, at: int) -> tuple[str, int]:
    length, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    end = at + length - 1
    return data[at:end].decode(), end
