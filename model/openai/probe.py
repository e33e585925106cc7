"""What one server is and can do, found out by asking it before the first real request.

In: a client, the options, the tokenizer. Out: ``Server``. A model that is not there, a tokenizer
that is not the model's, and a server that does not take token ids where the settings want that are
told here, with what to do.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.engine import (
    ChatMessage,
    ChatTokenizer,
    EngineError,
    ModelNotFound,
    Part,
    RequestRefused,
    Sampling,
)
from model.openai.answers import Served, ids_of, metric, piece_of, served_by
from model.openai.client import Client
from model.openai.dialects import (
    DIALECTS,
    EXTRAS_OF_CHAT,
    EXTRAS_OF_IDS,
    Dialect,
    body_of_ids,
    body_of_messages,
    sampling_words,
    tokenize_body,
)
from model.openai.errors import (
    NothingThere,
    ServerError,
    ServerFaulty,
    ServerMisconfigured,
    WrongModel,
)
from model.openai.estimate import EstimatingTokenizer, ids_of_text
from model.openai.neutral import markers_in_template
from model.openai.options import Options

LOOK_S = 10.0  # for a page; a page that is not there answers at once
SAMPLE = "Grüße, 12 cats! What's new?\n日本 😀"
_PROBE = (ChatMessage("user", (Part("Hi"),)),)
_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """``names``: what the model may be called in its answers; ``others``: all else that is served
    there, adapters among them. ``by_ids``: prompts go out as token
    ids. ``extras``: fields that make it tell more. ``gives``: what it then tells of
    ``ids`` and ``logprobs``. ``slots``: how many requests it works on at once, where told."""

    dialect: Dialect
    version: str
    model: str
    names: frozenset[str]
    others: frozenset[str]
    root: str
    fingerprint: str
    by_ids: bool
    extras: dict[str, Any]
    gives: frozenset[str]
    context_length: int | None
    vocabulary: int | None
    slots: int | None
    metrics: bool
    control_texts: frozenset[str]
    counts: tuple[int, int] | None = None  # tokens of ``SAMPLE``: its own, and by the tokenizer

    @property
    def path(self) -> str:
        return _COMPLETIONS if self.by_ids else _CHAT


async def look(client: Client, options: Options, tokenizer: ChatTokenizer) -> Server:
    """Ask the server all of it. Raises ``ServerError`` where it does not answer as it should, and
    ``EngineError`` where it is not what the settings say."""
    models = await _models(client, options)
    dialect = DIALECTS[await _kind(client, options, models)]
    served = _chosen(client.where, options, models, dialect)
    properties = await _properties(client, dialect)
    server = Server(
        dialect=dialect,
        version=await _version(client, dialect, properties),
        model=served.names[0] if options.model is None else options.model,
        names=frozenset(served.names),
        others=frozenset(name for other in models for name in other.names) - {*served.names},
        root=served.root,
        fingerprint=_fingerprint(served),
        by_ids=False,
        extras={},
        gives=frozenset(),
        context_length=served.context_length,
        vocabulary=served.vocabulary,
        slots=_number(properties.get("total_slots")),
        metrics=await _has_metrics(client, dialect),
        control_texts=_control_texts(properties),
    )
    server = await _compared(client, server, tokenizer)
    return await _tried(client, server, options, tokenizer)


async def look_again(client: Client, options: Options, known: Server) -> None:
    """Is it there, does it call itself well, and is it what it was? Raises ``EngineError``.

    What stands between may hide the page of its health; the first look never asks for that one.
    Then the list of models has to do.
    """
    with contextlib.suppress(ServerMisconfigured, RequestRefused):
        await client.get(known.dialect.health, timeout=LOOK_S)
    models = await _models(client, options)
    served = _chosen(client.where, options, models, known.dialect)
    if _fingerprint(served) != known.fingerprint:
        raise WrongModel(
            f"{client.where} has come back with another model than {known.model}. Start that "
            "model there, or start the workers anew."
        )


# --- which server, which model ------------------------------------------------------------------


async def _models(client: Client, options: Options) -> list[Served]:
    """What it serves. ``transformers serve`` lists the cache of the machine, and fails where that
    one has none: then the name in the options counts."""
    try:
        return served_by(client.where, await client.get_json("/v1/models", timeout=LOOK_S))
    except ServerFaulty:
        if await _kind(client, options, ()) != "transformers":
            raise
        return []


async def _kind(client: Client, options: Options, models: Sequence[Served]) -> str:
    if options.kind != "auto":
        return options.kind
    owners = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
    for served in models:
        if served.owner in owners:
            return owners[served.owner]
    page = await _maybe(client, "/openapi.json")
    paths = page.get("paths") if isinstance(page, dict) else None
    known = set(paths) if isinstance(paths, dict) else set[str]()
    if {"/load_model", "/v1/responses"} <= known:
        return "transformers"
    return "vllm" if "/version" in known and "/tokenize" in known else "other"


def _chosen(where: str, options: Options, models: Sequence[Served], dialect: Dialect) -> Served:
    wanted = options.model
    names = sorted(name for served in models for name in served.names)
    if wanted is None:
        if len(models) == 1:
            return models[0]
        told = f"it has {', '.join(names[:8])}" if names else "it names none"
        raise ModelNotFound(
            f"{where} serves {len(models)} models ({told}). Set model.openai.model to one of them."
        )
    if dialect.kind == "transformers":  # it lists its cache, which grows, not what it serves
        return Served((wanted, f"{wanted}@main"), "", "", None, None, ())
    for served in models:
        if wanted in served.names:
            return served
    raise ModelNotFound(
        f"{where} has no model {wanted!r}, but {', '.join(names[:8]) or 'none at all'}. Set "
        "model.openai.model to what it has, or start that server with the model."
    )


def _fingerprint(served: Served) -> str:
    """SHA-256 of what the server says of its model: of the weights themselves it says nothing."""
    said = json.dumps([served.names[0], served.root, served.facts])
    return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


async def _version(client: Client, dialect: Dialect, properties: dict[str, Any]) -> str:
    if dialect.kind == "llama.cpp":
        return str(properties.get("build_info") or "unknown")
    page = await _maybe(client, "/version" if dialect.kind == "vllm" else "/get_server_info")
    return str(page.get("version") or "unknown") if isinstance(page, dict) else "unknown"


async def _properties(client: Client, dialect: Dialect) -> dict[str, Any]:
    page = await _maybe(client, "/props") if dialect.kind == "llama.cpp" else None
    return page if isinstance(page, dict) else {}


def _control_texts(properties: dict[str, Any]) -> frozenset[str]:
    told = {properties.get("bos_token"), properties.get("eos_token")}
    texts = {text for text in told if isinstance(text, str) and text}
    template = properties.get("chat_template")
    return frozenset(
        texts | (markers_in_template(template) if isinstance(template, str) else set())
    )


async def _has_metrics(client: Client, dialect: Dialect) -> bool:
    if not dialect.waiting:
        return False
    try:
        page = await client.get("/metrics", timeout=LOOK_S)
    except (ServerError, RequestRefused):
        return False
    return metric(page.decode("utf-8", errors="replace"), dialect.waiting) is not None


# --- tokens -------------------------------------------------------------------------------------


async def _compared(client: Client, server: Server, tokenizer: ChatTokenizer) -> Server:
    """Does the tokenizer that was set make of a text what the server's own makes?"""
    if not server.dialect.tokenizes:
        return server
    body = tokenize_body(server.dialect, server.model, SAMPLE)
    try:
        answer = await client.post_json("/tokenize", body, timeout=LOOK_S)
    except (ServerError, RequestRefused):
        return server
    theirs, ours = ids_of(client.where, answer), list(ids_of_text(tokenizer, SAMPLE))
    if not isinstance(tokenizer, EstimatingTokenizer) and theirs != ours:
        raise EngineError(
            f"The tokenizer in model.openai.tokenizer is not that of {server.model} at "
            f"{client.where}: a text becomes other tokens there. Set it to that model's own."
        )
    return replace(server, counts=(len(theirs), len(ours)))


