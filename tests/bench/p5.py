"""P5: what the runtime adds between a mention and its reply, beside the handler's own time.

The handler is instant, so all that is measured is the runtime and Kafka: a mention appended
until its reply is readable under ``read_committed``. Beside it, by turns, a plain round trip in
the same program at the same rate: appended until read, no worker, no transaction.

Half load is half of what 16 slots, the default, can do. With a handler of 20 ms that is 400 a
second, which is the figure that has the goal; with one of 200 ms, as in P2, it is 40. At 400 the
four transactional producers are nearly always in a transaction, so a record waits for the one
before; at 40 it has one to itself.
"""

from typing import Any

from tests.bench import kafka
from tests.bench.result import Check, Result
from tests.bench.setting import Others, Setting, child, outcome
from tests.bench.stats import median, percentile

SLOTS = 16
RATE = 0.5 * SLOTS / 0.02
CALM_RATE = 0.5 * SLOTS / 0.2
WARM_S = 8.0  # the broker's compiler has seen the way by then


async def run(setting: Setting) -> Result:
    """One worker stays up; runs with it and plain ones take turns."""
    rounds, seconds = (2, 5) if setting.quick else (5, 12)
    source, plain = setting.name("p5-in"), setting.name("p5-plain")
    outputs = [setting.name("p5-replies"), setting.name("p5-audit")]
    await kafka.make_topics(setting.bootstrap_servers, source, plain, *outputs)
    samples = []
    worker: dict[str, Any] = {
        "group": setting.name("p5"),
        "source": source,
        "outputs": outputs,
        "partitions": kafka.PARTITIONS,
        "config": {"max_in_flight": SLOTS},
    }
    busy = {"rate": RATE, "seconds": seconds, "outputs": outputs, "source": source}
    async with child(setting, "worker", worker) as started:
        await started.news("ready", timeout_s=60)
        await _measure(setting, {**busy, "seconds": WARM_S})
        for number in range(rounds):
            others = Others()
            sample: dict[str, Any] = {
                "round": number + 1,
                "reply": await _measure(setting, busy),
                "plain": await _measure(setting, {**busy, "source": plain, "plain": True}),
                "calm": await _measure(setting, {**busy, "rate": CALM_RATE}),
            }
            sample["cores_used_by_others"] = others.cores()
            samples.append(sample)
            setting.say(", ".join(_told(name, sample[name]) for name in ("reply", "plain", "calm")))
    return _result(samples, rounds, seconds)


def _told(name: str, found: dict[str, float]) -> str:
    return f"{name} p50 {found['p50_ms']:.1f} p99 {found['p99_ms']:.1f} ms"


async def _measure(setting: Setting, spec: dict[str, Any]) -> dict[str, float]:
    done = await outcome(setting, "round_trip", spec, spec["seconds"] + 90)
    from_send, from_append = done["from_send_ms"], done["from_append_ms"]
    return {
        "p50_ms": percentile(from_append, 50),
        "p99_ms": percentile(from_append, 99),
        "max_ms": max(from_append),
        "from_send_p50_ms": percentile(from_send, 50),
        "from_send_p99_ms": percentile(from_send, 99),
    }


def _result(samples: list[dict[str, Any]], rounds: int, seconds: float) -> Result:
    def middle(run: str, figure: str) -> float:
        return median([sample[run][figure] for sample in samples])

    for sample in samples:
        sample["ratio"] = sample["reply"]["from_send_p50_ms"] / sample["plain"]["from_send_p50_ms"]
        sample["ratio_p99"] = (
            sample["reply"]["from_send_p99_ms"] / sample["plain"]["from_send_p99_ms"]
        )
    multiple = median([sample["ratio"] for sample in samples])
    multiple_p99 = median([sample["ratio_p99"] for sample in samples])
    return Result(
        id="P5",
        what="mention appended until its reply is readable under read_committed, handler instant,"
        " at half load: p99, and p50 as a multiple of a plain produce-consume round trip",
        goal="value <= 25",
        ratio=multiple,
        value=middle("reply", "p99_ms"),
        unit="ms (p99)",
        baseline=middle("plain", "p99_ms"),
        parameters={
            "rate_per_s": RATE,
            "calm_rate_per_s": CALM_RATE,
            "rounds": rounds,
            "seconds": seconds,
            "slots": SLOTS,
            "partitions": kafka.PARTITIONS,
        },
        samples=samples,
        checks=[
            Check(
                what=f"ms p99 at {CALM_RATE:g} a second",
                goal="value <= 25",
                found=middle("calm", "p99_ms"),
            )
        ],
        notes=[
            f"p50 {middle('reply', 'p50_ms'):.1f} ms, plain {middle('plain', 'p50_ms'):.1f} ms.",
            f"At {CALM_RATE:g} a second p50 is {middle('calm', 'p50_ms'):.1f} ms.",
            f"From send(), p50 is {multiple:.1f} times a plain round trip, p99 {multiple_p99:.1f}.",
            "From append: by the broker's clock in whole ms, so up to 1 ms is counted too much.",
        ],
    )
