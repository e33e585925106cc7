"""How large decision records are: of the demo's feed, and of threads and talks from templates.

    python -m tests.trials.decision_sizes [--made N] [--model]

Each input goes the bot's own way, with the default model's tokenizer and views over what came
before in its conversation. By default an engine answers that says one to four made sentences, each
token with a log-probability as a model gives it; with ``--model`` the default model itself does.
Sizes are of the record's value, uncompressed, and of lz4 batches as a producer makes them.
"""

import argparse
import asyncio
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import cramjam
import structlog

from bot.ask import to_output
from bot.events import mention_of
from bot.feed import Entry
from bot.handler import BotHandler
from bot.known import KnowledgeOfViews
from bot.preview import MemoryView, in_memory, records_of
from bot.preview_log import INPUTS
from bot.settings import BotSettings, ModelSettings, Settings
from bot.views import bot_views
from bot.wiring import engine_of, setup_of
from consumers.handler import GiveUp
from consumers.views.view import View
from model.echo import EchoEngine
from model.engine import (
    ChatMessage,
    ChatTokenizer,
    Engine,
    EngineDescription,
    Generation,
    GenerationRequest,
    Part,
)
from model.loader import build_tokenizer
from schemas.audit import DecisionRecorded
from schemas.codec import Undecodable, decode
from schemas.feed import Post
from schemas.names import BOT_AUDIT, BOT_AUDIT_PRIVATE
from schemas.record import Output, Record
from tests.trials.talks import NOW, PEOPLE, SAID, below, demo, made, words

FULL, POSTS = 20, 90  # threads, and posts in each
BATCH = 50  # decisions of one transaction, about as many as a busy worker publishes at once


