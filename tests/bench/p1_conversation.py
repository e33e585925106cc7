"""P1-conversation: P1 with the whole bot in the way, against a bare loop that does the same writes.

The worker is that of ``bot/app.py`` with the echo engine at no latency: views, policy with
quotas, context out of the views, prompt, checks, replies, audit records and references, and the
reading of those references again. Mentions stand in the topic, each below a post that only the
view knows. Every round has new ones; the worker goes on in its group and with its files.

The loop writes for each of the same inputs, in one transaction with its offset, as many records
of the same size, with as large headers, as the worker wrote in the round before. Seconds are
counted from the first input to the last commit: neither the start of Python nor the building of
views counts.
"""

from typing import Any

from infra.topics import create_topics
from schemas import names
from tests.bench import kafka, mentions
from tests.bench.result import Result
from tests.bench.setting import Setting, outcome
from tests.bench.stats import median

BATCH = 500
IN_FLIGHT = 1_000
GENEROUS = {
    "per_author": "1000000 per minute; 10000000 per hour",
    "per_new_author": "1000000 per minute; 10000000 per hour",
    "per_thread": "1000000 per minute; 10000000 per hour",
    "per_target": "1000000 per minute; 10000000 per hour",
    "overall": "100000000 per hour",
}
_LARGE = {"producer": {"max_batch_size": 1 << 20}}
_PATIENCE_S = 600.0


async def run(setting: Setting) -> Result:
    """Interleaved rounds, the first to warm up; the ratio is the median of the rounds' ratios."""
    total, rounds = (2_000, 3) if setting.quick else (10_000, 5)
    servers = setting.bootstrap_servers
    await create_topics(servers, partitions=kafka.PARTITIONS)
    samples: list[dict[str, Any]] = []
    writes: list[dict[str, Any]] = []
    for number in range(rounds + 1):
        await mentions.preload(servers, f"round-{number}", total)
        worker, writes = await _worker(setting, total)
        if not number:
            copies = {one["topic"]: setting.name("p1c-out") for one in writes}
            await kafka.make_topics(servers, *copies.values())
        loop = await _loop(setting, total, [{**w, "topic": copies[w["topic"]]} for w in writes])
        setting.say(f"worker {worker['events_per_s']:,.0f}/s, loop {loop['events_per_s']:,.0f}/s")
        if number:
            ratio = worker["events_per_s"] / loop["events_per_s"]
            samples.append({"round": number, "worker": worker, "loop": loop, "ratio": ratio})
    return _result(samples, {"inputs": total, "rounds": rounds}, writes)


def settings_of(setting: Setting) -> dict[str, Any]:
    """The worker's settings: quotas on, their limits out of reach."""
    return {
        "kafka": {
            "bootstrap_servers": setting.bootstrap_servers,
            "group_id": "p1-conversation",
        },
        "model": {"engine": "echo", "slots": IN_FLIGHT},
        "worker": {"max_in_flight": IN_FLIGHT},
        "limits": GENEROUS,
        "views": {"directory": str(setting.folder / "views")},
        "http": {"port": 0},
        "logging": {"format": "json", "level": "warning"},
    }


async def _worker(setting: Setting, total: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Its figures, and what it wrote to each topic."""
    spec = {"settings": settings_of(setting), "total": total}
    done = await _done(setting, "bot", spec)
    return _figures(done), done["writes"]


async def _loop(setting: Setting, total: int, writes: list[dict[str, Any]]) -> dict[str, float]:
    spec = {
        "group": setting.name("p1c-loop"),
        "source": names.FEED_MENTIONS,
        "total": total,
        "batch": BATCH,
        "writes": writes,
        **_LARGE,
    }
    return _figures(await _done(setting, "bare_loop", spec))


async def _done(setting: Setting, program: str, spec: dict[str, Any]) -> dict[str, Any]:
    done = await outcome(setting, program, spec, _PATIENCE_S)
    if done["inputs"] < spec["total"]:
        raise RuntimeError(f"{program} published {done['inputs']} of {spec['total']} inputs")
    return done


def _figures(done: dict[str, Any]) -> dict[str, float]:
    return {
        "events_per_s": done["inputs"] / done["seconds"],
        "processor_us_per_event": 1e6 * done["processor_s"] / done["inputs"],
        "inputs_per_transaction": done["inputs"] / done["transactions"],
    }


def _result(
    samples: list[dict[str, Any]], parameters: dict[str, Any], writes: list[dict[str, Any]]
) -> Result:
    rates = {
        name: median([sample[name]["events_per_s"] for sample in samples])
        for name in ("worker", "loop")
    }
    costs = {
        name: median([sample[name]["processor_us_per_event"] for sample in samples])
        for name in ("worker", "loop")
    }
    spent = (
        f"worker {costs['worker']:.0f} µs, the building of views and the reading of references"
        f" among it; loop {costs['loop']:.0f} µs"
    )
    written = ", ".join(
        f"{one['each']:.3g} x {one['bytes']:,.0f} bytes on {one['topic']}" for one in writes
    )
    return Result(
        id="P1-conversation",
        what="P1 with policy, quotas, context and views in the way: the whole bot with an instant"
        " engine, against a bare aiokafka loop with the same writes",
        goal="ratio >= 0.5",
        ratio=median([sample["ratio"] for sample in samples]),
        value=rates["worker"],
        unit="events/s",
        baseline=rates["loop"],
        parameters={
            **parameters,
            "partitions": kafka.PARTITIONS,
            "threads": mentions.THREADS,
            "in_flight": IN_FLIGHT,
        },
        samples=samples,
        notes=[
            f"Processor time per event: {spent}.",
            f"Written per event: {written}, headers besides.",
        ],
    )
