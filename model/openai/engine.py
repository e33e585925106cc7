"""The ``openai`` engine: replies from one or several OpenAI-compatible servers.

Requests come in and are checked; each waits for its turn (the higher priority first), goes to the
server that suits it best, and is made again elsewhere if that fails before anybody has seen a part
of the answer and the retry budget allows it. Whoever asked always gets an end: a generation, a
named error, or their own cancellation, which closes the connection, so that the server stops too.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any

import structlog

from model.checks import check_recorded, check_request
from model.engine import (
    Capacity,
    ChatTokenizer,
    Chunk,
    DeadlineExceeded,
    EngineDescription,
    EngineError,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    NotSupported,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
)
from model.openai.answers import Piece, piece_of
from model.openai.budget import RetryBudget
from model.openai.description import description, shortest, vocabulary_of
from model.openai.dialects import body_of_ids, body_of_messages, cannot, sampling_words
from model.openai.endpoint import Endpoint
from model.openai.errors import ServerError, ServerFaulty, ServerSlow, WrongModel
from model.openai.estimate import MARGIN, EstimatingTokenizer
from model.openai.fleet import Fleet
from model.openai.job import Job
from model.openai.neutral import Markers, as_sent
from model.openai.options import Options
from model.openai.probe import Server
from model.openai.rescoring import Asked, require_scorable, rescore
from model.openai.tokens import WithMessages, load, texts_of_controls
from model.stats import EngineState, EngineStats
from model.tally import Tally

log = structlog.get_logger(__name__)

_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.1, 2.0


class OpenAIEngine:
    """``tokenizer``: the served model's, in place of the one that ``options`` name. ``sampling``:
    what will be asked for; servers that cannot do it are refused at the start."""

    def __init__(
        self,
        options: Options,
        *,
        tokenizer: ChatTokenizer | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        self._options, self._given = options, tokenizer
        self._sampling = sampling or Sampling()
        self._tokenizer: ChatTokenizer | None = None
        self._description: EngineDescription | None = None
        self._vocabulary = 0
        self._markers = Markers()
        self._fleet = Fleet(options, self._sampling)
        self._budget = RetryBudget(options.retry_share)
        self._tally = Tally()
        self._running = False
        self._jobs: dict[str, Job] = {}

    @property
    def tokenizer(self) -> ChatTokenizer:
        """``EngineUnavailable`` before the first start."""
        if self._tokenizer is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._tokenizer

    @property
    def vocabulary(self) -> int:
        """Ids run from 0 to this, excluded; 0 before the first start."""
        return self._vocabulary

    @property
    def retries(self) -> int:
        """Requests that were made again, since the engine was made."""
        return self._budget.taken

    def describe(self) -> EngineDescription:
        """What the servers say of their model; ``EngineUnavailable`` before the first start."""
        if self._description is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._description

    def capacity(self) -> Capacity:
        """Slots that the servers take now, those that nobody holds or waits for, prompt tokens
        that wait for one."""
        slots = self._fleet.slots if self._running else 0
        waiting = (job for job in self._jobs.values() if not job.has_begun)
        queued = sum(len(job.request.prompt.token_ids) for job in waiting)
        return Capacity(slots, max(0, slots - len(self._jobs)), queued)

    def stats(self) -> EngineStats:
        """What was counted, and how many requests are out."""
        running = sum(job.has_begun for job in self._jobs.values())
        state: EngineState = "stopped"
        if self._running:
            state = "up" if self._fleet.slots else "failing"
        return self._tally.now(state=state, running=running, waiting=len(self._jobs) - running)

    async def start(self) -> None:
        """Load the tokenizer and ask the servers what they are.

        Raises ``ModelNotFound``, or ``EngineError`` where no server answers in time or one is not
        what the settings say.
        """
        if self._running:
            return
        tokenizer, made_for = await self._load_tokenizer()
        fleet = self._fleet = Fleet(self._options, self._sampling)
        await fleet.start(tokenizer)
        self._settle(tokenizer, made_for, fleet.servers)
        self._running = True

    async def stop(self) -> None:
        """Close all connections; requests in flight end as ``EngineUnavailable``."""
        self._running = False
        self._fleet.give_up()  # before what others held is free
        tasks = [job.task for job in self._jobs.values() if job.task]
        for job in list(self._jobs.values()):
            job.fail(EngineUnavailable("The engine was stopped."))
            if job.task:
                job.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fleet.stop()

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole reply; raises ``RequestRefused`` or ``EngineUnavailable``."""
        return await self._tally.generate(self._submitted(request, streamed=False))

    def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply piece by piece; leaving the loop early cancels the request."""
        return self._tally.stream(self._submitted(request, streamed=True))

    async def cancel(self, request_id: str) -> None:
        """The request finishes as ``cancelled`` at once, with what it has by then."""
        if job := self._jobs.get(request_id):
            job.end("cancelled")
            if job.task:
                job.task.cancel()

    async def score(
        self,
        prompt: Prompt,
        output_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None = None,
    ) -> Score:
        """Whether a server would draw the reply again: greedy replies, where it tells the
        log-probabilities of a prompt. Ends after twice ``options.total`` at the latest. Raises
        ``RequestRefused``, ``EngineUnavailable``, ``NotSupported``."""
        length, ids = self.describe().context_length, prompt.token_ids
        check_recorded(
            ids, output_ids, sampling, vocabulary=self._vocabulary, context_length=length
        )
        request = GenerationRequest("score", prompt, sampling, adapter=adapter)
        job = Job(request, self.tokenizer, room=1, streamed=False)
        if not self._running:
            raise EngineUnavailable("The engine is not running.")
        self._require_adapter(adapter)
        require_scorable(self._fleet.servers[0], sampling)
        endpoint = await self._turn_to_score(job)
        try:
            assert endpoint.server is not None  # noqa: S101 - it has room, so it is known
            body = body_of_ids(_name(endpoint.server, request), [*ids, *output_ids])
            asked = Asked(endpoint.client, endpoint.server.dialect, body, self._options.total)
            return await rescore(asked, len(ids))
        except ServerError as error:
            endpoint.failed(error)
            raise
        finally:
            self._fleet.release(endpoint)

    async def _turn_to_score(self, job: Job) -> Endpoint:
        """A server that has room, in as many seconds as an answer may take."""
        try:
            async with asyncio.timeout(self._options.total):
                return await self._fleet.turn(job, ())
        except TimeoutError:
            raise DeadlineExceeded("No server had room to score the reply in time.") from None

    # --- the start --------------------------------------------------------------------------------

    async def _load_tokenizer(self) -> tuple[ChatTokenizer, int | None]:
        if self._given:
            return self._given, None
        if self._options.tokenizer is None:
            return EstimatingTokenizer(), None
        return await load(self._options.tokenizer, self._options.tokenizer_revision)

    def _settle(
        self, tokenizer: ChatTokenizer, made_for: int | None, servers: Sequence[Server]
    ) -> None:
        """What holds for all servers."""
        texts = set[str]().union(*(server.control_texts for server in servers))
        length = shortest(
            made_for, self._options.context_length, *(server.context_length for server in servers)
        )
        self._vocabulary = vocabulary_of(tokenizer, servers)
        self._fleet.context_length = length
        if isinstance(tokenizer, EstimatingTokenizer):
            length = int(length / (1 + MARGIN))
        else:
            texts |= texts_of_controls(tokenizer)
            tokenizer = WithMessages(tokenizer)
        self._markers, self._tokenizer = Markers(texts), tokenizer
        self._description = description(servers, tokenizer, length)

    # --- one request ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _submitted(self, request: GenerationRequest, *, streamed: bool) -> Iterator[Job]:
        job = self._submit(request, streamed=streamed)
        try:
            yield job
        finally:
            self._leave(job)

    def _submit(self, request: GenerationRequest, *, streamed: bool) -> Job:
        """Check the request and give it a task of its own."""
        if not self._running:
            raise EngineUnavailable("The engine is not running.")
        length = self.describe().context_length
        check_request(request, vocabulary=self._vocabulary, context_length=length)
        self._require_possible(request)
        if request.id in self._jobs:
            raise RequestRefused("A request with this id is in flight already.")
        if len(self._jobs) >= self._options.slots + self._options.max_queued:
            raise EngineUnavailable(f"The queue is full ({self._options.max_queued} wait).")
        room = length - len(request.prompt.token_ids)
        job = self._jobs[request.id] = Job(request, self.tokenizer, room=room, streamed=streamed)
        job.expires_in(min(request.deadline or self._options.total, self._options.total))
        job.task = asyncio.create_task(self._serve(job), name="openai request")
        return job

    def _require_possible(self, request: GenerationRequest) -> None:
        servers = self._fleet.servers
        for server in servers:
            if lacks := cannot(server.dialect, request.sampling):
                raise RequestRefused(f"{server.dialect.kind} does not know {', '.join(lacks)}.")
        if not request.prompt.messages and not all(server.by_ids for server in servers):
            raise RequestRefused(
                "A server takes chat messages only, and this prompt has none. Make it with this "
                "engine's tokenizer."
            )
        self._require_adapter(request.adapter)

    def _require_adapter(self, name: str | None) -> None:
        if name and not all(name in server.others for server in self._fleet.servers):
            raise NotSupported(f"A server has no adapter {name!r}; load it there first.")

    def _leave(self, job: Job) -> None:
        """The caller is gone, with its answer or without: the id may be used again."""
        job.leave()
        if self._jobs.get(job.request.id) is job:
            del self._jobs[job.request.id]

    async def _serve(self, job: Job) -> None:
        """The task of one request: it ends, whatever happens."""
        try:
            await self._until_answered(job)
            job.end()
        except EngineError as error:
            job.fail(error)
        except Exception as error:
            # Its words may quote what people wrote.
            log.error("model_request_failed", error=type(error).__name__)
            job.fail(EngineUnavailable(f"The request failed: {type(error).__name__}."))

    async def _until_answered(self, job: Job) -> None:
        """Try servers until one has answered. Raises what the last one did wrong."""
        tried: set[Endpoint] = set()
        self._budget.request()
        for attempt in itertools.count(1):
            endpoint = await self._fleet.turn(job, tried)
            try:
                await self._ask(endpoint, job)
                return
            except ServerError as error:
                endpoint.failed(error)
                log.debug("model server failed", server=endpoint.where, code=error.code)
                if job.shown or not self._budget.take():
                    raise
            finally:
                self._fleet.release(endpoint)
            tried.add(endpoint)
            job.begin_again()
            await asyncio.sleep(_back_off(attempt))

    async def _ask(self, endpoint: Endpoint, job: Job) -> None:
        """One request to one server. Raises ``ServerError`` or ``RequestRefused``."""
        server = endpoint.server
        assert server is not None  # noqa: S101 - it has room, so it is known
        began = asyncio.get_running_loop().time()
        job.begin()
        try:
            async with contextlib.aclosing(self._pieces(endpoint, server, job)) as pieces:
                async for piece in pieces:
                    _require_model(endpoint, server, job, piece)
                    if job.take(piece):
                        break
        except asyncio.CancelledError:
            waited = asyncio.get_running_loop().time() - began
            if job.expired and not job.has_token and waited >= self._options.first_token:
                endpoint.failed(ServerSlow("A deadline passed while it worked on a request."))
            raise
        except RequestRefused:
            endpoint.succeeded()  # it works
            raise
        if not job.has_end:
            raise ServerFaulty(f"{endpoint.where} ended a reply in the middle. Look at its log.")
        if job.overran:
            log.warning("model server gave more tokens than asked for", server=endpoint.where)
        endpoint.succeeded()

    async def _pieces(self, endpoint: Endpoint, server: Server, job: Job) -> AsyncGenerator[Piece]:
        """The answer as it comes; streamed also where nobody looks at the pieces, so that a server
        that stands still is noticed."""
        options = self._options
        body = self._body(server, job)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        events = endpoint.client.events(
            server.path, body, first=options.first_token, between=options.between_tokens
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield piece_of(endpoint.where, event)

    def _body(self, server: Server, job: Job) -> dict[str, Any]:
        request = job.request
        model = _name(server, request)
        if server.by_ids:
            prompt = body_of_ids(model, request.prompt.token_ids)
        else:
            prompt = body_of_messages(model, as_sent(request.prompt.messages, self._markers))
        words = sampling_words(server.dialect, request.sampling, job.room)
        return {**prompt, **words, **server.extras}


def _name(server: Server, request: GenerationRequest) -> str:
    """What to call the model, or the adapter on top of it."""
    if request.adapter is None:
        return server.model
    # SGLang wants both; vLLM serves an adapter as a model of its own.
    is_both = server.dialect.kind == "sglang"
    return f"{server.model}:{request.adapter}" if is_both else request.adapter


def _require_model(endpoint: Endpoint, server: Server, job: Job, piece: Piece) -> None:
    known = {*server.names, server.model, job.request.adapter, _name(server, job.request)}
    if piece.model and piece.model not in known:
        raise WrongModel(
            f"{endpoint.where} answers with another model than {server.model}. Check what it "
            "serves, and what stands between Twite and that server."
        )


def _back_off(attempt: int) -> float:
    """Seconds, with full jitter."""
    return random.uniform(0, min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2**attempt))  # noqa: S311
