"""One request of Kafka's protocol, by hand: what has a group committed, with its metadata?

librdkafka copies the metadata without its end, so that what comes out may have foreign bytes
behind it; hence these few lines. Source of the format: Apache Kafka's protocol guide,
OffsetFetch version 1.
"""

import socket
import struct
from collections.abc import Sequence

from tests.chaos.facts import Commit, Place

_OFFSET_FETCH, _VERSION, _CORRELATION = 9, 1, 7


class WireError(Exception):
    """The broker is away, or can't say yet."""


def fetch_commits(
    servers: str, group: str, places: Sequence[Place], timeout_s: float = 5.0
) -> dict[Place, Commit]:
    """The committed offsets of these partitions; those without one are left out.

    Raises ``WireError``.
    """
    host, _, port = servers.rpartition(":")
    body = struct.pack(">hhi", _OFFSET_FETCH, _VERSION, _CORRELATION) + _text("chaos")
    body += _text(group) + struct.pack(">i", len(places))
    for topic, partition in places:
        body += _text(topic) + struct.pack(">ii", 1, partition)
    try:
        with socket.create_connection((host, int(port)), timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            (length,) = struct.unpack(">i", _exactly(connection, 4))
            return _answer(_Bytes(_exactly(connection, length)))
    except OSError as error:
        raise WireError(str(error)) from error


def _answer(data: "_Bytes") -> dict[Place, Commit]:
    found: dict[Place, Commit] = {}
    if data.take(">i") != _CORRELATION:
        raise WireError("an answer to another question")
    for _ in range(data.take(">i")):
        topic = data.text()
        for _ in range(data.take(">i")):
            partition, offset, metadata = data.take(">i"), data.take(">q"), data.text()
            if error := data.take(">h"):
                raise WireError(f"error {error}")
            if offset >= 0:
                found[topic, partition] = Commit(offset, metadata)
    return found


class _Bytes:
    """An answer, read from its start."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def text(self) -> str:
        length = max(0, self.take(">h"))
        start, self._at = self._at, self._at + length
        return self._data[start : self._at].decode()


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise WireError("the broker closed the connection")
        data += more
    return data
