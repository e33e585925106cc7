import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import (
    MAX_DETAIL_BYTES,
    REDRIVE_OF,
    DeadLetter,
    RedriveMark,
    dead_letter,
    dead_letter_topic,
    parse_dead_letter,
    parse_redrive_mark,
    redrive_mark,
    redrive_of,
    redriven,
)
from schemas.record import Output, Record
from schemas.topics import DEAD_LETTER_BYTES, RECORD_BYTES

RECORD = Record(
    topic="feed.mentions",
    partition=3,
    offset=17,
    timestamp_ms=0,
    key=b"\xff",
    value=b"\x00 not json",
    headers=(("ce_id", b"1"), ("ce_id", b"\xff"), ("odd", b"")),
)


def test_the_original_stays_as_it_was_and_four_headers_follow() -> None:
    output = dead_letter(RECORD, "bot.dead-letters-private", "not-json", "no JSON at 1", 2)
    assert (output.topic, output.key, output.value) == (
        "bot.dead-letters-private",
        b"\xff",
        b"\x00 not json",
    )
    assert output.headers == (
        *RECORD.headers,
        ("twite_error_code", b"not-json"),
        ("twite_error_detail", b"no JSON at 1"),
        ("twite_attempts", b"2"),
        ("twite_origin", b"feed.mentions/3/17"),
    )


def test_a_dead_letter_is_read_back() -> None:
    assert parse_dead_letter(dead_letter(RECORD, "bot.dead-letters", "c", "d", 0)) == DeadLetter(
        key=b"\xff",
        value=b"\x00 not json",
        headers=RECORD.headers,
        error_code="c",
        error_detail="d",
        attempts=0,
        topic="feed.mentions",
        partition=3,
        offset=17,
    )


def test_headers_of_our_names_on_the_original_are_kept_and_ours_come_last() -> None:
    first = dead_letter(RECORD, "bot.dead-letters", "first", "", 1)
    again = Record(
        topic="feed.mentions",
        partition=0,
        offset=99,
        timestamp_ms=0,
        key=first.key,
        value=first.value,
        headers=first.headers,
    )
    second = parse_dead_letter(dead_letter(again, "bot.dead-letters", "second", "", 1))
    assert (second.error_code, second.offset) == ("second", 99)
    assert second.headers == first.headers


@given(
    st.none() | st.binary(),
    st.none() | st.binary(),
    st.lists(st.tuples(st.text(), st.binary())).map(tuple),
    st.text(),
)
def test_any_bytes_come_back(
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes], ...],
    detail: str,
) -> None:
    record = Record(
        topic="a/b", partition=1, offset=2, timestamp_ms=0, key=key, value=value, headers=headers
    )
    letter = parse_dead_letter(dead_letter(record, "bot.dead-letters", "c", detail, 1))
    assert (letter.key, letter.value, letter.headers) == (key, value, headers)
    assert (letter.topic, letter.partition, letter.offset) == ("a/b", 1, 2)


def test_the_detail_is_one_line_and_cut_at_whole_characters() -> None:
    letter = parse_dead_letter(
        dead_letter(RECORD, "bot.dead-letters", "c", "a\nb\ud800 " + "é" * 2000, 1)
    )
    assert letter.error_detail.startswith("a b? é")
    assert len(letter.error_detail.encode()) in {MAX_DETAIL_BYTES - 1, MAX_DETAIL_BYTES}


@pytest.mark.parametrize(
    "headers",
    [(), RECORD.headers, dead_letter(RECORD, "t", "c", "d", 0).headers[:-1]],
)
def test_anything_else_is_no_dead_letter(headers: tuple[tuple[str, bytes], ...]) -> None:
    record = Record(
        topic="bot.dead-letters",
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=None,
        value=None,
        headers=headers,
    )
    with pytest.raises(ValueError, match="not a dead letter"):
        parse_dead_letter(record)


def test_private_letters_have_a_topic_of_their_own() -> None:
    assert dead_letter_topic(private=True) == "bot.dead-letters-private"
    assert dead_letter_topic(private=False) == "bot.dead-letters"


def test_the_largest_record_still_fits_with_our_headers() -> None:
    ours = dead_letter(RECORD, "bot.dead-letters", "c" * 64, "d" * 5000, 10**6).headers[-4:]
    added = sum(
        len(name) + len(value or b"") + 20 for name, value in ours
    )  # 20: lengths around them
    assert RECORD_BYTES + added < DEAD_LETTER_BYTES


def test_a_redriven_record_is_the_original_and_one_header() -> None:
    letter = parse_dead_letter(dead_letter(RECORD, "bot.dead-letters", "c", "d", 1))
    again = redriven(letter)
    assert (again.topic, again.key, again.value) == (RECORD.topic, RECORD.key, RECORD.value)
    assert again.headers == (*RECORD.headers, ("twite_redrive_of", b"feed.mentions/3/17"))
    assert redrive_of(again) == letter.origin == "feed.mentions/3/17"


def test_a_second_failure_names_the_last_place() -> None:
    first = redriven(parse_dead_letter(dead_letter(RECORD, "t", "c", "d", 1)))
    failed = Record(
        topic="feed.mentions",
        partition=3,
        offset=99,
        timestamp_ms=0,
        key=first.key,
        value=first.value,
        headers=first.headers,
    )
    second = redriven(parse_dead_letter(dead_letter(failed, "t", "c", "d", 1)))
    assert redrive_of(failed) == "feed.mentions/3/17"
    assert redrive_of(second) == "feed.mentions/3/99"
    assert second.headers[: len(first.headers)] == first.headers


@pytest.mark.parametrize(
    "value", [None, b"", b"feed.mentions", b"a/b/1", b"a/1/2\n", b"\xff/1/2", b"a" * 600 + b"/1/2"]
)
def test_a_header_that_holds_no_place_says_nothing(value: bytes | None) -> None:
    assert (
        redrive_of(Output(topic="t", key=None, value=None, headers=((REDRIVE_OF, value),))) is None
    )
    assert redrive_of(RECORD) is None


def test_a_mark_is_read_back_and_is_no_dead_letter() -> None:
    mark = RedriveMark("feed.mentions/3/17", "bot.dead-letters/3/4", "feed.mentions/3/99")
    output = redrive_mark("bot.dead-letters", b"k", mark)
    assert (output.topic, output.key, output.value) == ("bot.dead-letters", b"k", None)
    assert parse_redrive_mark(output) == mark
    with pytest.raises(ValueError, match="not a dead letter"):
        parse_dead_letter(output)


def test_a_dead_letter_is_no_mark() -> None:
    mark = redrive_mark("t", None, RedriveMark("a/0/1", "b/0/1", "a/0/2"))
    failed = Record(
        topic="a", partition=0, offset=0, timestamp_ms=0, key=None, value=None, headers=mark.headers
    )
    assert parse_redrive_mark(dead_letter(failed, "t", "c", "d", 0)) is None
    faulty = Output(
        topic="t", key=None, value=None, headers=(*mark.headers[:2], ("twite_redriven_as", b"?"))
    )
    assert parse_redrive_mark(faulty) is None
