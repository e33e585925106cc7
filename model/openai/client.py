"""HTTP to one server: JSON in, JSON or a stream of JSON events out, everything bounded.

httpx2 does HTTP and server-sent events (the client that huggingface_hub brings anyhow; OpenAI's
own package retries by itself and hides the fields that are not OpenAI's). What is added: every way
in which it can go wrong becomes one of ``model.openai.errors``, an answer has a size and a time
that it must not exceed, and nothing is followed, quoted or logged.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from model.openai.errors import (
    ServerAway,
    ServerError,
    ServerFaulty,
    ServerMisconfigured,
    ServerSlow,
    of_status,
)

EVENT_BYTES = 256 * 1024  # one event of a stream
ANSWER_BYTES = 16 * 1024 * 1024  # an answer in one piece
ERROR_BYTES = 64 * 1024
_KEEP_S = 3.0
_AFTER_THE_END_S = 1.0  # for the last bytes of a stream, so that its connection can be used again


class Client:
    """Talks to the server at ``address``. ``connect``: seconds for a connection. Raises
    ``ServerMisconfigured`` for an address or a ``ca_file`` that are none."""

    def __init__(
        self, address: str, *, api_key: str | None, connect: float, ca_file: Path | None = None
    ) -> None:
        try:
            base = httpx2.URL(address.rstrip("/").removesuffix("/v1"))
        except httpx2.InvalidURL:
            raise ServerMisconfigured(
                "An address in model.openai.endpoints is none. Write it as http://HOST:PORT."
            ) from None
        self.where = f"{base.host}:{base.port or (443 if base.scheme == 'https' else 80)}"
        self._http = httpx2.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=httpx2.Timeout(None, connect=connect),
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=None,
                # Shorter than servers keep them (uvicorn and llama.cpp: 5 s), so that no request
                # goes out on a connection that is just being closed.
                keepalive_expiry=_KEEP_S,
            ),
            follow_redirects=False,
            trust_env=False,
            verify=_trust(base.scheme, ca_file),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, *, timeout: float) -> bytes:
        """The body of a page. Raises ``ServerError``."""
        return await self._whole("GET", path, None, timeout)

    async def get_json(self, path: str, *, timeout: float) -> Any:
        """A page of JSON. Raises ``ServerError``."""
        return self._parsed(await self._whole("GET", path, None, timeout))

    async def post_json(self, path: str, body: Mapping[str, Any], *, timeout: float) -> Any:
        """The whole answer. Raises ``ServerError`` or ``RequestRefused``."""
        return self._parsed(await self._whole("POST", path, body, timeout))

    async def events(
        self, path: str, body: Mapping[str, Any], *, first: float, between: float
    ) -> AsyncGenerator[Any]:
        """The events of a streamed answer up to ``[DONE]``, or to the end of the stream.

        ``first``, ``between``: seconds until the first event, and from one to the next. Raises
        ``ServerError`` or ``RequestRefused``.
        """
        loop = asyncio.get_running_loop()
        with self._named():
            async with contextlib.AsyncExitStack() as stack:
                sse = self._http.sse(path, method="POST", json=body, max_event_size=EVENT_BYTES)
                limit = loop.time() + first
                async with asyncio.timeout_at(limit):
                    source = await stack.enter_async_context(sse)
                    await self._check(source.response)
                events = aiter(source)
                while True:
                    async with asyncio.timeout_at(limit):
                        event = await anext(events, None)
                    if event is None:
                        return
                    if event.data == "[DONE]":
                        await _drain(events)
                        return
                    yield self._parsed(event.data)
                    limit = loop.time() + between

    async def _whole(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> bytes:
        with self._named():
            async with asyncio.timeout(timeout), self._http.stream(method, path, json=body) as got:
                await self._check(got)
                return await self._bounded(got, ANSWER_BYTES)

    async def _check(self, response: httpx2.Response) -> None:
        if response.status_code == 200:
            return
        body = b""
        with contextlib.suppress(ServerFaulty, httpx2.HTTPError):  # the status says enough
            body = await self._bounded(response, ERROR_BYTES)
        raise of_status(self.where, response.status_code, response.headers, body)

    async def _bounded(self, response: httpx2.Response, most: int) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most:
                raise ServerFaulty(f"{self.where} answers with more than {most} bytes.")
        return bytes(body)

    def _parsed(self, text: str | bytes) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ServerFaulty(
                f"{self.where} answers with what is no JSON. Check model.openai.endpoints, and "
                "what stands between Twite and that server."
            ) from None

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the library by what to do about them; their own texts may quote anything."""
        try:
            yield
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout):
            raise ServerSlow(
                f"{self.where} took too long. See what it is doing, or raise the times of "
                "model.openai."
            ) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise ServerAway(
                f"{self.where} cannot be reached. Start that server, or mend "
                "model.openai.endpoints."
            ) from None
        except (httpx2.DecodingError, httpx2.SSEError) as error:
            raise _unreadable(self.where, error) from None
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL):
            raise ServerMisconfigured(
                f"Nothing can be sent to {self.where}: its address or the key cannot be written "
                "in HTTP. Mend model.openai.endpoints or model.openai.api_key."
            ) from None
        except httpx2.HTTPError:
            raise ServerAway(f"{self.where} broke the connection. Look at its log.") from None


def _trust(scheme: str, ca_file: Path | None) -> ssl.SSLContext | bool:
    """The authorities to trust; none are loaded, which takes a while, where none are needed."""
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else True
    except OSError as error:  # an SSLError is one
        raise ServerMisconfigured(
            f"The file of model.openai.ca_file cannot be used: {error.strerror or error}. Name a "
            "PEM file with the certificates of authorities."
        ) from None


def _unreadable(where: str, error: Exception) -> ServerError:
    kind = "compressed data that is broken" if isinstance(error, httpx2.DecodingError) else ""
    return ServerFaulty(
        f"{where} answers with {kind or 'no stream of events, or an endless one'}. Check "
        "model.openai.endpoints, and what stands between Twite and that server."
    )


async def _drain(events: AsyncIterator[Any]) -> None:
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_AFTER_THE_END_S):
            async for _ in events:
                pass
