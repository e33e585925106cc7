"""own-process: the engine in a process of its own, over the same in the worker's process.

The default model is kept busy from an event loop, once with nothing else to do there and once with
the decoding of events for a part of the time, as in a worker that follows a busy feed. Told are
tokens per second, how late the event loop wakes, and memory on either side. The two sides take
turns, each in a fresh program with the same number of threads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.result import Check, Result
from tests.bench.setting import Setting, child
from tests.bench.stats import median

SLOTS, TOKENS = 8, 16
DUTIES = (0.0, 0.3)
START_S = 180.0


async def run(setting: Setting) -> Result:
    """The two sides by turns."""
    rounds, seconds = (1, 20.0) if setting.quick else (3, 30.0)
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        for own in (False, True) if number % 2 == 0 else (True, False):
            for found in await _side(setting, own, seconds):
                setting.say(_said(own, found))
                samples.append({"round": number + 1, "own_process": own, **found})
    return _result(samples, rounds, seconds)


async def _side(setting: Setting, own: bool, seconds: float) -> list[dict[str, Any]]:
    spec = {
        "own": own,
        "slots": SLOTS,
        "tokens": TOKENS,
        "threads": 1,
        "seconds": seconds,
        "duties": DUTIES,
    }
    async with child(setting, "host", spec) as program:
        found = [await program.news("measured", START_S + 2 * seconds) for _ in DUTIES]
    return [{name: value for name, value in one.items() if name != "event"} for one in found]


def _result(samples: Sequence[Mapping[str, Any]], rounds: int, seconds: float) -> Result:
    def of(own: bool, duty: float, figure: str) -> float:
        return median([s[figure] for s in samples if s["own_process"] is own and s["duty"] == duty])

    idle, busy = DUTIES
    value, baseline = of(True, busy, "tokens_per_s"), of(False, busy, "tokens_per_s")
    late = "late_p99_ms"
    return Result(
        id="own-process",
        what=f"tokens a second beside an event loop that is busy for {busy:.0%} of the time",
        goal="ratio >= 1.0",
        ratio=value / baseline if baseline else None,
        value=value,
        unit="tokens/s",
        baseline=baseline,
        parameters={
            "model": "default",
            "in_flight": SLOTS,
            "threads": 1,
            "tokens": f"{TOKENS // 2} to {TOKENS * 3 // 2}",
            "rounds": rounds,
            "seconds": seconds,
        },
        samples=samples,
        checks=[
            Check(
                what="ms late (p99), the busy loop", goal="value <= 10", found=of(True, busy, late)
            ),
            Check(
                what="ms late (p99), the idle loop", goal="value <= 5", found=of(True, idle, late)
            ),
            Check(what="MiB in our process", goal="value <= 200", found=of(True, busy, "our_mib")),
        ],
        notes=[
            (
                f"With the engine in the same process: {of(False, busy, late):.1f} ms late (p99)"
                f" with a busy loop and {of(False, idle, late):.1f} ms with an idle one,"
                f" {of(False, busy, 'our_mib'):,.0f} MiB."
            ),
            (
                f"Tokens a second beside an idle loop: {of(True, idle, 'tokens_per_s'):.0f}, in the"
                f" same process {of(False, idle, 'tokens_per_s'):.0f}."
            ),
            (
                "Tokens a second of processor time, of both processes, beside a busy loop:"
                f" {of(True, busy, 'tokens_per_core_s'):.1f}, in the same process"
                f" {of(False, busy, 'tokens_per_core_s'):.1f}; that depends less on what else the"
                " machine does."
            ),
            f"The engine's own process takes {of(True, busy, 'engine_mib'):,.0f} MiB.",
        ],
    )


def _said(own: bool, found: Mapping[str, Any]) -> str:
    return (
        f"{'own process' if own else 'same process'}, loop busy {found['duty']:.0%}:"
        f" {found['tokens_per_s']:.1f} tokens/s, p99 {found['late_p99_ms']:.1f} ms late,"
        f" {found['our_mib']:.0f} MiB here, {found['engine_mib']:.0f} there"
    )
