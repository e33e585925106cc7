"""Record batches that aiokafka alone can neither read nor write.

Two kinds of bytes are legal for a broker and fatal for the client: a header **name** that
is not UTF-8 (``getmany`` raises UnicodeDecodeError at the same place again and again, and
seeking past it loses the rest of the batch), and a compressed batch that unpacks to far
more than any record may hold. ``install`` puts a reader in between that hands such records
out instead of raising:

- the bytes of a faulty header name arrive as surrogates (PEP 383), which no valid name
  contains, so whoever decodes the record can tell, and ``raw_header_name`` gives them back;
- a batch that unpacks to more than ``limit_bytes`` raises ``BatchTooLarge`` with its
  offsets, before the memory is taken.

And ``RawBatch`` writes such a header name, or a record with neither key nor value, as a dead
letter may have to.

Source of the format: Apache Kafka documentation, "Record Batch" (magic 2).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    _DefaultRecordBatchBuilderPy,
    _DefaultRecordBatchPy,
)
from aiokafka.record.legacy_records import LegacyRecordBatch

from schemas.record import Output

_LENGTH_AT = 8  # bytes of the base offset before a batch's length
_OVERHEAD = 12  # base offset and length
_MAGIC_AT = 16
_CODEC_AT = 22  # the low byte of the attributes
_CODEC_MASK = 0x07
HEADER_BYTES = 61
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_RECORD_OVERHEAD = 256  # lengths, offsets and the header of a batch
COMPRESS_FROM_BYTES = 512 * 1024
DEFAULT_LIMIT_BYTES = 64 * 1024 * 1024


class BatchTooLarge(Exception):
    """A compressed batch unpacks to more than allowed; offsets ``first`` to ``last``."""

    def __init__(self, first: int, last: int, limit_bytes: int) -> None:
        super().__init__(
            f"the batch of offsets {first} to {last} unpacks to more than {limit_bytes} bytes"
        )
        self.first = first
        self.last = last


def raw_header_name(name: str) -> bytes:
    """The bytes that a header name had on the wire."""
    return name.encode("utf-8", "surrogateescape")


class TolerantRecords:
    """Stands where aiokafka's ``MemoryRecords`` stands: batches of one fetched partition."""

    limit_bytes = DEFAULT_LIMIT_BYTES

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        return len(self._data)

    def has_next(self) -> bool:
        """Is there a whole batch left? A fetch may end in the middle of one."""
        return self._end() is not None

    def _end(self) -> int | None:
        if len(self._data) - self._at < _OVERHEAD:
            return None
        (length,) = struct.unpack_from(">i", self._data, self._at + _LENGTH_AT)
        end = self._at + _OVERHEAD + int(length)
        return end if end <= len(self._data) else None

    def next_batch(self) -> Any:
        """The next batch, or None."""
        end = self._end()
        if end is None:
            return None
        raw = self._data[self._at : end]
        self._at = end
        magic = raw[_MAGIC_AT]
        if magic < 2:
            return LegacyRecordBatch(raw, magic)
        batch = DefaultRecordBatch(raw)
        return batch if batch.is_control_batch else TolerantBatch(batch, raw, self.limit_bytes)


class TolerantBatch:
    """One batch of the current format; iterating it never raises for what people wrote."""

    def __init__(self, batch: Any, raw: memoryview, limit_bytes: int) -> None:
        self._batch = batch
        self._raw = raw
        self._limit_bytes = limit_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        batch, raw = self._batch, self._raw
        if batch.compression_type:
            raw = memoryview(unpacked(batch, raw, self._limit_bytes))
            batch = DefaultRecordBatch(raw)
        last = -1
        try:
            for record in batch:
                last = record.offset
                yield record
        except UnicodeDecodeError:
            yield from (record for record in _LenientBatch(raw) if record.offset > last)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # no types there
    """aiokafka's own reader in Python, over a buffer whose header names it can decode."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Buffer(self._buffer)  # type: ignore[has-type]


class _Name(bytearray):
    """Bytes whose ``decode`` keeps what is not UTF-8 as surrogates."""

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return super().decode(encoding, "surrogateescape")


class _Buffer(bytearray):
    """A buffer that slices to ``_Name``: of its slices the reader decodes header names only."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Name(found) if isinstance(index, slice) else found


