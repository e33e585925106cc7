"""What a worker tells its surroundings: ``/livez``, ``/readyz`` and ``/metrics``.

A thread of its own serves them, so that they still answer when the event loop does not; each
answer asks the loop for the worker's state and waits for it a bounded time. Alive: the loop
turns and the engine has not given up. Ready: the group has assigned, every assigned partition is
open, the engine is up or is just being started again.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Generic, TypeVar, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from bot.engine_metrics import EngineCollector
from bot.errors import Trouble
from bot.settings import HttpSettings
from consumers.metrics import Metrics, WorkerCollector, WorkerState
from model.stats import EngineStats

log = structlog.get_logger(__name__)
T = TypeVar("T")

FIRST_PORT = 9464  # where Prometheus exporters of OpenTelemetry listen
PORTS_TRIED = 100
ANSWER_S = 2.0  # how long the event loop may take to say how it is
STALLED_S = 30.0  # the reading loop turns several times a second


class Status(Generic[T]):
    """Asks a worker, or its engine, how it is, from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, state: Callable[[], T]) -> None:
        self._loop = loop
        self._state = state

    def __call__(self) -> T:
        """The state, which is None before there is a worker. Raises ``TimeoutError``."""

        async def ask() -> T:
            return self._state()

        asked = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        try:
            return asked.result(ANSWER_S)
        finally:
            asked.cancel()


def application(
    status: Callable[[], WorkerState | None],
    is_ready: Callable[[], bool],
    metrics: Metrics,
    engine: Callable[[], EngineStats | None] = lambda: None,
    more: Sequence[Collector] = (),
) -> WSGIApplication:
    """The three pages. ``is_ready``: assigned, and the engine has been up; ``more``: other
    metrics."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(metrics, _quietly(status)))
    registry.register(EngineCollector(_quietly(engine)))
    for collector in more:
        registry.register(collector)
    exposition = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                return cast("Iterable[bytes]", exposition(environ, start))
            case "/livez":
                return _answer(start, *alive(status, engine))
            case "/readyz":
                return _answer(start, *ready(status, is_ready, engine))
        return _answer(start, "404 Not Found", {"pages": ["/livez", "/readyz", "/metrics"]})

    return app


def alive(
    status: Callable[[], WorkerState | None],
    engine: Callable[[], EngineStats | None] = lambda: None,
) -> tuple[str, dict[str, Any]]:
    """200 while the event loop answers, the reading loop turns and the engine has not given up
    for good (one in the worker's own process may; only a new worker helps then)."""
    try:
        state, stats = status(), engine()
    except TimeoutError:
        return "503 Service Unavailable", {"alive": False, "why": "the event loop is stuck"}
    if state is not None and state.loop_lag_seconds > STALLED_S:
        why = f"nothing was read for {state.loop_lag_seconds:.0f} s"
        return "503 Service Unavailable", {"alive": False, "why": why}
    if state is not None and stats is not None and stats.state == "stopped":
        return "503 Service Unavailable", {"alive": False, "why": "the engine has given up"}
    return "200 OK", {"alive": True}


def ready(
    status: Callable[[], WorkerState | None],
    is_ready: Callable[[], bool],
    engine: Callable[[], EngineStats | None] = lambda: None,
) -> tuple[str, dict[str, Any]]:
    """200 once everything that was assigned is being read and the engine answers, or is away for
    a moment only."""
    try:
        state, stats = status(), engine()
    except TimeoutError:
        return "503 Service Unavailable", {"ready": False, "why": "the event loop is stuck"}
    if state is None or not is_ready():
        return "503 Service Unavailable", {"ready": False, "why": "starting"}
    if stats is not None and stats.state == "stopped":
        return "503 Service Unavailable", {"ready": False, "why": "the engine has given up"}
    if stats is not None and stats.state == "failing":
        again = f"keeps failing, it was started again {stats.restarts} times"
        why = f"the engine {again if stats.restarts else 'has no server that answers'}"
        return "503 Service Unavailable", {"ready": False, "why": why}
    partitions = {f"{p.topic}/{p.partition}": p.state for p in state.partitions}
    if not state.is_ready:
        read_anew = any(not view.ready for view in state.views)
        why = "views are being read" if read_anew else "partitions are being taken over"
        return "503 Service Unavailable", {"ready": False, "why": why, "partitions": partitions}
    return "200 OK", {"ready": True, "partitions": partitions}


@contextlib.contextmanager
def serving(settings: HttpSettings, app: WSGIApplication) -> Iterator[int]:
    """Serve while this lasts; gives the port. Raises ``Trouble`` where it is taken."""
    server = _listen(settings, app)
    port = int(server.server_port)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.05,), name="twite-http", daemon=True
    )
    thread.start()
    log.info("health and metrics", host=settings.host, port=port)
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(settings: HttpSettings, app: WSGIApplication) -> WSGIServer:
    """On the port of the settings, else on the first free one from ``FIRST_PORT`` on."""
    wanted = [settings.port] if settings.port is not None else _free_ports()
    error: OSError | None = None
    for port in wanted:
        try:
            return make_server(settings.host, port, app, _Server, _QuietHandler)
        except OSError as failed:
            error = failed
    raise Trouble(
        f"The port for health and metrics cannot be opened: {error}.",
        where=f"{settings.host}:{settings.port}",
        todo="Set TWITE_HTTP__PORT to a free port, or leave it unset to have one chosen.",
    )


def _free_ports() -> Iterable[int]:
    return [*range(FIRST_PORT, FIRST_PORT + PORTS_TRIED), 0]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per call, so that one slow caller holds up no other."""

    daemon_threads = True
    allow_reuse_address = True  # the port of a worker that was killed is free again at once
    request_queue_size = 32

    def server_bind(self) -> None:
        # Not WSGIServer's, which looks up our name in the DNS and may wait long for it.
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # seconds that a caller may be silent

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        """Scrapes are no news."""


def _quietly(status: Callable[[], T | None]) -> Callable[[], T | None]:
    def ask() -> T | None:
        try:
            return status()
        except TimeoutError:
            return None

    return ask


def _answer(start: StartResponse, status: str, body: dict[str, Any]) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps(body).encode() + b"\n"]
