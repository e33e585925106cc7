"""Looking at the servers of the settings without starting an engine: for ``twite config check``.

In: the options, and the tokenizer if it is here. Out: one ``Finding`` per address, what answers
there and how prompts would go out, or what is wrong and what to do. The model reads one short
prompt; nothing is changed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

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


async def examine(options: Options, tokenizer: ChatTokenizer, sampling: Sampling) -> list[Finding]:
    """All addresses at once, in their order."""
    looks = [_examine(address, options, tokenizer, sampling) for address in options.endpoints]
    found = await asyncio.gather(*looks)
    return [_compared(finding, server, found) for finding, server in found]


async def _examine(
    address: str, options: Options, tokenizer: ChatTokenizer, sampling: Sampling
) -> tuple[Finding, Server | None]:
    client = Client(
        address, api_key=options.api_key, connect=options.connect, ca_file=options.ca_file
    )
    try:
        server = await look(client, options, tokenizer)
    except EngineError as error:
        return Finding(address, "cannot be used", str(error)), None
    finally:
        await client.close()
    if lacks := cannot(server.dialect, sampling):
        told = f"It does not know {', '.join(lacks)}: switch model.{lacks[0]} off."
        return Finding(address, _told(server), told), server
    return Finding(address, _told(server)), server


def _told(server: Server) -> str:
    way = "takes token ids" if server.by_ids else "takes chat messages"
    length = f", {server.context_length} tokens of context" if server.context_length else ""
    version = "" if server.version == "unknown" else f" {server.version}"
    return f"{server.dialect.kind}{version} serves {server.model}, {way}{length}"


def _compared(
    finding: Finding, server: Server | None, found: Sequence[tuple[Finding, Server | None]]
) -> Finding:
    """Is it the same model as at the first address that answers?"""
    first = next((other for _, other in found if other), None)
    if server is None or first is None or server.fingerprint == first.fingerprint:
        return finding
    return Finding(
        finding.address,
        finding.found,
        "It is another model than at the first address; serve the same one from all.",
    )
