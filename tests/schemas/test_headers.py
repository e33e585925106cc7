import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import ErrorCode
from schemas.envelope import Envelope
from schemas.faults import Fault
from schemas.fields import parse_time
from schemas.headers import MAX_HEADER_BYTES, REQUIRED, read, write
from schemas.names import MENTION_CREATED
from schemas.record import Header
from tests.schemas.samples import TIME, headers

RIGHT = headers(MENTION_CREATED)
OPTIONAL = ("ce_subject", "ce_dataschema", "ce_causationid", "ce_correlationid", "ce_traceparent")


def code(given_headers: tuple[Header, ...]) -> ErrorCode:
    with pytest.raises(Fault) as fault:
        read(given_headers)
    return fault.value.code


def changed(**values: bytes | None) -> tuple[Header, ...]:
    return headers(MENTION_CREATED, **values)


def test_the_envelope_is_what_the_headers_say_in_any_order() -> None:
    envelope = Envelope(
        id="event:1", source="platform", type=MENTION_CREATED, time=parse_time(TIME)
    )
    assert read(RIGHT) == read(RIGHT[::-1]) == envelope


def test_optional_headers_are_read() -> None:
    envelope = read((*RIGHT, *((name, name.encode()) for name in OPTIONAL)))
    assert [getattr(envelope, name[3:]) for name in OPTIONAL] == list(OPTIONAL)


def test_unknown_headers_are_never_looked_at() -> None:
    odd = (("ce_odd", b"\xff"), ("ce_odd", b"x" * 9000), ("CE_ID", b""), ("", b""))
    assert read((*odd, *RIGHT)) == read(RIGHT)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_header_must_be_there_once(name: str) -> None:
    without = tuple(header for header in RIGHT if header[0] != name)
    assert code(without) == ErrorCode.HEADER_MISSING
    assert code((*without, (name.upper(), dict(RIGHT)[name]))) == ErrorCode.HEADER_MISSING
    assert code((*RIGHT, (name, dict(RIGHT)[name]))) == ErrorCode.HEADER_DOUBLED


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_optional_header_must_not_be_there_twice(name: str) -> None:
    assert code((*RIGHT, (name, b"a"), (name, b"a"))) == ErrorCode.HEADER_DOUBLED


@pytest.mark.parametrize("name", [*REQUIRED, *OPTIONAL])
def test_a_header_is_utf8_of_at_most_8_kib(name: str) -> None:
    others = tuple(header for header in RIGHT if header[0] != name)
    assert code((*others, (name, b"a\xff"))) == ErrorCode.HEADER_ENCODING
    too_large = (name, b"a" * (MAX_HEADER_BYTES + 1))
    assert code((*others, too_large)) == ErrorCode.HEADER_TOO_LARGE


def test_8_kib_are_fine() -> None:
    subject = "a" * MAX_HEADER_BYTES
    assert read((*RIGHT, ("ce_subject", subject.encode()))).subject == subject


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_id", b""),
        ("ce_id", b"a" * 513),
        ("ce_id", b"a\n"),
        ("ce_source", b""),
        ("ce_source", b"\x00"),
        ("ce_type", b""),
        ("ce_time", b""),
        ("ce_time", b"0000-01-01T00:00:00Z"),
        ("ce_time", b"2024-01-01T00:00:00+01:00"),
    ],
)
def test_an_id_or_time_in_a_header_is_checked(name: str, value: bytes) -> None:
    assert code(changed(**{name: value})) == ErrorCode.HEADER_VALUE


@pytest.mark.parametrize("name", ["ce_causationid", "ce_correlationid"])
def test_optional_ids_are_ids(name: str) -> None:
    assert code((*RIGHT, (name, b""))) == ErrorCode.HEADER_VALUE


def test_a_null_header_counts_as_empty() -> None:
    null: bytes = None  # type: ignore[assignment]  # aiokafka gives it so
    others = tuple(header for header in RIGHT if header[0] != "ce_id")
    assert code((*others, ("ce_id", null))) == ErrorCode.HEADER_VALUE


@pytest.mark.parametrize("value", [b"0.3", b"1", b"1.0 ", b""])
def test_another_specversion_has_its_own_code(value: bytes) -> None:
    assert code(changed(ce_specversion=value)) == ErrorCode.UNSUPPORTED_SPECVERSION


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b" application/json ",
        b"application/json;charset=utf-8",
        b"application/json; charset=UTF-8",
        b'application/json ; Charset = "utf-8"',
    ],
)
def test_json_in_utf8_is_taken(value: bytes) -> None:
    assert read(changed(content_type=value)) == read(RIGHT)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text/plain",
        b"application/cloudevents+json",
        b"application/json;charset=latin-1",
        b"application/json;charset=utf-8;charset=utf-8",
        b"application/json;",
        b"application/json;v=1",
        b"application/json" + b" ;" * 3000,
    ],
)
def test_any_other_content_type_has_its_own_code(value: bytes) -> None:
    assert code(changed(content_type=value)) == ErrorCode.UNSUPPORTED_CONTENT_TYPE


def test_the_first_check_that_fails_gives_the_code() -> None:
    doubled = (*changed(ce_id=None), ("ce_type", b"x"))
    assert code(doubled) == ErrorCode.HEADER_MISSING
    assert code((*changed(ce_id=b"\xff"), ("ce_time", b"x"))) == ErrorCode.HEADER_DOUBLED


def test_no_fault_repeats_what_was_in_a_header() -> None:
    for name in ("ce_id", "ce_time", "ce_specversion", "content-type"):
        secret = {name.replace("-", "_"): b"S3CRET\x00"}
        with pytest.raises(Fault) as fault:
            read(changed(**secret))
        assert "S3CRET" not in str(fault.value)


def test_headers_are_written_in_one_order_and_read_back() -> None:
    envelope = read((*(("ce_subject", b"\xc3\xa9"), ("ce_traceparent", b"00-1-2-01")), *RIGHT))
    names = [name for name, _ in write(envelope)]
    assert names == [*REQUIRED, "ce_subject", "ce_traceparent"]
    assert read(write(envelope)) == envelope


def test_a_header_over_8_kib_is_never_written() -> None:
    with pytest.raises(ValueError, match="ce_subject is over"):
        write(read(RIGHT).model_copy(update={"subject": "é" * MAX_HEADER_BYTES}))


@given(st.lists(st.tuples(st.sampled_from([*REQUIRED, *OPTIONAL, "x"]), st.binary(max_size=30))))
def test_whatever_the_headers_are_reading_them_ends_in_an_envelope_or_a_fault(
    extra: list[Header],
) -> None:
    ended: object
    try:
        ended = read(tuple(extra))
    except Fault as fault:
        ended = fault.code
    assert isinstance(ended, Envelope | ErrorCode)
