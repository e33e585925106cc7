"""Batches that would stop aiokafka's partition for ever are read to their end."""

import struct

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from hypothesis import given
from hypothesis import strategies as st

from consumers.batches import BatchTooLarge, TolerantRecords, raw_header_name

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class RawName(str):
    """A header name that is written as bytes which are not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"n\xff\xfe"


def build(names: list[str], codec: int = 0, value: bytes = b"value", base: int = 7) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, codec, False, -1, -1, 0, 1 << 24)
    for i, name in enumerate(names):
        assert builder.append(i, 1000 + i, b"key", value, [(name, b"v"), ("null", None)])
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    return bytes(batch)


def read(data: bytes) -> list[tuple[int, bytes, list[tuple[str, bytes | None]]]]:
    records = TolerantRecords(data)
    found = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(r.offset, r.value, list(r.headers)) for r in batch]
    return found


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_a_faulty_header_name_hides_no_neighbour(codec: int) -> None:
    names = ["good", "good", RawName("x"), "good"]
    found = read(build(names, codec) + build(["next"], codec, base=11))
    assert [offset for offset, _, _ in found] == [7, 8, 9, 10, 11]
    assert {value for _, value, _ in found} == {b"value"}
    seen = [raw_header_name(headers[0][0]) for _, _, headers in found]
    assert seen == [b"good", b"good", b"n\xff\xfe", b"good", b"next"]
    assert all(headers[1] == ("null", None) for _, _, headers in found)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_unpacks_to_far_too_much_is_named_not_unpacked(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build(["n"] * 3, CODECS[codec], value=bytes(3 << 20))
    assert [offset for offset, _, _ in read(data)] == [7, 8, 9]
    monkeypatch.setattr(TolerantRecords, "limit_bytes", 2 << 20)
    with pytest.raises(BatchTooLarge, match="offsets 7 to 9"):
        read(data)


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5),
    st.sampled_from(list(CODECS)),
)
def test_ordinary_batches_read_as_they_were_written(names: list[str], codec: str) -> None:
    found = read(build(names, CODECS[codec]))
    assert [headers[0][0] for _, _, headers in found] == names


def test_a_fetch_that_ends_in_the_middle_of_a_batch() -> None:
    data = build(["a"]) + build(["b"], base=8)
    assert [offset for offset, _, _ in read(data[:-1])] == [7]
    assert read(data[:10]) == []