async def _tried(
    client: Client, server: Server, options: Options, tokenizer: ChatTokenizer
) -> Server:
    """One token asked for, in the way that the settings want or the server takes."""
    if isinstance(tokenizer, EstimatingTokenizer):
        if options.way == "tokens":
            raise EngineError(
                "model.openai.way is tokens, which needs the model's own tokenizer. Set "
                "model.openai.tokenizer to its folder or its Hugging Face name."
            )
        return await _by_messages(client, server, options, with_ids=False)
    if options.way == "chat":
        return await _by_messages(client, server, options, with_ids=True)
    try:
        return await _by_ids(client, server, options, tokenizer)
    except (RequestRefused, ServerFaulty, NothingThere):
        if options.way == "tokens":
            raise EngineError(
                f"{client.where} takes no token ids at {_COMPLETIONS}. Set model.openai.way to "
                "chat, or use a server that takes them (vLLM, SGLang, llama.cpp)."
            ) from None
    return await _by_messages(client, server, options, with_ids=True)


async def _by_ids(
    client: Client, server: Server, options: Options, tokenizer: ChatTokenizer
) -> Server:
    """Raises ``ServerFaulty`` where it takes other tokens than were sent."""
    ids = tokenizer.encode_chat(_PROBE).token_ids
    body = body_of_ids(server.model, ids)
    ask = _Trial(client, server, _COMPLETIONS, body, options.first_token)
    extras, answer = await ask.richest(EXTRAS_OF_IDS)
    counted = piece_of(client.where, answer).prompt_tokens
    if counted not in {0, len(ids)}:
        raise ServerFaulty(f"{client.where} reads {counted} tokens where {len(ids)} were sent.")
    return replace(server, by_ids=True, extras=extras, gives=_gives(client.where, answer))


