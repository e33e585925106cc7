"""A long run over real conversations: every input has its one outcome, and figures about it.

    python -m tests.trials.long_run FEED.jsonl... [--engine echo] [--limit N] [--json OUT]

In come feed files, as ``tests/trials/convert.py`` makes them. A broker and a worker are started,
all records are written at once, and when the worker is through with them and with everything that
they led to, the log is read. Out come throughput, sizes of the contexts (posts and tokens), skips
by reason, and what is wrong, if anything is: nothing is asked of the worker, all is read back. In
the end each of its views is compared with one that is built anew (``twite views verify``).
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.clients import producer
from bot.config import as_environment
from bot.feed import read_file
from bot.settings import Settings
from bot.worker_process import WorkerProcess
from infra.broker import LocalBroker
from infra.topics import create_topics
from schemas.record import Output
from tests.chaos import readers
from tests.chaos.facts import AUDITS, INPUTS, READ, Commit, Key, Raw
from tests.chaos.wire import WireError, fetch_commits

PARTITIONS = 4
PATIENCE_S = 3600.0
SHARES = (0.5, 0.9, 0.99, 1.0)


@dataclass
class Found:
    """What stands on the log in the end."""

    inputs: dict[Key, int] = field(default_factory=dict)  # when the broker took them in, in ms
    decided: Counter[Key] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    reviews: Counter[str] = field(default_factory=Counter)
    posts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    behind: int = 0  # answers for which the views were not there in time
    last_ms: int = 0
    verified: str = ""  # what ``twite views verify`` said
    differing: bool = False

    @property
    def lost(self) -> list[Key]:
        return [key for key in self.inputs if key not in self.decided]

    @property
    def twice(self) -> list[Key]:
        return [key for key, times in self.decided.items() if times > 1]

    @property
    def stray(self) -> list[Key]:
        return [key for key in self.decided if key not in self.inputs]

    def add(self, raw: Raw) -> None:
        """An input or a decision."""
        if raw.topic in INPUTS:
            self.inputs[raw.topic, raw.partition, raw.offset] = raw.timestamp_ms
            return
        data = json.loads(raw.value or b"")
        place = data["input"]
        self.decided[place["topic"], place["partition"], place["offset"]] += 1
        self.last_ms = max(self.last_ms, raw.timestamp_ms)
        outcome = data["outcome"]
        if data.get("reason") and outcome != "replied":
            outcome += f": {data['reason']}"
        (self.reviews if place["topic"] == INPUTS[2] else self.outcomes)[outcome] += 1
        if data.get("prompt"):
            self._context(data)

    def _context(self, data: Mapping[str, Any]) -> None:
        self.posts.append(sum(item["included"] for item in data["context"]))
        self.tokens.append(len(data["prompt"]["token_ids"]))
        self.left_out.update(i["why"] for i in data["context"] if not i["included"])
        self.behind += any(
            rule["name"] == "views" and rule["verdict"] == "behind" for rule in data["rules"]
        )

    @property
    def seconds(self) -> float:
        """From the first input on the log to the last decision."""
        return (self.last_ms - min(self.inputs.values())) / 1000


async def run(feeds: Sequence[Path], engine: str, limit: int | None, folder: Path) -> Found:
    """Raises ``Trouble`` where the worker cannot work, ``TimeoutError`` where it hangs."""
    async with LocalBroker() as broker:
        servers = broker.bootstrap_servers
        await create_topics(servers, partitions=PARTITIONS)
        settings = settings_of(servers, engine, folder)
        worker = WorkerProcess(settings, folder / "worker.log", print)
        await worker.start()
        try:
            outputs = [entry.output for feed in feeds for entry in read_file(feed)][:limit]
            await _write(settings, outputs)
            print(f"{len(outputs)} records written", flush=True)
            await _finished(servers, settings.kafka.group_id)
        finally:
            await worker.stop()
        found = await asyncio.to_thread(_read, servers)
        found.verified, found.differing = await _verify(settings)
        return found


async def _verify(settings: Settings) -> tuple[str, bool]:
    """What the command said in short, and whether a view differs from the log."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot.cli", "views", "verify"),
        env={**os.environ, **as_environment(settings)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    told, _ = await process.communicate()
    equal = told.count(b"sqlite: equal")
    return f"{equal} of {told.count(b'sqlite: ')} equal", process.returncode != 0


async def _write(settings: Settings, outputs: Sequence[Output]) -> None:
    """All at once; the records of a conversation stay in their order."""
    async with producer(settings.kafka) as writer:
        sent = [
            await writer.send(one.topic, one.value, one.key, headers=list(one.headers))
            for one in outputs
        ]
        await asyncio.gather(*sent)


def settings_of(servers: str, engine: str, folder: Path) -> Settings:
    """No quotas: a data set has few people, and they ask thousands of times."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": servers, "group_id": "long-run"},
            "model": {"engine": engine, "slots": 64 if engine == "echo" else 8},
            "worker": {"max_in_flight": 80},
            "limits": {"enabled": False},
            "views": {"directory": folder / "views"},
            "logging": {"format": "json", "level": "info"},
        }
    )


async def _finished(servers: str, group: str) -> None:
    """Until the group is past everything, what the bot tells itself included."""
    places = [(topic, p) for topic in READ for p in range(PARTITIONS)]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        await asyncio.sleep(1.0)
        try:
            done = await asyncio.to_thread(fetch_commits, servers, group, places)
        except WireError:
            continue
        last = await asyncio.to_thread(_last, servers)
        if all(done.get(place, Commit(0)).offset > end for place, end in last.items()):
            return
    raise TimeoutError("the worker is not through with it")


def _last(servers: str) -> dict[tuple[str, int], int]:
    """The offset of the last record of each partition that has any."""
    return {
        (one.topic, one.partition): one.offset
        for one in readers.read_committed(servers, list(READ), PARTITIONS)
    }


def _read(servers: str) -> Found:
    found = Found()
    for raw in readers.read_committed(servers, [*INPUTS, *AUDITS], PARTITIONS):
        found.add(raw)
    return found


def report(found: Found) -> Iterator[str]:
    """The figures, for people."""
    rate = len(found.decided) / found.seconds
    yield f"{len(found.inputs)} inputs, {len(found.decided)} decided: {rate:.2g}/s"
    yield f"lost {len(found.lost)}, twice {len(found.twice)}, stray {len(found.stray)}"
    yield f"outcomes: {_counted(found.outcomes)}"
    yield f"reviews: {_counted(found.reviews)}"
    for name, sizes in (("posts", found.posts), ("tokens", found.tokens)):
        yield f"{name} of a prompt: {_sizes(sizes)}"
    yield f"left out of contexts: {_counted(found.left_out)}"
    yield f"views: {found.verified}"
    yield f"answered while the views were behind: {found.behind} of {len(found.posts)}"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in counter.most_common()) or "none"


def _sizes(sizes: Iterable[int]) -> str:
    ordered = sorted(sizes)
    if not ordered:
        return "none"
    return ", ".join(
        f"p{100 * share:.0f} {ordered[max(0, round(share * len(ordered)) - 1)]}" for share in SHARES
    )


def as_json(found: Found) -> dict[str, Any]:
    """The same, for programs."""
    return {
        "inputs": len(found.inputs),
        "decided": len(found.decided),
        "per_second": len(found.decided) / found.seconds,
        "lost": len(found.lost),
        "twice": len(found.twice),
        "stray": len(found.stray),
        "outcomes": dict(found.outcomes),
        "reviews": dict(found.reviews),
        "left_out": dict(found.left_out),
        "behind": found.behind,
        "views_differ": found.differing,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every input has exactly one outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("feeds", type=Path, nargs="+", metavar="FEED")
    parser.add_argument("--engine", default="echo", choices=("echo", "transformers"))
    parser.add_argument("--limit", type=int, help="at most so many records")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="keep the worker's log and its views there")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="twite-trial-") as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(run(asked.feeds, asked.engine, asked.limit, folder))
    for line in report(found):
        print(line)
    if asked.json:
        asked.json.write_text(json.dumps(as_json(found), indent=1) + "\n")
    wrong = found.lost or found.twice or found.stray or found.differing or not found.inputs
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