class Sentences(EchoEngine):
    """Says made sentences in the tokens of a real model; the same ones to the same prompt."""

    def __init__(self, tokenizer: ChatTokenizer, length: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer  # type: ignore[assignment]
        self._length = length

    def describe(self) -> EngineDescription:
        return EngineDescription(
            name="transformers", model="SmolLM2-135M-Instruct", revision="0.1.2",
            weights_digest=f"sha256:{'0' * 64}", precision="float32", attention="sdpa",
            context_length=self._length,
            versions={"torch": "2.12.0", "transformers": "5.20.0", "accelerate": "1.15.0"},
        )  # fmt: skip

    async def generate(self, request: GenerationRequest) -> Generation:
        dice = random.Random(request.sampling.seed)
        said = (dice.choice(SAID).format(**words(dice)) for _ in range(dice.randrange(1, 5)))
        text = " ".join(said)
        whole = self.tokenizer.encode_chat([ChatMessage("user", (Part(text),))])
        (own,) = [s for s in whole.segments if s.trust == "untrusted"]
        ids = whole.token_ids[own.start : own.end]
        return Generation(text, ids, tuple(-dice.random() for _ in ids), "stop")


async def decisions(records: Iterable[Record], settings: Settings, engine: Engine) -> list[Record]:
    """The decision records on these inputs, in their order."""
    setup = setup_of(settings, "trial-cluster-0123456")
    before: dict[bytes | None, list[Record]] = defaultdict(list)
    found = []
    for record in records:
        known = before[record.key]
        knowledge = _knowing(known, settings.bot.account_id)
        handler = BotHandler(setup, engine, knowledge, now=lambda: NOW)
        known.append(record)
        outputs = await _handled(handler, record)
        known += [_placed(output, record) for output in outputs]
        found += [one for one in known if one.topic in (BOT_AUDIT, BOT_AUDIT_PRIVATE)][-1:]
    return found


async def _handled(handler: BotHandler, record: Record) -> Sequence[Output]:
    try:
        return await handler.handle(handler.open(record), attempt=1)
    except GiveUp as error:
        return handler.give_up(record, error, attempts=1)


def _placed(output: Output, source: Record) -> Record:
    return Record(
        topic=output.topic,
        partition=0,
        offset=source.offset,
        timestamp_ms=source.timestamp_ms,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


def _knowing(records: Sequence[Record], bot_id: str) -> KnowledgeOfViews:
    """What a worker would know, and positions as long as a worker's."""
    views = {view.name: _view(view, records) for view in bot_views(bot_id)}
    return KnowledgeOfViews(lambda: views, bot_id, wait_s=0.0)


def _view(view: View, records: Sequence[Record]) -> MemoryView:
    return in_memory(view, records, {f"{topic}/0": 1_234_567 for topic in view.topics})


def tell(name: str, found: Sequence[Record]) -> None:
    """A line for the table in ``docs/audits.md`` per kind of outcome."""
    by_kind: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        by_kind[_decision(record).outcome.value].append(record)
    for kind, some in (("all", list(found)), *sorted(by_kind.items())):
        sizes = sorted(len(record.value or b"") for record in some)
        print(
            f"| {name} | {kind} | {len(sizes)} | {_at(sizes, 0.5):,} | {_at(sizes, 0.99):,}"
            f" | {sizes[-1]:,} | {_packed(some):,} |"
        )
    tokens = [len(d.output.token_ids) for d in map(_decision, found) if d.output]
    prompt = [len(d.prompt.token_ids) for d in map(_decision, found) if d.prompt]
    if tokens:
        middle = f"{_at(sorted(prompt), 0.5)}, of an answer {_at(sorted(tokens), 0.5)}"
        print(f"  median tokens of a prompt {middle}")
    print(f"  bytes by part, all together: {_parts(found)}")


def _decision(record: Record) -> DecisionRecorded:
    try:
        data = decode(record).data
    except Undecodable as error:
        raise AssertionError(error) from error
    assert isinstance(data, DecisionRecorded)
    return data


def _at(sizes: Sequence[int], share: float) -> int:
    """The nearest rank."""
    return sizes[min(len(sizes) - 1, int(share * len(sizes)))]


def _packed(records: Sequence[Record]) -> int:
    """Bytes of one record on average in batches, with key and headers, compressed."""
    total = 0
    for start in range(0, len(records), BATCH):
        batch = b"".join(map(_whole, records[start : start + BATCH]))
        total += len(bytes(cramjam.lz4.compress(batch)))
    return total // len(records)


def _whole(record: Record) -> bytes:
    headers = (name.encode() + (value or b"") for name, value in record.headers)
    return b"".join([record.key or b"", record.value or b"", *headers])


def _parts(records: Iterable[Record]) -> dict[str, str]:
    """Which share of the bytes each part takes, largest first."""
    sizes: Counter[str] = Counter()
    for record in records:
        data = _decision(record)
        for name in type(data).model_fields:
            sizes[name] += len(data.model_dump_json(include={name}))
        if data.prompt:
            for name in ("token_ids", "segments", "messages"):
                sizes[f"prompt.{name}"] += len(data.prompt.model_dump_json(include={name}))
    whole = sum(len(record.value or b"") for record in records)
    return {name: f"{size / whole:.0%}" for name, size in sizes.most_common(8)}


def _feed(settings: Settings, count: int) -> Iterator[tuple[str, list[Record]]]:
    now_ms = round(NOW.timestamp() * 1000)
    scenes = records_of(demo(settings.bot), now_ms)
    # The rest of them come to the bot as reviews.
    yield "demo", [record for record in scenes if record.topic in INPUTS]
    if count:
        yield "made", list(islice(records_of(made(settings.bot), now_ms), count))
        yield "full", list(records_of(_full(settings.bot), now_ms))


def _full(bot: BotSettings) -> Iterator[Entry]:
    """Threads that fill the prompt, most of whose posts have no room in it."""
    for number in range(FULL):
        dice, name, above = random.Random(number), f"full-{number}", list[Post]()
        for at in range(POSTS):
            said = " ".join(dice.choice(SAID).format(**words(dice)) for _ in range(4))
            above.append(below(above, dice, said, name, at))
        event = mention_of(bot, PEOPLE[0], "Who is right?", conversation_id=name, thread=above)
        yield Entry(number, to_output(event))


async def _main(options: Any) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = Settings(model=ModelSettings(engine="transformers", threads=2))
    if options.model:
        engine = engine_of(settings.model)
    else:
        engine = Sentences(
            *build_tokenizer("transformers", *settings.model.tokenizer_source, print)
        )
    await engine.start()
    try:
        print("| feed | outcome | records | p50 | p99 | largest | in a batch, lz4 |")
        for name, records in _feed(settings, options.made):
            tell(name, await decisions(records, settings, engine))
    finally:
        await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--made", type=int, default=600, help="inputs made from templates")
    parser.add_argument("--model", action="store_true", help="let the default model answer")
    asyncio.run(_main(parser.parse_args()))
