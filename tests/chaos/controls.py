"""Controls: each planted flaw with the faults that bring it to light, and what must be found.

A checker that finds nothing proves nothing unless it finds these. Rounds with other seeds go on
until it is caught, at most ``ROUNDS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.run import Result, run
from tests.chaos.stage import Setting

ROUNDS = 4
_LATE = "commit outlives its worker"


@dataclass(frozen=True, slots=True)
class Control:
    """``faults`` to try and the kinds of violation of which one must be found."""

    faults: tuple[str, ...]
    caught: frozenset[str]
    seconds: float = 10.0


CONTROLS = {
    "auto-commit": Control(("kill blind",) * 3, frozenset({"lost"})),
    "no-transactions": Control(("kill after-all-sends",) * 3, frozenset({"twice"})),
    # Two at a time: somebody must be left to take over.
    "one-id-per-process": Control(
        ("freeze before-begin",) * 2, frozenset({"twice", "backwards"}), seconds=30.0
    ),
    "offset-before-start": Control((_LATE,) * 2, frozenset({"twice"}), seconds=30.0),
    "two-transactions": Control(("kill in open transaction",) * 3, frozenset({"twice"})),
    "no-lanes": Control((), frozenset({"misordered"})),
    "no-map": Control(("kill blind",) * 3, frozenset({"twice"})),
    "no-dedupe": Control((), frozenset({"repeat"})),
    "no-view-of-decisions": Control(("SIGTERM",) * 6, frozenset({"repeat"}), seconds=20.0),
    "no-taking-back": Control((), frozenset({"stale"})),
}


def is_caught(flaw: str, result: Result) -> bool:
    """Was it found, and for what it does?"""
    return bool(CONTROLS[flaw].caught & set(result.counts))


async def hunt(flaw: str, seed: int, say: Callable[[str], None] = print) -> Result:
    """The run that caught it, or the last one."""
    control = CONTROLS[flaw]
    for number in range(ROUNDS):
        setting = Setting(
            seed=seed + number,
            inputs=round(60 * control.seconds),
            faults=len(control.faults),
            seconds=control.seconds,
            latency_ms=300.0,
            flaw=flaw,
            only=control.faults,
            quick=True,
        )
        result = await run(setting, say)
        found = ", ".join(f"{kind} {times}" for kind, times in sorted(result.counts.items()))
        say(f"{flaw}, round {number + 1}, {result.seconds:.0f} s: {found or 'nothing'}")
        if is_caught(flaw, result):
            break
    return result
