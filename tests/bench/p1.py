"""P1: what the runtime costs above a bare loop that does the same writes.

Inputs stand in the topic; worker and loop read all of them by turns, each in a process and a
group of its own. Seconds are counted from the first record to the last commit, so neither the
start of Python nor joining the group counts.

There are three loops. The baseline is aiokafka's ``send`` with batches as large as the
transaction (1 MiB); with its default of 16 KiB, a partition's batches go out one by one, each
after the other's answer. The third makes its batches by hand, which is the least that Python
can do; it is told beside the others, without a goal.
"""

from typing import Any

from tests.bench import kafka
from tests.bench.result import Result
from tests.bench.setting import Setting, outcome
from tests.bench.stats import median

BATCH = 500
IN_FLIGHT = 1_000
LANES = 1_000
_LARGE = {"producer": {"max_batch_size": 1 << 20}}
LOOPS: dict[str, dict[str, Any]] = {
    "loop": _LARGE,
    "loop_default": {},
    "loop_by_hand": {**_LARGE, "by_hand": True},
}
SYSTEMS = ("worker", *LOOPS)


async def run(setting: Setting) -> Result:
    """Interleaved rounds; the ratio is the median of the rounds' ratios."""
    total, rounds = (20_000, 3) if setting.quick else (60_000, 5)
    source = setting.name("p1-in")
    outputs = [setting.name("p1-replies"), setting.name("p1-audit")]
    await kafka.make_topics(setting.bootstrap_servers, source, *outputs)
    lanes = kafka.shuffled_lanes(total, LANES)
    await kafka.preload(setting.bootstrap_servers, source, (kafka.Input(lane) for lane in lanes))
    spec = {"source": source, "outputs": outputs, "total": total, "batch": BATCH}
    for _ in range(2):  # the broker's compiler has seen the way by then
        await _measure(setting, "bare_loop", {**spec, **LOOPS["loop"]})
    samples = []
    for number in range(rounds):
        config = {"max_in_flight": IN_FLIGHT, "max_batch_records": BATCH}
        sample: dict[str, Any] = {"round": number + 1}
        sample["worker"] = await _measure(setting, "worker", {**spec, "config": config})
        for name, changes in LOOPS.items():
            sample[name] = await _measure(setting, "bare_loop", {**spec, **changes})
        samples.append(sample)
        setting.say(", ".join(f"{n} {sample[n]['events_per_s']:,.0f}/s" for n in SYSTEMS))
    return _result(samples, {"inputs": total, "rounds": rounds})


def _result(samples: list[dict[str, Any]], parameters: dict[str, Any]) -> Result:
    for sample in samples:
        sample["ratio"] = sample["worker"]["events_per_s"] / sample["loop"]["events_per_s"]
    rates = {n: median([sample[n]["events_per_s"] for sample in samples]) for n in SYSTEMS}
    costs = {
        n: median([sample[n]["processor_us_per_event"] for sample in samples]) for n in SYSTEMS
    }
    listed = ", ".join(f"{n} {costs[n]:.0f} µs" for n in SYSTEMS)
    return Result(
        id="P1",
        what="exactly-once worker with an instant handler, reply and audit per record,"
        " against a bare aiokafka consume-transact-produce loop with the same writes",
        goal="ratio >= 0.8",
        ratio=median([sample["ratio"] for sample in samples]),
        value=rates["worker"],
        unit="events/s",
        baseline=rates["loop"],
        parameters={
            **parameters,
            "partitions": kafka.PARTITIONS,
            "lanes": LANES,
            "batch": BATCH,
            "in_flight": IN_FLIGHT,
        },
        samples=samples,
        notes=[
            f"Processor time per event: {listed}.",
            f"The loop with default batches: {rates['loop_default']:,.0f} events/s.",
            f"The loop with batches made by hand: {rates['loop_by_hand']:,.0f} events/s.",
        ],
    )


async def _measure(setting: Setting, program: str, spec: dict[str, Any]) -> dict[str, float]:
    done = await outcome(setting, program, {**spec, "group": setting.name("p1")}, 180)
    if done["inputs"] != spec["total"]:
        raise RuntimeError(f"{program} published {done['inputs']} of {spec['total']} inputs")
    return {
        "events_per_s": done["inputs"] / done["seconds"],
        "processor_us_per_event": 1e6 * done["processor_s"] / done["inputs"],
        "inputs_per_transaction": done["inputs"] / done["transactions"],
    }
