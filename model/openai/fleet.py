"""The servers behind the engine: their start, their watch, and whose turn it is.

At the start all are asked what they are; one that answers is enough, and those that are away are
looked for again and again. Servers of different models are refused. Waiting requests get their
turn by priority, then as they came; a server gets no more than its pace allows. While the engine
runs, a task per server looks at its queue, and whether it is back where it was left alone.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Collection, Sequence

import structlog

from model.engine import ChatTokenizer, EngineError, EngineUnavailable, RequestRefused, Sampling
from model.openai.answers import metric
from model.openai.client import Client
from model.openai.dialects import require_sampling
from model.openai.endpoint import Endpoint, choose
from model.openai.errors import ServerAway, ServerError, ServerMisconfigured, WrongModel
from model.openai.job import Job
from model.openai.options import Options
from model.openai.probe import LOOK_S, Server, look, look_again

log = structlog.get_logger(__name__)

_LOOK_AGAIN_S = 0.5  # while the engine starts and no server answers yet


class Turns:
    """Who waits for a server: the highest priority first, then as they came."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._left = 0  # of those in the heap, who waits no more
        self._heap: list[tuple[int, int, Job, asyncio.Future[Endpoint], Collection[Endpoint]]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, job: Job, tried: Collection[Endpoint]) -> "asyncio.Future[Endpoint]":
        """A place in the queue; what is returned gets the server."""
        turn: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        entry = (-job.request.priority, next(self._numbers), job, turn, tried)
        heapq.heappush(self._heap, entry)
        return turn

    def leave(self) -> None:
        """One of those who waited went away. They are swept out now and then: behind a server that
        stands still, thousands may come and go."""
        self._left += 1
        if self._left > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if not entry[3].done()]
            heapq.heapify(self._heap)
            self._left = 0

    def deal(self, endpoints: Sequence[Endpoint], most: int) -> None:
        """Give servers to those who wait, as long as any has room; ``most`` out over all."""
        while self._heap:
            _, _, job, turn, tried = self._heap[0]
            if not turn.done():
                if sum(one.outstanding for one in endpoints) >= most:
                    return
                chosen = choose(endpoints, job.keys, tried)
                if chosen is None:
                    return
                chosen.outstanding += 1
                chosen.seen.add(job.keys)
                turn.set_result(chosen)
            heapq.heappop(self._heap)

    def give_up(self, error: EngineError) -> None:
        """Nobody gets a server any more: whoever waits ends with ``error``."""
        for _, _, _, turn, _ in self._heap:
            if not turn.done():
                turn.set_exception(error)
        self._heap.clear()


