"""P5: what the runtime adds between a mention and its reply, beside the handler's own time.

The handler is instant, so all that is measured is the runtime and Kafka: a mention appended
until its reply is readable under ``read_committed``. Beside it, by turns, a plain round trip in
the same program at the same rate: appended until read, no worker, no transaction.

Half load: half of what 16 slots with a handler of 20 ms could do (800 a second), which is
far below what the machine can do with an instant handler (P1), and a busy day for a model.
"""

from typing import Any

from tests.bench import kafka
from tests.bench.result import Check, Result
from tests.bench.setting import Others, Setting, child
from tests.bench.stats import median, percentile

SLOTS = 16
HANDLER_S = 0.02
HALF = 0.5
RATE = HALF * SLOTS / HANDLER_S


async def run(setting: Setting) -> Result:
    """One worker stays up; runs with it and plain ones take turns."""
    rounds, seconds = (2, 6) if setting.quick else (5, 20)
    source, plain = setting.name("p5-in"), setting.name("p5-plain")
    outputs = [setting.name("p5-replies"), setting.name("p5-audit")]
    await kafka.make_topics(setting.bootstrap_servers, source, plain, *outputs)
    spec = {"rate": RATE, "seconds": seconds, "outputs": outputs}
    samples = []
    worker: dict[str, Any] = {
        "group": setting.name("p5"),
        "source": source,
        "outputs": outputs,
        "partitions": kafka.PARTITIONS,
        "config": {"max_in_flight": SLOTS},
    }
    async with child(setting, "worker", worker) as started:
        await started.news("ready", timeout_s=60)
        for number in range(rounds):
            before, others = started.processor_s(), Others()
            reply = await _measure(setting, {**spec, "source": source})
            reply["worker_processor_share"] = (started.processor_s() - before) / seconds
            reply["cores_used_by_others"] = others.cores()
            trip = await _measure(setting, {**spec, "source": plain, "plain": True})
            multiple = reply["from_send_p50_ms"] / trip["from_send_p50_ms"]
            samples.append({"round": number + 1, "ratio": multiple, "reply": reply, "plain": trip})
            setting.say(
                f"reply p50 {reply['p50_ms']:.1f} p99 {reply['p99_ms']:.1f} ms,"
                f" plain p50 {trip['p50_ms']:.1f} p99 {trip['p99_ms']:.1f} ms"
            )
    return _result(samples, rounds, seconds)


async def _measure(setting: Setting, spec: dict[str, Any]) -> dict[str, float]:
    async with child(setting, "round_trip", spec) as started:
        done = await started.news("done", timeout_s=spec["seconds"] + 90)
        await started.wait()
    from_send, from_append = done["from_send_ms"], done["from_append_ms"]
    return {
        "p50_ms": percentile(from_append, 50),
        "p99_ms": percentile(from_append, 99),
        "max_ms": max(from_append),
        "from_send_p50_ms": percentile(from_send, 50),
        "from_send_p99_ms": percentile(from_send, 99),
    }


def _result(samples: list[dict[str, Any]], rounds: int, seconds: int) -> Result:
    p99 = median([sample["reply"]["p99_ms"] for sample in samples])
    multiples = [s["reply"]["from_send_p99_ms"] / s["plain"]["from_send_p99_ms"] for s in samples]
    p50 = median([sample["reply"]["p50_ms"] for sample in samples])
    multiple = median([sample["ratio"] for sample in samples])
    return Result(
        id="P5",
        what="mention appended until its reply is readable under read_committed, handler instant,"
        " at half load: p99, and p50 as a multiple of a plain produce-consume round trip",
        goal="value <= 25",
        ratio=multiple,
        value=p99,
        unit="ms (p99)",
        baseline=median([sample["plain"]["p99_ms"] for sample in samples]),
        parameters={
            "rate_per_s": RATE,
            "rounds": rounds,
            "seconds": seconds,
            "slots": SLOTS,
            "partitions": kafka.PARTITIONS,
            "half_load": f"half of {SLOTS} slots / {HANDLER_S:g} s",
        },
        samples=samples,
        checks=[Check(what="p50 from append, ms", goal="value <= 25", found=p50)],
        notes=[
            f"Counted from send(), p50 is {multiple:.1f} times a plain round trip.",
            f"Counted from send(), p99 is {median(multiples):.1f} times a plain round trip.",
            "From append: by the broker's clock in whole ms, so up to 1 ms is counted too much.",
        ],
    )
