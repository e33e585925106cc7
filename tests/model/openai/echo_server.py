"""A well-behaved model server of its own process: the echo engine over OpenAI's protocol.

It speaks as vLLM does (token ids in and out, its own names for the pace) and takes chats as well.
As a real server, it reads control tokens in the text of a message as control tokens: that is what
the engine has to prevent. ``/last`` tells the ids of the last prompt. Run with ``python -m``; it
prints its port.
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from model.echo import END, ROLE_IDS, ByteChatTokenizer, EchoEngine
from model.engine import (
    EngineUnavailable,
    Generation,
    GenerationRequest,
    Prompt,
    RequestRefused,
    Sampling,
    Segment,
)
from tests.model.openai.wire import Listening, Reply, Request

MODEL = "echo-model"
CONTROLS = {"<end>": END} | {f"<{role}>": number for role, number in ROLE_IDS.items()}


class EchoServer:
    """``with_ids``: prompts may be token ids, and replies tell theirs."""

    def __init__(self, engine: EchoEngine, *, with_ids: bool = True, model: str = MODEL) -> None:
        self.engine, self.with_ids, self.model = engine, with_ids, model
        self.owner = "vllm"
        self.adapters: list[str] = []
        self.root = "/models/echo"
        self.length: int | None = None  # what it says that it takes, in place of the truth
        self.one_more = 0  # tokens that it counts besides those of the prompt
        self.at_once = EchoEngine()
        self.last: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self._numbers = iter(range(10**9))

    async def __call__(self, request: Request, reply: Reply) -> None:
        match request.path:
            case "/v1/models":
                await reply.json(self._models())
            case "/health":
                await reply.body(b"", "text/plain")
            case "/version":
                await reply.json({"version": "0.echo"})
            case "/metrics":
                await reply.body(self._metrics().encode(), "text/plain; version=0.0.4")
            case "/last":
                await reply.json(self.last)
            case "/tokenize" if self.with_ids:
                await reply.json({"tokens": list(request.json["prompt"].encode())})
            case "/v1/completions" if self.with_ids:
                await self._complete(request.json, list(request.json["prompt"]), reply, "text")
            case "/v1/chat/completions":
                ids = _ids_of_chat(request.json["messages"])
                await self._complete(request.json, ids, reply, "content")
            case _:
                await reply.json({"error": {"type": "not_found", "code": 404}}, 404)

    def _models(self) -> dict[str, Any]:
        length = self.length or self.engine.describe().context_length
        entry = {
            "id": self.model,
            "object": "model",
            "owned_by": self.owner,
            "root": self.root,
            "max_model_len": length,
            "meta": {"n_vocab": 260},
        }
        adapters = [{**entry, "id": name, "parent": self.model} for name in self.adapters]
        return {"object": "list", "data": [entry, *adapters]}

    def _metrics(self) -> str:
        stats = self.engine.stats()
        return (
            f'vllm:num_requests_running{{model_name="{self.model}"}} {stats.running}\n'
            f'vllm:num_requests_waiting{{model_name="{self.model}"}} {stats.waiting}\n'
        )

    async def _complete(
        self, body: dict[str, Any], ids: list[int], reply: Reply, field: str
    ) -> None:
        self.last = ids
        self.asked.append(body)
        # A request for one token is the engine's look at its start, which is not kept waiting.
        engine = self.at_once if body["max_tokens"] == 1 else self.engine
        try:
            made = await engine.generate(self._request(body, ids))
        except RequestRefused:
            await reply.json({"error": {"type": "BadRequestError", "code": 400}}, 400)
            return
        except EngineUnavailable:
            await reply.json({"error": {"type": "overloaded", "code": 503}}, 503)
            return
        pieces = list(_pieces(made))
        usage = {
            "prompt_tokens": len(ids) + self.one_more,
            "completion_tokens": len(made.token_ids),
        }
        if not body.get("stream"):
            whole = self._choice(body, field, made.text, made.token_ids, made.finish_reason)
            await reply.json({"model": self.model, "choices": [whole], "usage": usage})
            return
        await reply.start()
        for text, part in pieces:
            await reply.event(
                {"model": self.model, "choices": [self._choice(body, field, text, part, None)]}
            )
        last = self._choice(body, field, "", (), made.finish_reason)
        await reply.event({"model": self.model, "choices": [last]})
        await reply.event({"model": self.model, "choices": [], "usage": usage})
        await reply.event("[DONE]")
        await reply.end()

    def _request(self, body: dict[str, Any], ids: list[int]) -> GenerationRequest:
        sampling = Sampling(max_tokens=body["max_tokens"], temperature=body["temperature"])
        segment = Segment(0, len(ids), "untrusted")
        return GenerationRequest(
            f"r{next(self._numbers)}", Prompt(tuple(ids), (segment,)), sampling
        )

    def _choice(
        self, body: dict[str, Any], field: str, text: str, ids: Sequence[int], finish: str | None
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text} if field == "text" else {}
        if field == "content":
            said["delta" if body.get("stream") else "message"] = {"content": text}
        choice = {"index": 0, **said, "finish_reason": finish}
        if self.with_ids and body.get("return_token_ids"):
            tokens = [f"token_id:{i}" for i in ids]
            choice |= {
                "token_ids": list(ids),
                "logprobs": {"tokens": tokens, "token_logprobs": [0.0] * len(ids)},
            }
        return choice


def _pieces(made: Generation) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Words with their ids; ids that make no text come last."""
    ids = made.token_ids
    for word in re.findall(r"\S*\s*", made.text):
        if word:
            size = len(word.encode())
            yield word, ids[:size]
            ids = ids[size:]
    if ids:
        yield "", ids


def _ids_of_chat(messages: list[dict[str, str]]) -> list[int]:
    ids: list[int] = []
    for message in messages:
        ids.append(ROLE_IDS[message["role"]])
        for piece in re.split("(" + "|".join(CONTROLS) + ")", message["content"]):
            ids += [CONTROLS[piece]] if piece in CONTROLS else list(piece.encode())
        ids.append(END)
    return [*ids, ROLE_IDS["assistant"]]


def spelled(ids: Sequence[int]) -> str:
    """A prompt for people, control tokens by their names."""
    return ByteChatTokenizer().spell(ids)


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chat-only", action="store_true")
    wanted = parser.parse_args()
    engine = EchoEngine(latency_ms=wanted.latency_ms, slots=wanted.slots)
    await engine.start()
    handler = EchoServer(engine, with_ids=not wanted.chat_only)
    await handler.at_once.start()
    server = Listening(handler)
    await server.start(wanted.port)
    print(json.dumps({"port": server.port}), flush=True)
    loop = asyncio.get_running_loop()
    # It never outlives the test run, whose end of the pipe closes in any case.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