class Fleet:
    """The endpoints of the options; ``sampling`` will be asked of all of them.

    ``context_length``: tokens that each must take, once that is settled.
    """

    def __init__(self, options: Options, sampling: Sampling) -> None:
        self._options, self._sampling = options, sampling
        self.context_length = 0
        self._turns = Turns()
        self._tasks: list[asyncio.Task[None]] = []
        self.endpoints: list[Endpoint] = []

    @property
    def servers(self) -> list[Server]:
        """Those that have answered so far."""
        return [one.server for one in self.endpoints if one.server]

    @property
    def slots(self) -> int:
        """Most requests that may be out now."""
        return min(self._options.slots, sum(one.limit for one in self.endpoints))

    async def start(self, tokenizer: ChatTokenizer) -> None:
        """Returns when a server has answered. Raises ``EngineError``: what is wrong with the
        first of those that are not what the settings say, or that none answers in time."""
        options = self._options
        self.endpoints = [
            Endpoint(
                Client(
                    address,
                    api_key=options.api_key,
                    connect=options.connect,
                    ca_file=options.ca_file,
                ),
                options.slots,
            )
            for address in options.endpoints
        ]
        try:
            await self._first_answer(tokenizer)
        except BaseException:
            await self.stop()
            raise
        self._tasks = [
            asyncio.create_task(self._watch(one, tokenizer), name=f"watch {one.where}")
            for one in self.endpoints
        ]

    async def stop(self) -> None:
        """Close all connections."""
        self.give_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await asyncio.gather(*(one.client.close() for one in self.endpoints))

    async def turn(self, job: Job, tried: Collection[Endpoint]) -> Endpoint:
        """Wait for a server; ``release`` it afterwards."""
        turn = self._turns.add(job, tried)
        self.deal()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given just now
                self.release(turn.result())
            else:
                self._turns.leave()
            raise

    def give_up(self) -> None:
        """Nobody gets a server any more: whoever waits ends as ``EngineUnavailable``."""
        self._turns.give_up(EngineUnavailable("The engine was stopped."))

    def release(self, endpoint: Endpoint) -> None:
        """A request is off that server, whatever became of it."""
        endpoint.outstanding -= 1
        self.deal()

    def deal(self) -> None:
        """Something may have changed: give what there is."""
        self._turns.deal(self.endpoints, self._options.slots)

    # --- the start --------------------------------------------------------------------------------

    async def _first_answer(self, tokenizer: ChatTokenizer) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._options.start
        while True:
            looks = (self._look(one, tokenizer) for one in self.endpoints)
            errors = [error for error in await asyncio.gather(*looks) if error]
            for error in errors:
                if not isinstance(error, ServerError) or error.at_once:
                    raise error
            if self.servers:
                return
            if loop.time() >= until:
                told = " ".join(dict.fromkeys(map(str, errors)))
                raise ServerAway(f"No model server answers. {told}")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _look(self, endpoint: Endpoint, tokenizer: ChatTokenizer) -> EngineError | None:
        """Ask what it is; returns what is wrong with it."""
        try:
            server = await look(endpoint.client, self._options, tokenizer)
            self._require_fit(endpoint, server)
        except EngineError as error:
            endpoint.breaker.failed(str(error), at_once=True)
            return error
        endpoint.is_known(server)
        return None

    def _require_fit(self, endpoint: Endpoint, server: Server) -> None:
        """Raises ``EngineError`` where it cannot stand beside the others, or be asked at all."""
        require_sampling(endpoint.where, server.dialect, self._sampling)
        if server.context_length and server.context_length < self.context_length:
            raise ServerMisconfigured(
                f"{endpoint.where} takes {server.context_length} tokens, the others "
                f"{self.context_length}. Give it as long a context."
            )
        if any(other.fingerprint != server.fingerprint for other in self.servers):
            raise WrongModel(
                f"{endpoint.where} says another thing of {server.model} than the other servers "
                "of model.openai.endpoints. Serve the same model from all of them."
            )

    # --- while it runs ----------------------------------------------------------------------------

    async def _watch(self, endpoint: Endpoint, tokenizer: ChatTokenizer) -> None:
        while True:
            await asyncio.sleep(self._options.poll)
            try:
                await self._glance(endpoint, tokenizer)
            except Exception as error:  # whatever it is, the next look comes
                log.error("model_server_watch_failed", error=type(error).__name__)
            self.deal()

    async def _glance(self, endpoint: Endpoint, tokenizer: ChatTokenizer) -> None:
        """Is it there (again), and how many wait there?"""
        if endpoint.server is None:
            if not endpoint.breaker.is_due:
                return
            if error := await self._look(endpoint, tokenizer):
                log.debug("model server is not there yet", server=endpoint.where, code=error.code)
            else:
                log.info("model server has come", server=endpoint.where)
        elif endpoint.breaker.is_due:
            await self._knock(endpoint)
        elif endpoint.server.metrics:
            with contextlib.suppress(ServerError, RequestRefused):  # the next request will tell
                got = await endpoint.client.get("/metrics", timeout=LOOK_S)
                page, dialect = got.decode("utf-8", errors="replace"), endpoint.server.dialect
                waiting, running = metric(page, dialect.waiting), metric(page, dialect.running)
                endpoint.pace.queue(int(waiting or 0), int(running or 0), endpoint.outstanding)

    async def _knock(self, endpoint: Endpoint) -> None:
        assert endpoint.server is not None  # noqa: S101 - else it is looked at anew
        try:
            await look_again(endpoint.client, self._options, endpoint.server)
        except EngineError as error:
            endpoint.breaker.failed(str(error))
        else:
            endpoint.breaker.is_back()
