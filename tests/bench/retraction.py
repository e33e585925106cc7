"""retraction: how soon the bot takes its words back when the post they answered is deleted.

The worker is that of ``bot/app.py`` with the echo engine, 16 slots of 200 ms, at half of the
load that these can take. One in four of the answered mentions is deleted two seconds after its
reply; the time is that from the deletion's being appended to ``feed.posts`` until the retraction
is readable under ``read_committed``. On the way are three topics and three transactions: the
deletion meets the reference (``bot.references``), the review goes to the partition of the
conversation (``bot.reviews``), and is decided once the views have caught up. Beside it, by
turns, a plain round trip in the same form at the rate of the deletions.
"""

from typing import Any

from infra.topics import create_topics
from tests.bench import kafka
from tests.bench.result import Check, Result
from tests.bench.setting import Others, Setting, child, outcome
from tests.bench.stats import median, percentile

SLOTS = 16
LATENCY_MS = 200
RATE = 0.5 * SLOTS / (LATENCY_MS / 1000)
EVERY = 4
REST_S = 2.0
WARM_S = 8.0


async def run(setting: Setting) -> Result:
    """One worker stays up; runs with it and plain ones take turns."""
    rounds, seconds = (2, 10) if setting.quick else (5, 30)
    plain = setting.name("retraction-plain")
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)
    await kafka.make_topics(setting.bootstrap_servers, plain)
    samples = []
    async with child(setting, "bot", {"settings": settings_of(setting), "total": 10**9}):
        await _measure(setting, WARM_S)  # also waits for the worker
        for number in range(rounds):
            others = Others()
            sample: dict[str, Any] = {
                "round": number + 1,
                "retraction": await _measure(setting, seconds),
                "plain": await _plain(setting, plain, seconds),
            }
            sample["cores_used_by_others"] = others.cores()
            samples.append(sample)
            setting.say(", ".join(_told(name, sample[name]) for name in ("retraction", "plain")))
    return _result(samples, rounds, seconds)


def settings_of(setting: Setting) -> dict[str, Any]:
    """The worker's settings: no limits."""
    return {
        "kafka": {"bootstrap_servers": setting.bootstrap_servers, "group_id": "retraction"},
        "model": {"engine": "echo", "slots": SLOTS, "echo": {"latency_ms": LATENCY_MS}},
        "worker": {"max_in_flight": 2 * SLOTS},
        "limits": {"enabled": False},
        "views": {"directory": str(setting.folder / "views")},
        "http": {"port": 0},
        "logging": {"format": "json", "level": "warning"},
    }


def _told(name: str, found: dict[str, float]) -> str:
    return f"{name} p50 {found['p50_ms']:.1f} p99 {found['p99_ms']:.1f} ms"


async def _measure(setting: Setting, seconds: float) -> dict[str, float]:
    asked = {
        "rate": RATE,
        "seconds": seconds,
        "every": EVERY,
        "rest_s": REST_S,
        "name": setting.name("run"),
    }
    done = await outcome(setting, "retraction", asked, seconds + 180)
    return {**_delays(done), "doubled": done["doubled"]}


async def _plain(setting: Setting, topic: str, seconds: float) -> dict[str, float]:
    asked = {"rate": RATE / EVERY, "seconds": seconds, "source": topic, "plain": True}
    done = await outcome(setting, "round_trip", asked, seconds + 90)
    return _delays(done)


def _delays(done: dict[str, Any]) -> dict[str, float]:
    from_send, from_append = done["from_send_ms"], done["from_append_ms"]
    return {
        "p50_ms": percentile(from_append, 50),
        "p99_ms": percentile(from_append, 99),
        "max_ms": max(from_append),
        "from_send_p50_ms": percentile(from_send, 50),
        "deletions": len(from_append),
    }


def _result(samples: list[dict[str, Any]], rounds: int, seconds: float) -> Result:
    def middle(run: str, figure: str) -> float:
        return median([sample[run][figure] for sample in samples])

    for sample in samples:
        pair = sample["retraction"], sample["plain"]
        sample["ratio"] = pair[0]["from_send_p50_ms"] / pair[1]["from_send_p50_ms"]
    longest = max(sample["retraction"]["max_ms"] for sample in samples)
    usual, plain = middle("retraction", "p50_ms"), middle("plain", "p50_ms")
    doubled = sum(sample["retraction"]["doubled"] for sample in samples)
    return Result(
        id="retraction",
        what="a mention deleted until the retraction of its reply is readable under"
        " read_committed, at half load: p99, and p50 as a multiple of a plain round trip",
        goal="value <= 1000",
        ratio=median([sample["ratio"] for sample in samples]),
        value=middle("retraction", "p99_ms"),
        unit="ms (p99)",
        baseline=middle("plain", "p99_ms"),
        parameters={
            "mentions_per_s": RATE,
            "deleted_one_in": EVERY,
            "rounds": rounds,
            "seconds": seconds,
            "slots": SLOTS,
            "latency_ms": LATENCY_MS,
            "partitions": kafka.PARTITIONS,
        },
        samples=samples,
        checks=[Check(what="retractions that came twice", goal="value <= 0", found=doubled)],
        notes=[
            f"p50 {usual:.0f} ms, longest {longest:.0f} ms, plain p50 {plain:.1f} ms.",
            "From append: by the broker's clock in whole ms, so up to 1 ms is counted too much.",
        ],
    )
