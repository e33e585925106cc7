"""What a served model is, for the decision record: only what its server tells, marked as that."""

import importlib.metadata
from collections.abc import Sequence

from model.engine import ChatTokenizer, EngineDescription
from model.openai.estimate import EstimatingTokenizer
from model.openai.probe import Server
from model.openai.tokens import DEFAULT_CONTEXT

UNTOLD = "as served"


def description(
    servers: Sequence[Server], tokenizer: ChatTokenizer, context_length: int
) -> EngineDescription:
    """Of one or more servers of the same model; the first stands for all."""
    first = servers[0]
    facts = "ids" if "ids" in first.gives else "made again from the text"
    return EngineDescription(
        name="openai",
        model=first.model,
        revision=first.root or UNTOLD,
        weights_digest=first.fingerprint,
        precision=UNTOLD,
        attention=UNTOLD,
        context_length=context_length,
        versions={
            first.dialect.kind: first.version,
            "httpx2": importlib.metadata.version("httpx2"),
            "digest": "of what the server says of its model, not of the weights",
            "prompts": "token ids" if all(s.by_ids for s in servers) else "chat messages",
            "tokenizer": _tokenizer(first, tokenizer),
            "output ids": "as told" if facts == "ids" else facts,
            "logprobs": "as told" if "logprobs" in first.gives else "none",
            "sampling": _sampling(first),
        },
    )


def shortest(*lengths: int | None) -> int:
    """Of the context lengths that are told, in tokens."""
    return min([length for length in lengths if length], default=DEFAULT_CONTEXT)


def vocabulary_of(tokenizer: ChatTokenizer, servers: Sequence[Server]) -> int:
    """Ids run up to here, excluded: as the servers say, else by the tokenizer."""
    told = [server.vocabulary for server in servers if server.vocabulary and server.by_ids]
    return min(told) if told else int(getattr(tokenizer, "vocabulary", 2**31))


def _tokenizer(server: Server, tokenizer: ChatTokenizer) -> str:
    if not isinstance(tokenizer, EstimatingTokenizer):
        return "the model's own" + (", compared with the server's" if server.counts else "")
    if server.counts is None:
        return "an estimate"
    theirs, ours = server.counts
    return f"an estimate: {ours} for {theirs} tokens of a sample"


def _sampling(server: Server) -> str:
    able = ["temperature", "top_p", *server.dialect.words]
    return f"{', '.join(able)}; seeded, by the server's own generator"
