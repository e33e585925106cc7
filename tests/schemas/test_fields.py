from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.fields import (
    Bool,
    Count,
    Float,
    Hops,
    Id,
    Int,
    Many,
    Number,
    Str,
    Time,
    format_time,
    parse_time,
)

RIGHT_TIMES = {
    "1990-01-01T00:00:00Z": datetime(1990, 1, 1, tzinfo=UTC),
    "2100-12-31T23:59:59.999999Z": datetime(2100, 12, 31, 23, 59, 59, 999999, UTC),
    "2024-02-29T12:00:00.5Z": datetime(2024, 2, 29, 12, 0, 0, 500000, UTC),
    "2024-01-01T00:00:00.1234567890123Z": datetime(2024, 1, 1, 0, 0, 0, 123456, UTC),
    "2016-12-31T23:59:60Z": datetime(2017, 1, 1, tzinfo=UTC),
}

WRONG_TIMES = [
    "",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "1989-12-31T23:59:59Z",
    "2101-01-01T00:00:00Z",
    "2100-12-31T23:59:60Z",
    "9999-12-31T23:59:60Z",
    "2023-02-29T00:00:00Z",
    "2024-01-01T24:00:00Z",
    "2024-01-01T12:00:60Z",
    "2024-13-01T00:00:00Z",
    "2024-01-01T00:00:00",
    "2024-01-01T00:00:00+00:00",
    "2024-01-01t00:00:00z",
    "2024-01-01 00:00:00Z",
    "2024-01-01T00:00:00.Z",
    "2024-01-01T00:00:00Z\n",
    " 2024-01-01T00:00:00Z",
    "2024-01-01",
    "1704067200",
    "٢٠٢٤-01-01T00:00:00Z",
]


@pytest.mark.parametrize(("text", "time"), RIGHT_TIMES.items())
def test_a_time_is_read(text: str, time: datetime) -> None:
    assert parse_time(text) == time
    assert parse_time(text).utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", WRONG_TIMES)
def test_a_wrong_time_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"not RFC 3339|no such moment|outside 1990") as error:
        parse_time(text)
    assert text == "" or text not in str(error.value)


@pytest.mark.parametrize("value", [1704067200, 1.5, True, None, [], {}])
def test_a_time_is_a_string(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Time).validate_python(value)


def test_a_time_built_in_python_is_kept_in_utc() -> None:
    east = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    kept = TypeAdapter(Time).validate_python(east)
    assert (kept, kept.tzinfo) == (east, UTC)


@pytest.mark.parametrize(
    "time",
    [
        datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_a_time_without_zone_or_out_of_bounds_is_an_error(time: datetime) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Time).validate_python(time)


@given(st.timedeltas(timedelta(0), timedelta(days=40_541)))
def test_a_time_comes_back_from_its_text(since: timedelta) -> None:
    time = datetime(1990, 1, 1, tzinfo=UTC) + since
    assert parse_time(format_time(time)) == time


@pytest.mark.parametrize("value", ["a", "é" * 256, "a" * 512, "\U0001f600", "\u2028", " "])
def test_an_id_is_taken_as_it_is(value: str) -> None:
    assert TypeAdapter(Id).validate_python(value) == value


@pytest.mark.parametrize(
    "value", ["", "a" * 513, "é" * 257, "a\n", "\x00", "a\x7f", "\x85", "\ud800", 1, None, b"a"]
)
def test_a_wrong_id_is_an_error(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Id).validate_python(value)


STRICT: list[tuple[Any, list[object]]] = [
    (Str, [1, True, None, b"a", ["a"]]),
    (Bool, [1, 0, "true", None]),
    (Int, ["1", 1.0, True, None]),
    (Count, [-1, 2**63, "1", 1.0, True]),
    (Number, [0, 2**63, "1", 1.0, True]),
    (Hops, [-1, 256, "1", 1.0, True]),
    (Float, ["1", True, None, float("nan"), float("inf")]),
    (Many[Str], ["en", {"en": 1}, [1], None, 1]),
]


@pytest.mark.parametrize(("kind", "value"), [(kind, v) for kind, vs in STRICT for v in vs])
def test_another_json_type_is_an_error(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


def test_a_float_may_be_written_as_an_integer_and_a_list_becomes_a_tuple() -> None:
    assert TypeAdapter(Float).validate_python(1) == 1.0
    assert TypeAdapter(Many[Str]).validate_python(["a", "b"]) == ("a", "b")