def unpacked(batch: Any, raw: memoryview, limit_bytes: int) -> bytes:
    """The same batch with its records not compressed. Raises ``BatchTooLarge``.

    Memory is taken step by step, so a few kilobytes can never make us take gigabytes.
    """
    packed = bytes(raw[HEADER_BYTES:])
    size = min(limit_bytes, max(1 << 20, 8 * len(packed)))
    while (records := _unpack(batch.compression_type, packed, size)) is None:
        if size >= limit_bytes:
            raise BatchTooLarge(batch.base_offset, batch.next_offset - 1, limit_bytes)
        size = min(limit_bytes, 4 * size)
    header = bytearray(raw[:HEADER_BYTES])
    struct.pack_into(">i", header, _LENGTH_AT, HEADER_BYTES - _OVERHEAD + len(records))
    header[_CODEC_AT] &= ~_CODEC_MASK
    return bytes(header) + records


def _unpack(codec: int, packed: bytes, room: int) -> bytes | None:
    """None where it takes more than ``room`` bytes."""
    if codec == _DefaultRecordBatchPy.CODEC_GZIP:
        stream = zlib.decompressobj(wbits=31)
        records = stream.decompress(packed, room)
        return None if stream.unconsumed_tail else records
    if codec == _DefaultRecordBatchPy.CODEC_SNAPPY:
        return _unpack_snappy(packed, room)
    into = (
        cramjam.lz4 if codec == _DefaultRecordBatchPy.CODEC_LZ4 else cramjam.zstd
    ).decompress_into
    buffer = bytearray(room)
    try:
        return bytes(memoryview(buffer)[: into(packed, buffer)])
    except cramjam.DecompressionError:
        return None


def _unpack_snappy(packed: bytes, room: int) -> bytes | None:
    """Plain snappy, or the framing of Java clients: 16 bytes, then blocks with their size."""
    blocks = [packed]
    if packed.startswith(_XERIAL_MAGIC):
        blocks, at = [], _XERIAL_HEADER_BYTES
        while at < len(packed):
            (length,) = struct.unpack_from(">i", packed, at)
            blocks.append(packed[at + 4 : at + 4 + length])
            at += 4 + max(0, length)
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > room:
        return None
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


class _RawName(str):
    """A header name that is written as the bytes it was read as."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        return super().encode(encoding, "surrogateescape")


class RawBatch(BatchBuilder):  # type: ignore[misc]
    """A batch of one record that ``AIOKafkaProducer.send`` would refuse or spoil.

    A large record is compressed, as it may have come: what fitted into a compressed batch of
    the input must fit into its dead letter's.
    """

    def __init__(self, output: Output, *, transactional: bool = True) -> None:
        size = record_size(output)
        super().__init__(size, 0, is_transactional=transactional)
        codec = _DefaultRecordBatchPy.CODEC_ZSTD if size > COMPRESS_FROM_BYTES else 0
        # The builder in C encodes names by itself; the one in Python asks the name.
        self._builder = _DefaultRecordBatchBuilderPy(2, codec, transactional, -1, -1, 0, size)
        headers = [(_RawName(name), value) for name, value in output.headers]
        self.append(timestamp=None, key=output.key, value=output.value, headers=headers)

    def _set_producer_state(self, producer_id: int, epoch: int, sequence: int) -> None:
        self._builder.set_producer_state(producer_id, epoch, sequence)


def record_size(output: Output) -> int:
    """Bytes that a record takes on the wire, at most, not compressed."""
    size = len(output.key or b"") + len(output.value or b"") + _RECORD_OVERHEAD
    for name, value in output.headers:
        size += len(raw_header_name(name)) + len(value or b"") + 10
    return size


def needs_raw_batch(output: Output) -> bool:
    """Would ``send`` refuse this record, or send it larger than it came?"""
    if output.key is None and output.value is None:
        return True
    for name, _ in output.headers:
        if not _is_text(name):
            return True
    return record_size(output) > COMPRESS_FROM_BYTES


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def install(limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
    """Let every consumer of this process read through ``TolerantRecords``."""
    TolerantRecords.limit_bytes = limit_bytes
    fetcher.MemoryRecords = TolerantRecords
