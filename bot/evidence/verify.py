"""Whether an evidence file is what its signer made, to the last byte.

In: the bytes of a file and a public key, nothing else. Out: ``Checked``: the manifest, and every
fault with the member that it is in; none where all is well. The manifest is signed and names all
members with their lengths and digests, so the whole file is known in advance: each byte that is
changed, missing or added is seen, in headers and directory as well. Nothing is unpacked or
decompressed, so a hostile file costs no more than its own length.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bot.evidence import archive
from bot.evidence.archive import CRC, Entry, entry_at, header_length, local_header
from bot.evidence.keys import is_signed, key_id
from bot.evidence.manifest import (
    MANIFEST,
    MAX_MANIFEST,
    SIGNATURE,
    SIGNATURE_BYTES,
    Manifest,
    Member,
    parse,
)

MAX_FAULTS = 100
DIRECTORY = "the directory at the end"


@dataclass(frozen=True, slots=True)
class Fault:
    """``where``: the member, or a part of the file that is none."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Checked:
    """``manifest``: none where it could not be read at all."""

    manifest: Manifest | None
    faults: tuple[Fault, ...]

    @property
    def good(self) -> bool:
        return not self.faults


class _Stop(Exception):
    """Nothing behind this can be told."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(what)
        self.fault = Fault(where, what)


def verify(data: bytes, key: Ed25519PublicKey) -> Checked:
    """Every fault of an evidence file. Raises nothing, whatever the bytes."""
    faults: list[Fault] = []
    manifest: Manifest | None = None
    try:
        signed, at = _first(data, MANIFEST, 0, MAX_MANIFEST)
        signature, at = _first(data, SIGNATURE, at, SIGNATURE_BYTES)
        manifest = _manifest(signed)
        if (fault := _signed(manifest, signed, signature, key)) is not None:
            faults.append(fault)
        members = [(MANIFEST, signed), (SIGNATURE, signature)]
        walk = _Walk(data, manifest.members, at)
        for fault in walk.faults():
            _keep(faults, fault)
        if not faults:
            faults += _directory_faults(data, [*members, *walk.found], walk.at)
    except _Stop as stop:
        faults.append(stop.fault)
    return Checked(manifest, tuple(faults))


def _keep(faults: list[Fault], fault: Fault) -> None:
    """One more. Raises ``_Stop`` where there are more than anybody reads."""
    faults.append(fault)
    if len(faults) >= MAX_FAULTS:
        raise _Stop("further on", "there is more, which is not looked at")


def _first(data: bytes, name: str, at: int, most: int) -> tuple[bytes, int]:
    """The bytes of one of the two members that must come first, and where the next begins."""
    entry = entry_at(data, at)
    if entry is None:
        raise _Stop(name, _why_nothing(data, name, at))
    if entry.name != name:
        what = f"is not there: {_shown(entry.name)} stands in its place"
        raise _Stop(name, what)
    if not entry.stored:
        what = "its header was changed, or it is compressed, which evidence never is"
        raise _Stop(name, what)
    if entry.size > most:
        raise _Stop(name, f"says that it has {entry.size} bytes; {most} is the most")
    found = data[entry.data_at : entry.end]
    if len(found) < entry.size:
        raise _Stop(name, f"the file ends after {len(found)} of its {entry.size} bytes")
    if data[at : entry.data_at] != local_header(name, found):
        changed = zlib.crc32(found) != entry.crc
        raise _Stop(name, "its bytes were changed" if changed else "its header was changed")
    return found, entry.end


def _why_nothing(data: bytes, name: str, at: int) -> str:
    """Why no member begins there."""
    if len(data) - at < header_length(name):
        return "the file ends before it"
    if not at:
        return "is not there: this is no evidence file"
    return "its header was changed, or it is missing"


def _manifest(signed: bytes) -> Manifest:
    try:
        return parse(signed)
    except ValueError as error:
        raise _Stop(MANIFEST, f"is none of this format: {error}") from None


def _signed(
    manifest: Manifest, signed: bytes, signature: bytes, key: Ed25519PublicKey
) -> Fault | None:
    if is_signed(key, signature, signed):
        return None
    if manifest.key_id != key_id(key):
        what = f"says that the key {manifest.key_id[:16]} signed it; yours is {key_id(key)[:16]}"
        return Fault(MANIFEST, what)
    return Fault(MANIFEST, "is not what your key signed: it or its signature was changed")


class _Walk:
    """Goes through the members in the order of the manifest. ``at`` is the next byte, ``found``
    the members that are as they must be."""

    def __init__(self, data: bytes, members: list[Member], at: int) -> None:
        self.data = data
        self.at = at
        self.found: list[tuple[str, bytes]] = []
        self._expected = members
        self._later = {member.name for member in members}

    def faults(self) -> Iterator[Fault]:
        """Raises ``_Stop`` where it is lost."""
        for member in self._expected:
            if not self._is_here(member):
                yield from self._added()
            self._later.discard(member.name)
            entry = entry_at(self.data, self.at)
            if entry is not None and entry.name in self._later:
                yield Fault(member.name, "is missing")
                continue
            yield from self._member(member, entry)
        yield from self._added()

    def _added(self) -> Iterator[Fault]:
        """Members that the manifest does not know, or that come a second time."""
        while (entry := entry_at(self.data, self.at)) is not None:
            if entry.name in self._later or not self._is_whole(entry):
                return
            named = {member.name for member in self._expected}
            again = entry.name in {*named, MANIFEST, SIGNATURE}
            yield Fault(_shown(entry.name), "was added" + (" a second time" if again else ""))
            self.at = entry.end

    def _is_whole(self, entry: Entry) -> bool:
        """Whether it looks like a member that somebody put there, and no torn header."""
        checksum = zlib.crc32(self.data[entry.data_at : entry.end])
        return entry.end <= len(self.data) and (not entry.stored or checksum == entry.crc)

    def _member(self, member: Member, entry: Entry | None) -> Iterator[Fault]:
        begin = self.at + header_length(member.name)
        end = begin + member.bytes
        found = self.data[begin:end]
        if end > len(self.data):
            self._require_rest(member, entry, begin)
        if entry is not None and entry.name == member.name and entry.size != member.bytes:
            yield from self._resized(member, entry, end)
            return
        same = hashlib.sha256(found).hexdigest() == member.sha256
        if not same and (entry is None or entry.name != member.name):
            raise _Stop(member.name, "is not where it must be: it was changed, or bytes before it")
        if not same:
            yield Fault(member.name, "its bytes were changed")
        if not self._has_header(member.name, found, same=same):
            yield Fault(member.name, "its header was changed")
        self.at = end
        self.found.append((member.name, found))

    def _require_rest(self, member: Member, entry: Entry | None, begin: int) -> None:
        """Raises ``_Stop``: the file ends too early."""
        if entry is not None and entry.name == member.name and entry.size != member.bytes:
            return
        left = max(0, len(self.data) - begin)
        raise _Stop(member.name, f"the file ends after {left} of its {member.bytes} bytes")

    def _resized(self, member: Member, entry: Entry, end: int) -> Iterator[Fault]:
        """It says another length: of its bytes, or the number was changed."""
        if self._begins_something(end) and self._is_intact(member, end):
            yield Fault(member.name, "its header was changed")
            self.at = end
        elif self._begins_something(entry.end):
            yield Fault(member.name, f"has {entry.size} bytes instead of {member.bytes}")
            self.at = entry.end
        else:
            raise _Stop(member.name, f"says {entry.size} bytes; it had {member.bytes}")

    def _is_here(self, member: Member) -> bool:
        """Whether its bytes are where they must be, whatever their header says."""
        end = self.at + header_length(member.name) + member.bytes
        return member.bytes > 0 and self._is_intact(member, end)

    def _is_intact(self, member: Member, end: int) -> bool:
        found = self.data[end - member.bytes : end]
        return hashlib.sha256(found).hexdigest() == member.sha256

    def _begins_something(self, at: int) -> bool:
        return self.data[at : at + 2] == archive.LOCAL_MARK[:2]

    def _has_header(self, name: str, found: bytes, *, same: bool) -> bool:
        """Byte for byte; the checksum of bytes that were changed tells nothing more."""
        wanted = bytearray(local_header(name, found))
        there = bytearray(self.data[self.at : self.at + len(wanted)])
        if not same:
            wanted[CRC] = there[CRC] = bytes(4)
        return wanted == there


def _directory_faults(data: bytes, members: list[tuple[str, bytes]], at: int) -> Iterator[Fault]:
    """What stands behind the members must be their directory, and nothing else."""
    wanted, there = archive.directory(members), data[at:]
    if there == wanted:
        return
    if there.startswith(wanted):
        yield Fault("behind the end", f"{len(there) - len(wanted)} bytes were added")
        return
    if wanted.startswith(there):
        yield Fault(DIRECTORY, f"the file ends after {len(there)} of its {len(wanted)} bytes")
        return
    place, begin = DIRECTORY, 0
    first = next(i for i, (a, b) in enumerate(zip(wanted, there, strict=False)) if a != b)
    for (name, _), entry in zip(members, archive.directory_entries(members), strict=True):
        if begin <= first < begin + len(entry):
            place = f"{DIRECTORY}, entry of {name}"
        begin += len(entry)
    yield Fault(place, "its bytes were changed")


def _shown(name: str) -> str:
    """A name from a file that nobody vouches for, as one short word."""
    return ascii(name[: archive.MAX_NAME])
