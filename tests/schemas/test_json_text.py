import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import ErrorCode
from schemas.faults import Fault
from schemas.json_text import parse

SIZE = 1024 * 1024


def code(value: bytes) -> ErrorCode:
    with pytest.raises(Fault) as fault:
        parse(value)
    return fault.value.code


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    """About 1 MiB of ``unit``."""
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b" \t\r\n{ }\n", {}),
        (b"[1,-0,1.5e+3,2E-2,-1]", [1, 0, 1500.0, 0.02, -1]),
        (b"true", True),
        (b'"a"', "a"),
        (rb'"\"\\\/\b\f\n\r\t\u0000\u00e9\uD83D\uDE00"', '"\\/\b\f\n\r\t\x00é😀'),
        (b'"\x7f\xe2\x80\xa8"', "\x7f\u2028"),
        (rb'"\\ud800"', "\\ud800"),
        (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        (b"1e-999", 0.0),
        (b"1" * 309, int("1" * 309)),
        (b'"[[[[{{{{\\"[[["', '[[[[{{{{"[[['),
    ],
)
def test_what_the_rfc_allows_is_read(text: bytes, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b'{"a"}',
        b'{"a":1,}',
        b"[1,]",
        b"[,1]",
        b"{'a':1}",
        b"{a:1}",
        b"[1] // x",
        b"/* */ 1",
        b"01",
        b"-01",
        b"+1",
        b"1.",
        b".5",
        b"1e",
        b"0x1",
        b"- 1",
        b"1_0",
        b"tru",
        b"True",
        b"null null",
        b"{}{}",
        b'"\n"',
        b'"\x00"',
        b'"\x1f"',
        b'"\\x41"',
        b'"\\u00g0"',
        b'"\\u+123"',
        b'"\\u 123"',
        b'"',
        b'"\\',
        b"\xc2\xa01",
        b"\x0b1",
        b"\x001",
        "٣".encode(),
        b"\xe2\x80\xa81",
        b"nan",
        b"inf",
    ],
)
def test_what_the_rfc_forbids_is_not_json(text: bytes) -> None:
    assert code(text) == ErrorCode.NOT_JSON


@pytest.mark.parametrize("text", [b"\xff", b'"\xed\xa0\x80"', b'"\xc0\xaf"', b"\xfe\xff\x00{"])
def test_bad_utf8_has_its_own_code(text: bytes) -> None:
    assert code(text) == ErrorCode.VALUE_ENCODING


def test_a_byte_order_mark_has_its_own_code() -> None:
    assert code(b"\xef\xbb\xbf{}") == ErrorCode.BYTE_ORDER_MARK
    assert parse(b'"\xef\xbb\xbf"') == "\ufeff"


@pytest.mark.parametrize("text", [b"NaN", b'{"a":[NaN]}', b"Infinity", b"-Infinity"])
def test_what_is_no_number_has_its_own_code(text: bytes) -> None:
    assert code(text) == ErrorCode.NOT_A_NUMBER


@pytest.mark.parametrize(
    "text",
    [
        b"1" * 5000,
        b"-" + b"1" * 5000,
        b"2" + b"0" * 308,
        b"1" * 310,
        b"1e999",
        b"-1e999",
        b"1" * 400 + b".0",
        b"1e" + b"9" * 5000,
        filled(b'{"unknown":[', b"1", b"]}"),
        b'{"a":' + b"1" * 5000 + b',"a":1}',
    ],
)
def test_a_number_beyond_a_double_has_its_own_code(text: bytes) -> None:
    assert code(text) == ErrorCode.NUMBER_TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        rb'"\ud800"',
        rb'"\uDFFF"',
        rb'"\ude00\ud83d"',
        rb'"\ud83d\ud83d\ude00"',
        rb'"\ud83dx\ude00"',
        rb'"\ud83d\n"',
        rb'"\ud83d\u0041"',
        rb'"\\\ud800"',
        rb'{"\ud800":1}',
        rb'{"a":{"b":["\udc00"]}}',
        rb'{"a":"\ud800","a":"fine"}',
    ],
)
def test_half_a_surrogate_pair_has_its_own_code(text: bytes) -> None:
    assert code(text) == ErrorCode.LONE_SURROGATE


@pytest.mark.parametrize(
    ("start", "end"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"[":', b"}]"), (b"[ \n", b"\t]")]
)
def test_64_levels_are_fine_and_one_more_is_not(start: bytes, end: bytes) -> None:
    times = 64 // (start.count(b"[") - start.count(b'"[') + start.count(b"{"))
    text = start * times + b"1" + end * times
    assert json.dumps(parse(text), separators=(",", ":")).encode() == text.translate(None, b" \n\t")
    assert code(b"[" + text + b"]") == ErrorCode.TOO_DEEP


def test_brackets_side_by_side_and_in_strings_are_not_levels() -> None:
    assert len(parse(b"[" + b",".join([b"[[]]"] * 1000) + b"]")) == 1000
    assert parse(b'["' + b"[" * 1000 + b'\\"{"]') == ["[" * 1000 + '"{']


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 900_000,
        b'{"a":' * 200_000,
        b'{"a":1,"x":' + b"[" * 900_000 + b"]" * 100_000,
    ],
)
def test_however_deep_it_is_a_fault_and_never_another_error(text: bytes) -> None:
    assert code(text) == ErrorCode.TOO_DEEP


@pytest.mark.timeout(20)  # a scan that is not linear needs minutes for these
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (filled(b"[" * 9 + b"{}," * 60 + b'"', b'\\"', b""), ErrorCode.NOT_JSON),
        (filled(b"[]," * 70 + b'"', b"\\\\", b""), ErrorCode.NOT_JSON),
        (filled(b"[]," * 70, b'"', b""), ErrorCode.NOT_JSON),
        (filled(b"", b"\\", b""), ErrorCode.NOT_JSON),
        (filled(b"", b"]", b""), ErrorCode.NOT_JSON),
        (filled(b"1", b" ", b"1"), ErrorCode.NOT_JSON),
        (filled(b'"', b"\\ud83d\\ude00", b'\\ud800"'), ErrorCode.LONE_SURROGATE),
        (filled(b'"\\ud800', b"\\\\", b'"'), ErrorCode.LONE_SURROGATE),
    ],
    ids=["quotes", "backslashes", "strings", "escapes", "closing", "spaces", "pairs", "late"],
)
def test_a_megabyte_made_to_be_slow_is_not(text: bytes, expected: ErrorCode) -> None:
    assert code(text) == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        filled(b"[[]", b",[]", b"]"),
        filled(b'{"a":1', b',"a":1', b"}"),
        filled(b"0.", b"7", b""),
        filled(b"[0", b",0", b"]"),
        filled(b'"', b"\\ud83d\\ude00", b'"'),
    ],
    ids=["arrays", "members", "digits", "numbers", "pairs"],
)
def test_a_right_megabyte_is_what_json_says(text: bytes) -> None:
    assert parse(text) == json.loads(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON.filter(lambda value: "inf" not in repr(value).lower()), st.booleans())
def test_whatever_json_can_say_comes_back(value: object, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary() | st.text(alphabet='[]{}",:\\ud8eNaI1-. \n').map(str.encode))
def test_whatever_the_bytes_it_is_a_value_or_a_fault_and_agrees_with_json(text: bytes) -> None:
    with contextlib.suppress(Fault):
        assert parse(text) == json.loads(text)
