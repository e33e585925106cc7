"""What can go wrong with a server, named by what to do; no message quotes a prompt or a reply.

Servers like to quote what they were sent, so of their answers only the status, stable codes and
numbers are told. All but ``RequestRefused`` may be tried again elsewhere or later.
"""

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from model.engine import EngineUnavailable, RequestRefused

LONGEST_PAUSE_S = 300.0
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,48}")
_TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|too (long|large|many tokens)", re.IGNORECASE
)


class ServerError(EngineUnavailable):
    """Base: a server did not answer as it should. ``at_once``: it will not mend itself, so that
    server is left alone from now on."""

    code = "server-error"
    at_once = False


class ServerAway(ServerError):
    """No connection, or it broke."""

    code = "server-away"


class ServerSlow(ServerError):
    """No byte, no token or no end in time."""

    code = "server-slow"


class ServerBusy(ServerError):
    """It has too much (429, 503); ``retry_after`` in seconds where it says so."""

    code = "server-busy"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerFaulty(ServerError):
    """It answered what is no answer: 5xx, half a stream, no JSON, a page of HTML."""

    code = "server-faulty"


class ServerMisconfigured(ServerError):
    """It is not the server that the settings mean: key refused, no such path or model, another
    model, a redirect. Somebody has to change something."""

    code = "server-misconfigured"
    at_once = True


class NothingThere(ServerMisconfigured):
    """It has no such page: another kind of server, or an address that is not whole."""

    code = "nothing-there"


class WrongModel(ServerMisconfigured):
    """Another model answers there."""

    code = "wrong-model"


_TODO = {
    401: "Set model.openai.api_key to a key that it knows.",
    403: "Set model.openai.api_key to a key that may use this model.",
    404: "Check the address in model.openai.endpoints and the name in model.openai.model.",
    405: "Check that the address in model.openai.endpoints is that of an OpenAI-compatible server.",
}


def of_status(
    where: str, status: int, headers: Mapping[str, str], body: bytes
) -> ServerError | RequestRefused:
    """The error for an answer that is not 200. ``where``: the server, for people."""
    said = _said(body)
    what = f"{where} answers {status}{said}."
    if 300 <= status < 400:
        return ServerMisconfigured(
            f"{what} It sends us somewhere else, which is not followed, so that no prompt goes to "
            "a stranger. Set model.openai.endpoints to the final address."
        )
    if status in _TODO:
        kind = NothingThere if status in {404, 405} else ServerMisconfigured
        return kind(f"{what} {_TODO[status]}")
    if status in {429, 503}:
        return ServerBusy(
            f"{what} It has too much to do; it gets less for now.", retry_after(headers)
        )
    if status in {400, 413, 422}:
        return RequestRefused(f"{what} {_refusal(body)}")
    return ServerFaulty(f"{what} Look at that server's log.")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds of a ``Retry-After``, which has seconds or a date; none where it has neither.

    ``now``: seconds since 1970."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return min(LONGEST_PAUSE_S, float(value))
    try:
        moment = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, min(LONGEST_PAUSE_S, moment - (time.time() if now is None else now)))


def of_event(where: str, error: Any) -> ServerError | RequestRefused:
    """The error that a server tells inside of a stream."""
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 600:
        return of_status(where, status, {}, json.dumps({"error": error}).encode())
    return ServerFaulty(f"{where} broke off with an error of its own. Look at that server's log.")


def _refusal(body: bytes) -> str:
    if _TOO_LONG.search(body[:65_536].decode("utf-8", errors="replace")):
        return (
            "The prompt and its reply are longer than it takes. Set model.openai.context_length to "
            "what it takes, or bot.prompt_tokens lower."
        )
    return "It does not take this request. Look at that server's log for what it objects to."


def _said(body: bytes) -> str:
    """Its own stable code, if it has one: never its message."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = error.get("error", error) if isinstance(error, dict) else {}
    kind = error.get("type") if isinstance(error, dict) else None
    return f" ({kind})" if isinstance(kind, str) and _CODE.fullmatch(kind) else ""
