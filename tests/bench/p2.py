"""P2: how full the slots are kept by slow answers, in order, beside other frameworks.

A handler of 200 ms, 1,000 lanes, one broker, four partitions. The limit is slots ÷ latency:
256 slots could do 1,280 replies a second, 1,024 slots 5,000 (a lane has one answer at a time,
so 1,000 lanes keep no more than 1,000 slots busy). Every system writes one reply per input,
without an audit record, since the peers have no such thing.

The rate is told by the broker's stamps on the replies: the slope of their count over time, from
the first tenth to the last, so that no start and no empty end counts. Processor time is that of
all processes of the system (Restate's server included, the broker not) in the same while.

Then each system answers again while its worker is killed with kill -9 three times, in the
midst of answers, and started again at once; the replies are counted per input and looked at
lane by lane. What a system does not claim (order, exactly once) is counted all the same. There
the inputs fall on 300 lanes by chance and take 50 to 350 ms, so that whoever keeps no order
shows it.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from tests.bench import kafka
from tests.bench.peers.install import PeerMissing
from tests.bench.result import Check, Result
from tests.bench.setting import Setting
from tests.bench.stats import median, slope
from tests.bench.systems import PEERS, TWITE, Running, System, install, running

LATENCY_S = 0.2
LANES = 1_000
FEW, MANY = 256, 1_024
KILLED_LANES = 300
KILLS = (0.2, 0.45, 0.7)  # after these shares of the replies
EDGE = 0.1
IDLE_S = 5.0  # no new reply for this long: that was all
REJOIN_S = 25.0  # after a kill a group waits for the dead member's session to expire
KILLED_PATIENCE_S = 240.0
EVERY_S = 0.25
BEYOND = 1.01  # above the limit by more than this, a system was not held to its slots


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    patience_s: float
    killed_inputs: int


QUICK = Plan(rounds=1, seconds=4, patience_s=8, killed_inputs=1_500)
LONG = Plan(rounds=3, seconds=8, patience_s=12, killed_inputs=6_000)


async def run(setting: Setting) -> Result:
    """Speed by turns, then kills; in the quick form only ours is killed."""
    plan = QUICK if setting.quick else LONG
    missing = await asyncio.to_thread(_install, setting)
    peers = [peer for peer in PEERS if peer.name not in missing and _worth_it(peer, setting)]
    samples: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        for system, slots in ((TWITE, FEW), *((peer, FEW) for peer in peers), (TWITE, MANY)):
            sample = await _speed(setting, plan, system, slots)
            samples.append({"round": number + 1, **sample})
    faults = {
        system.name: await _kills(setting, plan, system)
        for system in (TWITE, *([] if setting.quick else peers))
    }
    return _result(plan, samples, faults, missing)


def _worth_it(peer: System, setting: Setting) -> bool:
    """What answers four at a time does 20 a second by its nature: not in the quick form."""
    return not (setting.quick and peer.mode == "in-order")


def _install(setting: Setting) -> dict[str, str]:
    """Names of systems that can't be had, with the reason."""
    missing = {}
    for peer in PEERS:
        try:
            install(peer)
        except PeerMissing as error:
            missing[peer.name] = str(error)
            setting.say(f"{peer.name} can't be had: {error}")
    return missing


async def _speed(setting: Setting, plan: Plan, system: System, slots: int) -> dict[str, Any]:
    count = round(min(slots, LANES) / LATENCY_S * plan.seconds)
    spec = await _topics(setting, _even(count), slots)
    async with running(setting, system, spec) as started:
        usage = await _until_idle(setting, started, spec, plan.patience_s, IDLE_S)
        tail = started.log_tail()
    out = spec["outputs"][0]
    replies = await asyncio.to_thread(kafka.read_back, setting.bootstrap_servers, out)
    if len(replies) < 10:
        raise RuntimeError(f"{system.name} gave {len(replies)} replies:\n{tail}")
    rate, us = _steady(sorted(reply.at_ms / 1000 for reply in replies), usage)
    limit = min(slots, LANES) / LATENCY_S
    if rate > limit * BEYOND:
        raise RuntimeError(f"{system.name} had more than {slots} in flight: {rate:,.0f}/s")
    setting.say(f"{system.name}, {slots}: {rate:,.0f}/s of {limit:,.0f}, {us:,.0f} µs each")
    return {
        "system": system.name,
        "slots": slots,
        "replies_per_s": rate,
        "ratio": rate / limit,
        "processor_us_per_reply": us,
    }


