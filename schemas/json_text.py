"""Bytes to what their JSON says, with every limit checked and in time linear in their length.

In: any bytes. Out: the value as ``json`` gives it, of a doubled member the last, or a
``Fault``. Accepted is what RFC 8259 allows and nothing more, without byte order mark, lone
surrogates, more than 64 levels, or numbers beyond a double; this holds everywhere, also in
members that nobody knows. ``codec`` checks the value against its model.
"""

import json
import math
import re
from typing import Any, Final, NoReturn

from schemas.codes import ErrorCode
from schemas.faults import Fault

MAX_LEVELS: Final = 64
_MAX_INT_DIGITS: Final = 309  # as many as the largest double has before its point
_BOM: Final = b"\xef\xbb\xbf"

# A string, closed or not, or one bracket. The repeats are possessive: no input makes them
# go back, so a scan is linear also where a string never ends.
_STRING_OR_BRACKET: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{\]}]', re.DOTALL)
# One escape: a whole pair of surrogates, else half of one (group 1), else anything.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_MAYBE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(value: bytes) -> Any:
    """The value of a JSON text. Raises ``Fault``, which holds positions and no text.

    The checks in their order: encoding, byte order mark, depth, syntax and numbers (whichever
    comes first in the text), surrogates.
    """
    text = _decode(value)
    check_depth(value)
    try:
        data = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Fault(ErrorCode.NOT_JSON, f"no JSON at character {error.pos}") from None
    _check_surrogates(value)
    return data


def check_depth(value: bytes) -> None:
    """Raises ``Fault`` where brackets outside of strings nest more than 64 deep."""
    if value.count(b"[") + value.count(b"{") <= MAX_LEVELS:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(value):
        first = value[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_LEVELS:
                detail = f"more than {MAX_LEVELS} levels at byte {match.start()}"
                raise Fault(ErrorCode.TOO_DEEP, detail)
        elif first in b"]}":
            depth -= 1


def _decode(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        detail = f"not UTF-8 at byte {error.start}"
        raise Fault(ErrorCode.VALUE_ENCODING, detail) from None
    if value.startswith(_BOM):
        raise Fault(ErrorCode.BYTE_ORDER_MARK, "starts with a byte order mark")
    return text


def _check_surrogates(value: bytes) -> None:
    if not _MAYBE_SURROGATE.search(value):
        return
    for match in _ESCAPE.finditer(value):
        if match[1]:
            detail = f"half of a surrogate pair at byte {match.start()}"
            raise Fault(ErrorCode.LONE_SURROGATE, detail)


def _int(digits: str) -> int:
    if len(digits) > _MAX_INT_DIGITS + 1:  # 1 for the sign
        raise Fault(ErrorCode.NUMBER_TOO_LARGE, f"an integer of {len(digits)} characters")
    number = int(digits)
    try:
        float(number)
    except OverflowError:
        raise Fault(ErrorCode.NUMBER_TOO_LARGE, "an integer beyond a double") from None
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise Fault(ErrorCode.NUMBER_TOO_LARGE, "a number beyond a double")
    return number


def _constant(_: str) -> NoReturn:
    raise Fault(ErrorCode.NOT_A_NUMBER, "NaN or Infinity")


_DECODER: Final = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_constant)
