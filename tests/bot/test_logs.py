"""``bot.logs``: what people wrote is in no log line, whatever was raised about it."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import structlog
from pydantic import BaseModel, ValidationError

from bot.logs import configure_logging, told
from bot.settings import LoggingSettings

SECRET = "CANARY-in-private-words"


class Model(BaseModel):
    number: int


def decoding() -> None:
    (SECRET.encode() + b"\xff").decode()


def encoding() -> None:
    (SECRET + "\ud800").encode()


def validating() -> None:
    Model.model_validate({"number": SECRET})


def with_a_local() -> None:
    words = SECRET
    if words:
        raise RuntimeError("it broke")


def chained() -> None:
    try:
        validating()
    except ValidationError as error:
        raise RuntimeError("it broke") from error


def grouped() -> None:
    try:
        decoding()
    except ValueError as error:
        raise ExceptionGroup("several", [error]) from None


def in_words() -> None:
    try:
        decoding()
    except ValueError as error:
        raise RuntimeError(repr(error)) from None


RAISERS = [decoding, encoding, validating, with_a_local, chained, grouped, in_words]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(
    form: Literal["json", "console"],
    raiser: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
) -> str:
    configure_logging(LoggingSettings(format=form))
    try:
        raiser()
    except Exception as error:
        structlog.get_logger("bot.x").exception("ours", error=error, said=repr(error))
        structlog.get_logger("bot.x").warning("no traceback", exc_info=error)
        logging.getLogger("lib").exception("theirs: %r", error)
    return capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("raiser", [r for r in RAISERS if r not in (validating, grouped)])
def test_no_line_holds_what_an_exception_was_raised_about(
    form: Literal["json", "console"],
    raiser: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = logged(form, raiser, capsys)
    assert SECRET not in text
    assert text.count("Traceback (most recent call last)") >= 3
    assert raiser.__name__ in text


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("raiser", RAISERS)
def test_no_traceback_holds_it(
    form: Literal["json", "console"],
    raiser: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LoggingSettings(format=form))
    try:
        raiser()
    except Exception as error:
        structlog.get_logger("bot.x").exception("ours", error=error)
        logging.getLogger("lib").exception("theirs")
    assert SECRET not in capsys.readouterr().err


def test_a_json_line_is_a_line_with_the_whole_chain(capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(logged("json", chained, capsys).splitlines()[0])
    assert first["event"] == "ours"
    assert first["error"] == "RuntimeError: it broke"
    told_first, told_last = first["exception"].split("\nwhich led to:\n")
    assert told_first.endswith("ValidationError: 1 errors in Model (int_parsing)")
    assert told_last.endswith("RuntimeError: it broke")
    assert "in validating" in told_first


def test_an_exception_without_words_is_its_name() -> None:
    assert told(TimeoutError()) == "TimeoutError"
    assert told(OSError(2, "No such file")) == "FileNotFoundError: [Errno 2] No such file"
    assert told(UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte")) == (
        "UnicodeDecodeError: invalid start byte, position 2 to 3"
    )