def _even(count: int) -> Iterator[kafka.Input]:
    """Every lane once before any comes again, all of the same latency."""
    for number, lane in enumerate(kafka.shuffled_lanes(count, LANES)):
        yield kafka.Input(lane=lane, seconds=LATENCY_S, tag=str(number))


def _uneven(count: int) -> Iterator[kafka.Input]:
    """Lanes and latencies by chance, the latter 0.2 s on average."""
    chance = random.Random(2)
    for number in range(count):
        lane, seconds = chance.randrange(KILLED_LANES), round(chance.uniform(0.05, 0.35), 3)
        yield kafka.Input(lane=lane, seconds=seconds, tag=str(number))


async def _topics(setting: Setting, inputs: Iterable[kafka.Input], slots: int) -> dict[str, Any]:
    """Fresh topics with all inputs in them."""
    source, out = setting.name("p2-in"), setting.name("p2-replies")
    await kafka.make_topics(setting.bootstrap_servers, source, out)
    await kafka.preload(setting.bootstrap_servers, source, inputs)
    spec = {"source": source, "outputs": [out], "group": setting.name("p2"), "slots": slots}
    return {**spec, "partitions": kafka.PARTITIONS}


class Ends:
    """How far a topic has grown, asked cheaply."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "ends"})
        self._sources = [TopicPartition(topic, p) for p in range(kafka.PARTITIONS)]

    def total(self) -> int:
        """Offsets used, transactions' markers included."""
        return sum(
            self._consumer.get_watermark_offsets(source, timeout=5, cached=False)[1]
            for source in self._sources
        )

    def close(self) -> None:
        self._consumer.close()


async def _until_idle(
    setting: Setting,
    started: Running,
    spec: Mapping[str, Any],
    patience_s: float,
    idle_s: float,
) -> list[tuple[float, float]]:
    """(time, processor seconds so far), until no reply came for ``idle_s``, or patience ends.

    ``patience_s`` counts from the first reply.
    """
    ends = Ends(setting.bootstrap_servers, spec["outputs"][0])
    usage: list[tuple[float, float]] = []
    seen, changed, give_up = 0, time.monotonic() + REJOIN_S, float("inf")
    try:
        while time.monotonic() < min(give_up, changed + idle_s):
            usage.append((time.time(), started.processor_s()))
            total = await asyncio.to_thread(ends.total)
            if total and not seen:
                give_up = time.monotonic() + patience_s
            if total > seen:
                seen, changed = total, time.monotonic()
            await asyncio.sleep(EVERY_S)
    finally:
        ends.close()
    return usage


