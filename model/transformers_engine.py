"""The ``transformers`` engine: a Hugging Face model in this process, many requests at once.

Requests come in from event loops and are checked there; a thread of its own runs the model, one
step after another (``model.batch``), and hands pieces and results back to the loop that asked.
Whoever asked always gets an end: a generation, ``EngineUnavailable`` when a step fails or the
engine stops, or their own cancellation, which frees the row at the next step.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from model.adapters import adapter_digest, require_adapter
from model.chat import HfChatTokenizer
from model.checks import check_recorded, check_request
from model.engine import (
    Capacity,
    Chunk,
    EngineDescription,
    EngineError,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
    StepFailed,
)
from model.libraries import library_versions
from model.reply import Reply
from model.rescoring import Scoring
from model.scoring import tolerance_of
from model.stats import EngineStats
from model.tally import Tally
from model.threads import configure_environment
from model.weights import ModelFiles, quiet, resolve

if TYPE_CHECKING:
    from model.batch import Batch
    from model.loading import Loaded

log = structlog.get_logger(__name__)

MAX_FAILURES = 3  # steps that fail one after the other before the model itself is looked at


class TransformersEngine:
    """Answers up to ``slots`` requests at once; ``max_queued`` more wait.

    ``name``: nothing for the default model, a local folder or a Hugging Face name; ``revision``
    pins the latter. ``device``, ``dtype``, ``context_length`` (tokens): see
    ``model.loading.load_model``. ``threads``: CPU threads of the model. ``read_tokens``: prompt
    tokens read in one step, which is what others wait at most for somebody's long prompt.
    ``kept_prompts``: prompts that ended and stay in memory, for others that begin alike.
    ``quantization``: ``none``, or ``int4`` for weights of 4 bits on a CPU.
    ``pinned``: the digest that the weights must have. ``offload``: folder for the layers of a model
    that is larger than memory. ``adapters``: folders of LoRA weights by their names.
    ``progress`` is called, in the engine's thread, with a line per stage of the start.
    """

    def __init__(
        self,
        name: str | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        slots: int = 8,
        context_length: int | None = None,
        threads: int = 1,
        cache_dir: Path | None = None,
        *,
        max_queued: int = 1024,
        read_tokens: int = 256,
        kept_prompts: int = 8,
        quantization: str = "none",
        pinned: str | None = None,
        offload: str | None = None,
        adapters: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = quiet,
    ) -> None:
        self._name, self._revision, self._cache_dir = name, revision, cache_dir
        self._device, self._dtype, self._context_length = device, dtype, context_length
        self._slots, self._threads = slots, threads
        self._max_queued, self._read_tokens = max_queued, read_tokens
        self._kept_prompts, self._quantization = kept_prompts, quantization
        self._pinned, self._offload, self._adapters = pinned, offload, adapters or {}
        self._progress = progress
        self._tokenizer: HfChatTokenizer | None = None
        self._description: EngineDescription | None = None
        self._vocabulary = 0
        self._steps, self._slowest_s = 0, 0.0
        self._tally = Tally()
        # What follows is shared with the engine's thread, under this condition.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running = False
        self._stopping = False
        self._inbox: deque[Reply | Scoring] = deque()
        self._scorings = 0
        self._in_flight: dict[str, Reply] = {}

    @property
    def tokenizer(self) -> HfChatTokenizer:
        """The model's tokenizer; ``EngineUnavailable`` before the first start."""
        if self._tokenizer is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._tokenizer

    @property
    def vocabulary(self) -> int:
        """Ids run from 0 to this, excluded; 0 before the first start."""
        return self._vocabulary

    def describe(self) -> EngineDescription:
        """Model, weights and versions; ``EngineUnavailable`` before the first start."""
        if self._description is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._description

    def capacity(self) -> Capacity:
        """Slots in all, slots that nobody holds or waits for, prompt tokens not read yet."""
        with self._changed:
            slots = self._slots if self._running else 0
            free = slots - len(self._in_flight)
            unread = sum(reply.unread for reply in self._in_flight.values())
        return Capacity(slots, max(0, free), unread)

    async def start(self) -> None:
        """Load and warm up; raises ``ModelNotFound`` or ``EngineError``."""
        if self._thread and self._thread.is_alive():
            return
        configure_environment()
        ready: Future[None] = Future()
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="twite-engine", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.shield(asyncio.wrap_future(ready))
        except asyncio.CancelledError:
            self._ask_to_stop()
            raise

    async def stop(self) -> None:
        """End the thread after its step; requests in flight end as ``EngineUnavailable``."""
        self._ask_to_stop()
        if self._thread:
            await asyncio.to_thread(self._thread.join)

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole reply; raises ``RequestRefused`` or ``EngineUnavailable``."""
        return await self._tally.generate(self._submitted(request, streamed=False))

    def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply piece by piece; leaving the loop early cancels the request."""
        return self._tally.stream(self._submitted(request, streamed=True))

    async def cancel(self, request_id: str) -> None:
        """The request finishes as ``cancelled`` at the next step, with what it has by then."""
        with self._changed:
            if reply := self._in_flight.get(request_id):
                reply.wanted_end = True

    async def score(
        self,
        prompt: Prompt,
        output_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None = None,
    ) -> Score:
        """One forward pass between the steps of those who answer, whom it takes no slot from."""
        scoring = self._submit_scoring(prompt.token_ids, output_ids, sampling, adapter)
        try:
            return await asyncio.wrap_future(scoring.done)
        finally:
            with self._changed:
                self._scorings -= 1

    def _submit_scoring(
        self,
        prompt_ids: Sequence[int],
        output_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None,
    ) -> Scoring:
        with self._changed:
            if not self._running:
                raise EngineUnavailable("The engine is not running.")
            told = self.describe()
            limits = {"vocabulary": self._vocabulary, "context_length": told.context_length}
            check_recorded(prompt_ids, output_ids, sampling, **limits)
            require_adapter(adapter, told.adapters)
            if self._scorings >= self._max_queued:
                raise EngineUnavailable(f"The queue is full ({self._max_queued} replies to score).")
            tolerance = tolerance_of(told.precision)
            scoring = Scoring(prompt_ids, output_ids, sampling, tolerance, adapter)
            self._scorings += 1
            self._inbox.append(scoring)
            self._changed.notify()
        return scoring

    def stats(self) -> EngineStats:
        """Counters, and how full the batch is now."""
        with self._changed:
            there, running = len(self._in_flight), self._running
            taken = sum(reply.read + len(reply.token_ids) for reply in self._in_flight.values())
        length = self._description.context_length if self._description else 1
        return self._tally.now(
            running=min(there, self._slots),
            waiting=max(0, there - self._slots),
            cache_use=taken / (self._slots * length),
            steps=self._steps,
            slowest_s=self._slowest_s,
            state="up" if running else "stopped",
        )

    # --- the callers' side --------------------------------------------------------------------

    @contextmanager
    def _submitted(self, request: GenerationRequest, *, streamed: bool) -> Iterator[Reply]:
        reply = self._submit(request, streamed=streamed)
        try:
            yield reply
        finally:
            self._leave(reply)

    def _submit(self, request: GenerationRequest, *, streamed: bool) -> Reply:
        """Check the request and put it where the engine's thread finds it."""
        with self._changed:
            if not self._running:
                raise EngineUnavailable("The engine is not running.")
            length = self.describe().context_length
            check_request(request, vocabulary=self._vocabulary, context_length=length)
            require_adapter(request.adapter, self.describe().adapters)
            if request.id in self._in_flight:
                raise RequestRefused("A request with this id is in flight already.")
            if len(self._in_flight) >= self._slots + self._max_queued:
                raise EngineUnavailable(f"The queue is full ({self._max_queued} requests wait).")
            room = length - len(request.prompt.token_ids)
            decoder = self.tokenizer.stream_decoder()
            reply = Reply(request, decoder, room=room, streamed=streamed)
            self._in_flight[request.id] = reply
            self._inbox.append(reply)
            self._changed.notify()
        return reply

    def _leave(self, reply: Reply) -> None:
        """The caller is gone, with its answer or without: the id may be used again."""
        reply.leave()
        with self._changed:
            if self._in_flight.get(reply.request.id) is reply:
                del self._in_flight[reply.request.id]

    def _ask_to_stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    # --- the engine's thread --------------------------------------------------------------------

    def _run(self, ready: "Future[None]") -> None:
        batch: Batch | None = None
        try:
            batch = self._prepare()
            with self._changed:
                self._running = True
            ready.set_result(None)
            self._serve(batch)
        except EngineError as error:
            ready.set_exception(error)
        except BaseException as error:
            log.error("engine_failed", error=_told(error))
            if not ready.done():
                ready.set_exception(
                    EngineError(f"The engine cannot start: {type(error).__name__}: {error}")
                )
        finally:
            self._close(batch)

    def _prepare(self) -> "Batch":
        """Find, load and warm up the model."""
        files = resolve(
            self._name, self._revision, self._cache_dir, self._progress, pinned=self._pinned
        )
        adapters = {name: Path(folder) for name, folder in self._adapters.items()}
        digests = {name: adapter_digest(name, folder) for name, folder in adapters.items()}
        self._progress(f"Loading {files.name}")
        _use_threads(self._threads)
        from model.batch import Batch
        from model.loading import load_model
        from model.placing import Placing
        from model.slots import Slots

        loaded = load_model(
            files,
            device=self._device,
            dtype=self._dtype,
            context_length=self._context_length,
            slots=self._slots + self._kept_prompts,
            placing=Placing(Path(self._offload), {}) if self._offload else None,
            adapters=adapters,
        )
        length, kept = loaded.context_length, self._kept_prompts
        slots = Slots(loaded.model, self._slots, length, kept, self._quantization)
        # The first passes choose kernels and take memory: better now than in a request.
        with self._timed():
            slots.try_out()
        self._tokenizer, self._vocabulary = loaded.tokenizer, loaded.vocabulary
        self._description = _description(files, loaded, digests, self._quantization)
        return Batch(
            slots, limit=self._slots, end_ids=loaded.end_ids, read_tokens=self._read_tokens
        )

    def _serve(self, batch: "Batch") -> None:
        """Step as long as there is work, sleep while there is none, until asked to stop."""
        failures = 0
        while self._next_work(batch):
            try:
                with self._timed():
                    batch.step()
                self._steps += 1
                failures = 0
            except Exception as error:
                failures += 1
                what = type(error).__name__
                log.error("engine_step_failed", error=_told(error), failures=failures)
                for reply in batch.broke():
                    reply.fail(StepFailed(f"The engine's step failed: {what}."))
                if failures >= MAX_FAILURES and not batch.works():
                    return  # it does not even take what it took at the start

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._slowest_s = max(self._slowest_s, time.monotonic() - started)

    def _next_work(self, batch: "Batch") -> bool:
        """Wait for work and take newcomers in; False when asked to stop."""
        with self._changed:
            while not (self._stopping or self._inbox or batch):
                self._changed.wait()
            for item in self._inbox:
                batch.scoring.append(item) if isinstance(item, Scoring) else batch.add(item)
            self._inbox.clear()
            return not self._stopping

    def _close(self, batch: "Batch | None") -> None:
        """Nobody gets in any more, and whoever is in hears of it."""
        with self._changed:
            self._running = False
            left = [*self._inbox, *(batch.clear() if batch else ())]
            self._inbox.clear()
        for reply in left:
            reply.fail(EngineUnavailable("The engine was stopped."))


def _told(error: BaseException) -> str:
    """For a log line. What torch and the system say is about shapes, memory and files; other
    errors may quote what they were raised about, so only their kind is told."""
    safe = isinstance(error, EngineError | RuntimeError | MemoryError | OSError)
    return repr(error) if safe else type(error).__name__


def _use_threads(threads: int) -> None:
    """CPU threads of the calling thread's torch work; one for independent operations."""
    import torch

    torch.set_num_threads(threads)
    try:
        torch.set_num_interop_threads(1)
    except RuntimeError:  # torch has worked in this process before; then it stays as it is
        log.debug("interop_threads_kept", threads=torch.get_num_interop_threads())


def _description(
    files: ModelFiles, loaded: "Loaded", adapters: Mapping[str, str], quantization: str
) -> EngineDescription:
    bits = "" if quantization == "none" else f"-{quantization}"
    return EngineDescription(
        name="transformers",
        model=files.name,
        revision=files.revision,
        weights_digest=files.digest,
        precision=loaded.precision + bits,
        attention=loaded.attention,
        context_length=loaded.context_length,
        versions=library_versions(),
        adapters=adapters,
    )
