"""The container of evidence: a zip file of which every byte is determined by its members.

In: names and bytes in an order. Out: one zip that any program opens: members are stored and not
compressed, their times are fixed, nothing is optional. So the same members always give the same
file, and a file can be compared byte for byte with what it must be. ``bot/evidence/verify.py``
does that; it never extracts anything. Format: PKWARE's APPNOTE 6.3.3, sections 4.3.7, 4.3.12 and
4.3.16.
"""

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_FILE: Final = 256 * 2**20  # bytes of an evidence file
MAX_MEMBERS: Final = 10_000
MAX_NAME: Final = 200

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
LOCAL_MARK: Final = b"PK\x03\x04"
_CENTRAL_MARK: Final = b"PK\x01\x02"
_END_MARK: Final = b"PK\x05\x06"
_NEEDED: Final = 20  # version of the format that is needed to extract it
_MADE_BY: Final = 3 << 8 | _NEEDED  # Unix
_STORED: Final = 0
_TIME, _DATE = 0, 0x21  # 1980-01-01, the first that a zip can say
_MODE: Final = 0o100644 << 16
CRC: Final = slice(14, 18)  # where it stands in a local header

# Relative, lower case, no dot that leads elsewhere: safe to unpack on every system.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a local header says; ``data_at`` is where the bytes of the member begin."""

    name: str
    stored: bool
    size: int
    crc: int
    data_at: int

    @property
    def end(self) -> int:
        return self.data_at + self.size


def is_name(name: str) -> bool:
    """Whether a member may have this name."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def pack(members: Sequence[tuple[str, bytes]]) -> bytes:
    """The file. Raises ``ValueError`` for names that are doubled or not safe, and where it would
    be larger than ``MAX_FILE``."""
    names = [name for name, _ in members]
    if len(set(names)) != len(names) or not all(map(is_name, names)):
        raise ValueError("names of members must be safe, each once")
    if sum(len(data) for _, data in members) > MAX_FILE - 4096 * len(members):
        raise ValueError(f"evidence is at most {MAX_FILE} bytes")
    return b"".join(local_header(name, data) + data for name, data in members) + directory(members)


def local_header(name: str, data: bytes) -> bytes:
    """What stands before the bytes of a member."""
    numbers = _NEEDED, 0, _STORED, _TIME, _DATE, zlib.crc32(data), len(data), len(data)
    return _LOCAL.pack(LOCAL_MARK, *numbers, len(name), 0) + name.encode()


def directory(members: Sequence[tuple[str, bytes]]) -> bytes:
    """What stands behind all members: the central directory and its end."""
    entries, at = directory_entries(members), _end_of_members(members)
    length = sum(map(len, entries))
    count = len(members)
    return b"".join(entries) + _END.pack(_END_MARK, 0, 0, count, count, length, at, 0)


def directory_entries(members: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """The entry of each member in the central directory."""
    entries, at = [], 0
    for name, data in members:
        numbers = _NEEDED, 0, _STORED, _TIME, _DATE, zlib.crc32(data), len(data), len(data)
        head = _CENTRAL.pack(_CENTRAL_MARK, _MADE_BY, *numbers, len(name), 0, 0, 0, 0, _MODE, at)
        entries.append(head + name.encode())
        at += _LOCAL.size + len(name) + len(data)
    return entries


def _end_of_members(members: Sequence[tuple[str, bytes]]) -> int:
    return sum(_LOCAL.size + len(name) + len(data) for name, data in members)


def entry_at(data: bytes, at: int) -> Entry | None:
    """The member that begins at this byte; none where none does. Sizes are what it says."""
    head = data[at : at + _LOCAL.size]
    if len(head) < _LOCAL.size or not head.startswith(LOCAL_MARK):
        return None
    _, _, flags, method, _, _, crc, packed, size, length, extra = _LOCAL.unpack(head)
    begin = at + _LOCAL.size
    name = data[begin : begin + length].decode("ascii", "backslashreplace")
    stored = method == _STORED and packed == size and not flags
    return Entry(name, stored, size, crc, begin + length + extra)


def header_length(name: str) -> int:
    """Bytes before those of a member."""
    return _LOCAL.size + len(name)