def _steady(at: Sequence[float], usage: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Replies per second, and processor µs per reply, between the first and the last tenth.

    Equal latencies make replies come in waves. Replies over the time between two edges would
    count up to a wave too much, so the rate is the slope of a line through all of them.
    """
    first, last = round(len(at) * EDGE), round(len(at) * (1 - EDGE)) - 1
    rate = slope([(at[i] - at[first], i) for i in range(first, last + 1)])
    used = _used_at(usage, at[last]) - _used_at(usage, at[first])
    return rate, 1e6 * used / (rate * (at[last] - at[first]))


def _used_at(usage: Sequence[tuple[float, float]], moment: float) -> float:
    """Processor seconds used until then, on a line between the two samples around it."""
    before = max((u for u in usage if u[0] <= moment), default=usage[0])
    after = min((u for u in usage if u[0] > moment), default=usage[-1])
    span = after[0] - before[0]
    share = (moment - before[0]) / span if span > 0 else 0.0
    return before[1] + share * (after[1] - before[1])


async def _kills(setting: Setting, plan: Plan, system: System) -> dict[str, int]:
    """Doubles, losses and misordered replies over three kill -9 of the worker."""
    # What answers one record of a partition at a time is given few, or it would take hours.
    slow = system.kind == "quix" or system.mode == "in-order"
    count = plan.killed_inputs if not slow else 200
    spec = await _topics(setting, _uneven(count), FEW)
    async with running(setting, system, spec) as started:
        ends = Ends(setting.bootstrap_servers, spec["outputs"][0])
        for share in KILLS:
            await _wait_for(ends, round(share * count))
            await started.kill()
            await started.start()
        ends.close()
        await _until_idle(setting, started, spec, KILLED_PATIENCE_S, REJOIN_S)
    counted = await asyncio.to_thread(_count, setting.bootstrap_servers, spec, count)
    setting.say(f"{system.name}, killed three times: {counted}")
    return counted


async def _wait_for(ends: Ends, total: int) -> None:
    async with asyncio.timeout(120):
        while await asyncio.to_thread(ends.total) < total:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _count(bootstrap_servers: str, spec: Mapping[str, Any], count: int) -> dict[str, int]:
    inputs = kafka.read_back(bootstrap_servers, spec["source"])
    numbers = {(i.partition, i.offset): int(i.value.split(b" ")[1]) for i in inputs}
    replies = kafka.read_back(bootstrap_servers, spec["outputs"][0])
    lanes = {int(i.value.split(b" ")[1]): i.key for i in inputs}
    return count_faults([_number(reply.value, numbers) for reply in replies], lanes, count)


def _number(reply: bytes, numbers: Mapping[tuple[int, int], int]) -> int:
    """Peers name the input by its number, our worker by its place."""
    head = reply.split(b" ", 1)[0]
    return numbers[kafka.place_of(reply)] if b"/" in head else int(head)


def count_faults(replies: Iterable[int], lanes: Mapping[int, bytes], count: int) -> dict[str, int]:
    """``replies`` name inputs in the order of the log, ``lanes`` give each input's lane.

    A lane is out of order where a reply stands behind that to a later input of its lane; only
    first replies count, a double is no disorder as well.
    """
    times: Counter[int] = Counter()
    latest: dict[bytes, int] = defaultdict(lambda: -1)
    misordered = 0
    for number in replies:
        times[number] += 1
        if times[number] == 1:
            misordered += number < latest[lanes[number]]
            latest[lanes[number]] = max(latest[lanes[number]], number)
    doubles = sum(n - 1 for n in times.values())
    return {
        "inputs": count,
        "doubles": doubles,
        "lost": count - len(times),
        "misordered": misordered,
    }


def _result(
    plan: Plan,
    samples: list[dict[str, Any]],
    faults: Mapping[str, Mapping[str, int]],
    missing: Mapping[str, str],
) -> Result:
    few = [s for s in samples if s["system"] == TWITE.name and s["slots"] == FEW]
    many = [s for s in samples if s["system"] == TWITE.name and s["slots"] == MANY]
    ours = _middle(samples, TWITE, "processor_us_per_reply")
    in_order = [_middle(samples, p, "processor_us_per_reply") for p in PEERS if p.keeps_order]
    best = min((us for us in in_order if us is not None), default=None)
    share = ours / best if ours is not None and best is not None else None
    return Result(
        id="P2",
        what="handler of 200 ms, 1,000 lanes in order, 256 in flight: replies/s against"
        " slots ÷ latency, beside FastStream, Faust, Quix Streams and Restate",
        goal="ratio >= 0.95",
        ratio=median([sample["ratio"] for sample in few]),
        value=median([sample["replies_per_s"] for sample in few]),
        unit="replies/s",
        baseline=FEW / LATENCY_S,
        parameters={
            "latency_s": LATENCY_S,
            "lanes": LANES,
            "partitions": kafka.PARTITIONS,
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "killed_inputs": plan.killed_inputs,
            "systems": [_row(system, samples, faults, missing) for system in (TWITE, *PEERS)],
        },
        samples=samples,
        checks=[
            Check(
                what="processor time per reply, of the best peer's that keeps order",
                goal="value <= 0.5",
                found=share,
            ),
            Check(
                what="doubles after three kill -9",
                goal="value <= 0",
                found=faults[TWITE.name]["doubles"],
            ),
            Check(
                what="lost or misordered after three kill -9",
                goal="value <= 0",
                found=faults[TWITE.name]["lost"] + faults[TWITE.name]["misordered"],
            ),
        ],
        notes=[
            f"With 1,024 slots: {median([s['replies_per_s'] for s in many]):,.0f} replies/s.",
            f"That is {median([s['ratio'] for s in many]):.2f} of what 1,000 lanes allow.",
            *(f"{name} could not be measured: {reason}" for name, reason in missing.items()),
        ],
    )


def _middle(samples: Sequence[Mapping[str, Any]], system: System, figure: str) -> float | None:
    found = [s[figure] for s in samples if s["system"] == system.name and s["slots"] == FEW]
    return median(found) if found else None


def _row(
    system: System,
    samples: Sequence[Mapping[str, Any]],
    faults: Mapping[str, Mapping[str, int]],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """One line of the page's table."""
    counted = faults.get(system.name, {})
    return {
        "system": system.name,
        "promises": missing.get(system.name, system.promises),
        "settings": system.settings,
        "replies_per_s": _middle(samples, system, "replies_per_s"),
        "of_the_limit": _middle(samples, system, "ratio"),
        "processor_us_per_reply": _middle(samples, system, "processor_us_per_reply"),
        "killed_inputs": counted.get("inputs"),
        "doubles": counted.get("doubles"),
        "lost": counted.get("lost"),
        "misordered": counted.get("misordered"),
    }
