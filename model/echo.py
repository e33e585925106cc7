"""The ``echo`` engine: ships for tests and benches, needs no model and no torch.

A request comes in, and at once (or after ``latency_ms``) a text goes out that depends on
nothing but its prompt: ``echo <digest of all ids>: <what people wrote last>``. It keeps every
promise of ``model.engine.Engine``: slots, a bounded queue, cancel, refusals.

Its tokenizer is bytes: ids 0 to 255 are the bytes of UTF-8, ids above are control tokens.
"""

import asyncio
import hashlib
import re
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import groupby

from model.checks import check_request
from model.engine import (
    Capacity,
    ChatMessage,
    Chunk,
    DeadlineExceeded,
    EngineDescription,
    EngineUnavailable,
    FinishReason,
    Generation,
    GenerationRequest,
    Part,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
    Segment,
    Timings,
)
from model.stats import EngineState, EngineStats
from model.stopping import StopStrings
from model.tally import Tally

VERSION = "1"
END = 256
ROLE_IDS = {"system": 257, "user": 258, "assistant": 259}
VOCABULARY = 260


class ByteChatTokenizer:
    """A turn is its role's id, the bytes of its parts, and ``END``."""

    control_ids = frozenset(range(256, VOCABULARY))

    def encode_chat(self, messages: Sequence[ChatMessage]) -> Prompt:
        """The prompt that asks for the next assistant turn; one segment per part."""
        ids: list[int] = []
        segments: list[Segment] = []

        def add(new: Sequence[int], part: Part | None = None) -> None:
            if new:
                segments.append(
                    Segment(len(ids), len(ids) + len(new), part.trust if part else "trusted")
                )
                ids.extend(new)

        for message in messages:
            add([ROLE_IDS[message.role]])
            for part in message.parts:
                add(_to_bytes(part.text), part)
            add([END])
        add([ROLE_IDS["assistant"]])
        return Prompt(tuple(ids), tuple(segments))

    def count(self, text: str) -> int:
        """How many tokens (bytes) a text takes."""
        return len(_to_bytes(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of output ids; control ids and an unfinished character at the end are left out."""
        whole = bytes(i for i in token_ids if i < 256)
        return _complete(whole).decode("utf-8", errors="replace")

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of any ids for people to look at, control tokens by their names."""
        names = {END: "<end>"} | {number: f"<{role}>" for role, number in ROLE_IDS.items()}
        runs = groupby(token_ids, key=lambda i: names.get(i, ""))
        return "".join(name or self.decode(list(ids)) for name, ids in runs)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")  # a lone surrogate becomes "?"


def _complete(data: bytes) -> bytes:
    """``data`` without the bytes of a character that is cut off at the end."""
    for back in range(1, min(3, len(data)) + 1):
        lead = data[-back]
        if lead >= 0xC0:
            length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return data[:-back] if back < length else data
        if lead < 0x80:
            break
    return data


class _Job:
    """One request between its arrival and its end."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.done: asyncio.Future[FinishReason] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.admitted = False
        self.submitted = time.monotonic()
        self.queued_s = 0.0


class EchoEngine:
    """Answers ``slots`` requests at once, each after ``latency_ms`` milliseconds.

    At most ``max_queued`` more wait; beyond that a request ends as ``EngineUnavailable``.
    """

    def __init__(
        self,
        latency_ms: float = 0,
        slots: int = 16,
        *,
        context_length: int = 32768,
        max_queued: int = 1024,
    ) -> None:
        self.tokenizer = ByteChatTokenizer()
        self.vocabulary = VOCABULARY
        self._latency = latency_ms / 1000
        self._slots = slots
        self._context_length = context_length
        self._max_queued = max_queued
        self._running = False
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._busy = 0
        self._tally = Tally()

    async def start(self) -> None:
        """Ready at once."""
        self._running = True

    async def stop(self) -> None:
        """Requests in flight end as ``EngineUnavailable``."""
        self._running = False
        for job in list(self._jobs.values()):
            self._end(job, EngineUnavailable("The echo engine was stopped."))

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole reply; raises ``RequestRefused`` or ``EngineUnavailable``."""
        with self._tally.request() as finish:
            job = self._submit(request)
            try:
                reason = await job.done
            finally:
                self._end(job, None)
            made = replace(self._reply(request, reason), timings=_timings(job))
            finish(made)
            return made

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply word by word, all of it once the latency is over."""
        generation = await self.generate(request)
        for word in re.findall(r"\S*\s*", generation.text):
            if word:
                yield Chunk(word)
        yield Chunk("", generation)

    async def cancel(self, request_id: str) -> None:
        """The request finishes as ``cancelled``, without any token."""
        if job := self._jobs.get(request_id):
            self._end(job, "cancelled")

    def capacity(self) -> Capacity:
        """Slots in all, slots free now, prompt tokens that wait for a slot."""
        queued = sum(len(job.request.prompt.token_ids) for job in self._waiting)
        slots = self._slots if self._running else 0
        return Capacity(slots, max(0, slots - self._busy), queued)

    async def score(
        self,
        prompt: Prompt,
        output_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None = None,
    ) -> Score:
        """Compare with what it says itself; of a token that differs, the margin is 1."""
        request = GenerationRequest("score", prompt, sampling)
        check_request(request, vocabulary=VOCABULARY, context_length=self._context_length)
        own, zeros = self._reply(request, "stop").token_ids, (0.0,) * len(output_ids)
        for n, token in enumerate(output_ids):
            if n >= len(own) or own[n] != token:
                return Score(zeros, "diverged", n, 1.0)
        return Score(zeros, "identical")

    def stats(self) -> EngineStats:
        """Counters, slots taken, requests that wait."""
        waiting = len(self._waiting)
        state: EngineState = "up" if self._running else "stopped"
        return self._tally.now(running=self._busy, waiting=waiting, state=state)

    def describe(self) -> EngineDescription:
        """A constant; the "weights" are this engine's version."""
        digest = hashlib.sha256(f"twite echo engine {VERSION}".encode()).hexdigest()
        return EngineDescription(
            name="echo",
            model="echo",
            revision=VERSION,
            weights_digest=f"sha256:{digest}",
            precision="none",
            attention="none",
            context_length=self._context_length,
            versions={"echo": VERSION},
        )

    def _submit(self, request: GenerationRequest) -> _Job:
        """Check the request, then give it a slot or a place in the queue."""
        if not self._running:
            raise EngineUnavailable("The echo engine is not running; start it first.")
        check_request(request, vocabulary=VOCABULARY, context_length=self._context_length)
        if request.id in self._jobs:
            raise RequestRefused("A request with this id is in flight already.")
        if len(self._waiting) >= self._max_queued:
            raise EngineUnavailable(f"The queue is full ({self._max_queued} requests wait).")
        job = self._jobs[request.id] = _Job(request)
        self._waiting.append(job)
        if request.deadline is not None:
            late = DeadlineExceeded("The request's deadline passed.")
            loop = asyncio.get_running_loop()
            job.deadline = loop.call_later(request.deadline, self._end, job, late)
        self._admit()
        return job

    def _admit(self) -> None:
        """Hand free slots to those who wait, first come first served."""
        while self._running and self._waiting and self._busy < self._slots:
            job = self._waiting.popleft()
            job.admitted = True
            job.queued_s = time.monotonic() - job.submitted
            self._busy += 1
            if self._latency <= 0:
                self._end(job, "stop")
            else:
                loop = asyncio.get_running_loop()
                job.timer = loop.call_later(self._latency, self._end, job, "stop")

    def _end(self, job: _Job, how: FinishReason | EngineUnavailable | None) -> None:
        """Free what the job holds and tell its caller; ``None``: nobody listens. Idempotent."""
        if self._jobs.get(job.request.id) is not job:
            return
        del self._jobs[job.request.id]
        for timer in (job.timer, job.deadline):
            if timer:
                timer.cancel()
        if job.admitted:
            self._busy -= 1
        else:
            self._waiting.remove(job)
        _tell(job.done, how)
        self._admit()

    def _reply(self, request: GenerationRequest, reason: FinishReason) -> Generation:
        if reason == "cancelled":
            return Generation("", (), (), "cancelled")
        text = f"echo {_digest(request.prompt)}: {_last_untrusted(request.prompt)}"
        stops = StopStrings(request.sampling.stop)
        shown = stops.push(text) + stops.flush()
        ids = (*shown.encode(), END)
        room = self._context_length - len(request.prompt.token_ids)
        limit = min(request.sampling.max_tokens, room)
        if len(ids) > limit:
            ids, reason = ids[:limit], "length"
        return Generation(self.tokenizer.decode(ids), ids, (0.0,) * len(ids), reason)


def _timings(job: _Job) -> Timings:
    total = time.monotonic() - job.submitted
    return Timings(
        queued_s=job.queued_s,
        first_token_s=total,
        total_s=total,
        prompt_tokens=len(job.request.prompt.token_ids),
    )


def _tell(done: asyncio.Future[FinishReason], how: FinishReason | EngineUnavailable | None) -> None:
    if done.done():
        return
    if how is None:
        done.cancel()
    elif isinstance(how, EngineUnavailable):
        done.set_exception(how)
    else:
        done.set_result(how)


def _digest(prompt: Prompt) -> str:
    """Eight hex digits over all ids of the prompt."""
    return hashlib.sha256(array("q", prompt.token_ids).tobytes()).hexdigest()[:8]


def _last_untrusted(prompt: Prompt) -> str:
    """Text of the last run of untrusted segments; empty where there is none."""
    run: list[Segment] = []
    for segment in reversed(prompt.segments):
        if segment.trust == "untrusted":
            run.append(segment)
        elif run:
            break
    ids = [i for s in reversed(run) for i in prompt.token_ids[s.start : s.end]]
    return ByteChatTokenizer().decode(ids)
