"""Errors by status: which kind, what to do, how long to wait, and never anybody's words."""

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import EngineUnavailable, RequestRefused
from model.openai import errors


@given(st.integers(201, 599), st.binary(max_size=200))
def test_every_status_is_a_named_error(status: int, body: bytes) -> None:
    error = errors.of_status("there:1", status, {}, body)
    assert isinstance(error, EngineUnavailable | RequestRefused)
    assert f"there:1 answers {status}" in str(error)


def test_a_servers_words_are_not_told_but_its_code_is() -> None:
    body = json.dumps({"error": {"message": "bad prompt: my secret", "type": "BadRequest"}})
    told = str(errors.of_status("there", 400, {}, body.encode()))
    assert "secret" not in told
    assert "(BadRequest)" in told
    sneaky = json.dumps({"error": {"type": "my secret is long"}})
    assert "secret" not in str(errors.of_status("there", 400, {}, sneaky.encode()))


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000",
        "request (2100 tokens) exceeds the available context size (2048 tokens)",
        "The input is too long",
    ],
)
def test_a_prompt_that_is_too_long_is_told_as_that(message: str) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    assert "bot.prompt_tokens" in str(errors.of_status("there", 400, {}, body))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("1e9", None), ("", None), ("soon", None), ("-1", None),
     ("99999", errors.LONGEST_PAUSE_S), (formatdate(1060, usegmt=True), 60.0),
     (formatdate(10, usegmt=True), 0.0)],
)  # fmt: skip
def test_a_pause_is_seconds_or_a_date_and_bounded(value: str, seconds: float | None) -> None:
    assert errors.retry_after({"retry-after": value}, now=1000.0) == seconds


def test_what_a_stream_tells_of_itself() -> None:
    assert isinstance(errors.of_event("there", {"code": 429}), errors.ServerBusy)
    assert isinstance(errors.of_event("there", {"code": 400}), RequestRefused)
    for odd in ("text", None, {"code": "x"}, {"code": 7}):
        assert isinstance(errors.of_event("there", odd), errors.ServerFaulty)
