"""context-lookup: how long the bot looks for what stands around a mention.

In: views on disk with a million posts, and the steps of the bot that gather a context: ancestors
root first, posts beside, quoted posts, the bot's own replies, and for each author whether they
want to be left out. Each lookup asks about a post drawn by chance, as a mention that carries
nothing but itself. Meanwhile another thread writes new posts into the same file, as in a worker.
The interpreter is tuned as a worker does it. The files were just written, so the system has them
in its page cache. No Kafka takes part.
"""

import asyncio
import itertools
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from bot import interpreter
from bot.events import Person, addressed, mention, post
from bot.gather import gather
from bot.known import KnowledgeOfViews
from bot.settings import BotSettings
from bot.values import BotIdentity, Limits
from bot.views import VIEWS
from consumers.views.store import Files, Store, reading
from consumers.views.view import View
from consumers.views.views import ViewLost
from schemas import names
from schemas.feed import Account, MentionCreated, Post
from schemas.record import Record
from tests.bench import posts
from tests.bench.result import Check, Result
from tests.bench.setting import Setting
from tests.bench.stats import percentile

WRITES_PER_S = 500
_BATCH = 2_000
_SOURCE = TopicPartition(names.FEED_POSTS, 0)


async def run(setting: Setting) -> Result:
    """Build the files, then look up alone and beside a writer."""
    count, lookups = (50_000, 2_000) if setting.quick else (1_000_000, 20_000)
    return await asyncio.to_thread(_measure, setting, count, lookups)


def _measure(setting: Setting, count: int, lookups: int) -> Result:
    with ExitStack() as stack:
        stores = {
            view.name: stack.enter_context(closing(_store(view, setting.folder))) for view in VIEWS
        }
        conversation = stores["conversation"]
        _build(conversation, count)
        setting.say(f"{count:,} posts, {conversation.used_bytes() / 2**20:,.0f} MiB")
        with interpreter.tuned():
            quiet = _look_up(stores, _questions(count, lookups))
        setting.say(_said("alone", quiet))
    path = conversation.path
    with ExitStack() as stack:
        stack.enter_context(interpreter.tuned())
        writing = stack.enter_context(_Writing(setting.folder, count))
        paths = {view.name: Files(setting.folder, "bench", view.name, 0).path(0) for view in VIEWS}
        busy = _look_up_paths(paths, _questions(count, lookups))
        written = writing.written
    setting.say(_said(f"beside {written} writes", busy))
    return _result(count, lookups, quiet, busy, path.stat().st_size, written)


def _result(
    count: int,
    lookups: int,
    quiet: Sequence[tuple[float, int]],
    busy: Sequence[tuple[float, int]],
    size: int,
    written: int,
) -> Result:
    alone, beside = _figures(quiet), _figures(busy)
    return Result(
        id="context-lookup",
        what=f"99th percentile of a look at what stands around a mention, in {count:,} posts",
        goal="value <= 5",
        ratio=beside["p99_ms"] / alone["p99_ms"],
        value=beside["p99_ms"],
        unit="ms",
        baseline=alone["p99_ms"],
        parameters={
            "posts": count,
            "lookups": lookups,
            "file_mib": size / 2**20,
            "writes_per_s": WRITES_PER_S,
            "written_meanwhile": written,
        },
        samples=[{"writer": False, **alone}, {"writer": True, **beside}],
        checks=[
            Check(what="ms, half of the lookups", goal="value <= 5", found=beside["p50_ms"]),
        ],
        notes=["The baseline and the ratio are to the same lookups while nothing is written."],
    )


def _figures(found: Sequence[tuple[float, int]]) -> dict[str, float]:
    times = [seconds * 1000 for seconds, _ in found]
    sizes = [float(size) for _, size in found]
    return {
        "p50_ms": percentile(times, 50),
        "p99_ms": percentile(times, 99),
        "max_ms": max(times),
        "posts_p50": percentile(sizes, 50),
        "posts_max": max(sizes),
    }


def _said(how: str, found: Sequence[tuple[float, int]]) -> str:
    figures = _figures(found)
    return f"{how}: p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms"


# The files.


def _store(view: View, folder: Path) -> Store:
    store = Store.open(view, Files(folder, "bench", view.name, 0))
    if not store.positions:
        store.begin_at({_SOURCE: 0})
    return store


def _build(store: Store, count: int) -> None:
    records = _records(0, posts.posts(count, 1))
    while batch := list(itertools.islice(records, _BATCH)):
        store.write([(_SOURCE, batch)])


def _records(first: int, given: Iterator[tuple[int, Post]]) -> Iterator[Record]:
    for offset, (_, one) in enumerate(given, start=first):
        yield posts.record(posts.created(one), 0, offset)


class _Writing:
    """A thread that writes further posts, evenly, while this is entered."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")
        self.written = 0

    def __enter__(self) -> "_Writing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        view = next(view for view in VIEWS if view.name == "conversation")
        with closing(_store(view, self._folder)) as store:
            # The same posts under later offsets: each replaces a row, index entries and all.
            records = _records(self._count, itertools.cycle(posts.posts(10_000, 1)))
            started = time.perf_counter()
            while not self._stop.is_set():
                due = int((time.perf_counter() - started) * WRITES_PER_S) - self.written
                batch = list(itertools.islice(records, due))
                if batch:
                    store.write([(_SOURCE, batch)])
                    self.written += len(batch)
                self._stop.wait(0.005)


# The lookups.


class _OnDisk:
    """An open view as the bot sees it, that nobody follows."""

    positions: Mapping[str, int] = {}
    as_of_ms = 2**62

    def __init__(self, path: Path) -> None:
        self.db = reading(path)

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
        return True

    def lost(self, error: sqlite3.Error) -> ViewLost:
        raise error


def _look_up(
    stores: Mapping[str, Store], questions: Sequence[MentionCreated]
) -> list[tuple[float, int]]:
    return _look_up_paths({name: store.path for name, store in stores.items()}, questions)


def _look_up_paths(
    paths: Mapping[str, Path], questions: Sequence[MentionCreated]
) -> list[tuple[float, int]]:
    """(seconds, posts found) of each."""
    views = {name: _OnDisk(path) for name, path in paths.items()}
    settings = BotSettings()
    bot = BotIdentity(
        account=Account(id=settings.account_id, handle=settings.handle, bot=True),
        cluster_id="bench",
    )
    knowledge = KnowledgeOfViews(lambda: views, settings.account_id, wait_s=0.0)
    found = []
    for question in questions:
        started = time.perf_counter()
        context = gather(question, bot, Limits(), knowledge)
        found.append((time.perf_counter() - started, len(context)))
    for view in views.values():
        view.db.close()
    return found


def _questions(count: int, lookups: int) -> list[MentionCreated]:
    """Mentions below posts drawn by chance."""
    chance = random.Random(11)
    wanted = set(chance.sample(range(count), lookups))
    chosen = (one for i, (_, one) in enumerate(posts.posts(count, 1)) if i in wanted)
    found = [_below(one) for one in chosen]
    chance.shuffle(found)
    return found


def _below(one: Post) -> MentionCreated:
    settings: Any = BotSettings()
    text, facets = addressed(settings, "what do you make of that?")
    asking = post(
        Person("acct:asker", "asker"),
        text,
        conversation_id=one.conversation_id,
        facets=facets,
        above=one,
        created_at=one.created_at,
        uri=f"{one.uri}:asked",
    )
    data = mention(settings, asking).data
    return data.model_copy(update={"ancestors_complete": False})