async def _by_messages(
    client: Client, server: Server, options: Options, *, with_ids: bool
) -> Server:
    """``with_ids``: ids that it tells are of the tokenizer that is used here."""
    body = body_of_messages(server.model, [{"role": "user", "content": "Hi"}])
    candidates = EXTRAS_OF_CHAT if with_ids else ({},)
    try:
        ask = _Trial(client, server, _CHAT, body, options.first_token)
        extras, answer = await ask.richest(candidates)
    except RequestRefused as error:
        raise EngineError(f"{client.where} refuses a chat of one short message. {error}") from None
    return replace(server, extras=extras, gives=_gives(client.where, answer))


@dataclass(frozen=True, slots=True)
class _Trial:
    """A request for one token; ``timeout`` in seconds, as a server may warm up over the first."""

    client: Client
    server: Server
    path: str
    body: dict[str, Any]
    timeout: float

    async def richest(self, candidates: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], Any]:
        """The first fields that are accepted, and the answer. Raises what is said to the last."""
        for extras in candidates[:-1]:
            with contextlib.suppress(RequestRefused):
                return extras, await self._ask(extras)
        return candidates[-1], await self._ask(candidates[-1])

    async def _ask(self, extras: dict[str, Any]) -> Any:
        words = sampling_words(self.server.dialect, Sampling(max_tokens=1), 1)
        body = {**self.body, **words, **extras}
        return await self.client.post_json(self.path, body, timeout=self.timeout)


def _gives(where: str, answer: Any) -> frozenset[str]:
    piece = piece_of(where, answer)
    told = {"ids": bool(piece.ids), "logprobs": bool(piece.logprobs)}
    return frozenset(name for name, there in told.items() if there)


def _number(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


async def _maybe(client: Client, path: str) -> Any:
    """A page that need not be there."""
    try:
        return await client.get_json(path, timeout=LOOK_S)
    except (ServerError, RequestRefused):
        return None
