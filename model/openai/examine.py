"""Looking at the servers of the settings without starting an engine: for ``twite config check``.

In: the options, and the tokenizer if it is here. Out: one ``Finding`` per address, what answers
there and how prompts would go out, or what is wrong and what to do. The model reads one short
prompt; nothing is changed.
"""

import asyncio
from dataclasses import dataclass, replace

from model.engine import ChatTokenizer, EngineError, Sampling
from model.openai.client import Client
from model.openai.dialects import cannot
from model.openai.options import Options
from model.openai.probe import Server, look


@dataclass(frozen=True, slots=True)
class Finding:
    """``error`` is empty where everything is in order."""

    address: str
    found: str
    error: str = ""


async def examine(
    options: Options, tokenizer: ChatTokenizer, sampling: Sampling, adapter: str | None = None
) -> list[Finding]:
    """All addresses at once, in their order."""
    looks = (_examine(address, options, tokenizer) for address in options.endpoints)
    found = await asyncio.gather(*looks)
    first = next((server for _, server in found if server), None)
    return [
        replace(finding, error=_wrong(server, first, sampling, adapter))
        if server and first
        else finding
        for finding, server in found
    ]


async def _examine(
    address: str, options: Options, tokenizer: ChatTokenizer
) -> tuple[Finding, Server | None]:
    try:
        client = Client(
            address, api_key=options.api_key, connect=options.connect, ca_file=options.ca_file
        )
    except EngineError as error:
        return Finding(address, "cannot be used", str(error)), None
    try:
        server = await look(client, options, tokenizer)
    except EngineError as error:
        return Finding(address, "cannot be used", str(error)), None
    finally:
        await client.close()
    return Finding(address, _told(server)), server


def _told(server: Server) -> str:
    way = "takes token ids" if server.by_ids else "takes chat messages"
    length = f", {server.context_length} tokens of context" if server.context_length else ""
    version = "" if server.version == "unknown" else f" {server.version}"
    return f"{server.dialect.kind}{version} serves {server.model}, {way}{length}"


def _wrong(server: Server, first: Server, sampling: Sampling, adapter: str | None) -> str:
    """What a server that answers is not fit for; empty: nothing."""
    if lacks := cannot(server.dialect, sampling):
        return f"It does not know {', '.join(lacks)}: switch model.{lacks[0]} off."
    if server.fingerprint != first.fingerprint:
        return "It is another model than at the first address; serve the same one from all."
    if adapter and adapter not in server.others:
        return f"It has no adapter {adapter}; load it there, or unset model.adapter."
    return ""
