"""``python -m tests.chaos``: one seeded run, with progress, a summary, and JSON on request.

The exit status is 0 only where nothing is lost, doubled, torn or out of order.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.chaos.attacks import KINDS
from tests.chaos.controls import CONTROLS, hunt, is_caught
from tests.chaos.run import Result, run
from tests.chaos.stage import Setting


def main() -> int:
    """Parse, run, tell."""
    arguments = _arguments()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:7.1f} s] {line}", flush=True)

    if arguments.controls:
        return asyncio.run(_controls(arguments.seed, say))
    setting = Setting(
        seed=arguments.seed,
        inputs=arguments.inputs,
        faults=arguments.faults,
        seconds=60 * arguments.minutes,
        workers=arguments.workers,
        latency_ms=arguments.latency_ms,
        flaw=arguments.flaw,
        changes=arguments.changes,
        logs=arguments.logs,
        only=tuple(arguments.only),
        quick=arguments.quick,
    )
    result = asyncio.run(run(setting, say))
    for line in summary(result):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(result), indent=2) + "\n")
    return 1 if result.violations else 0


async def _controls(seed: int, say: Callable[[str], None]) -> int:
    missed = [flaw for flaw in CONTROLS if not is_caught(flaw, await hunt(flaw, seed, say))]
    print(f"caught {len(CONTROLS) - len(missed)} of {len(CONTROLS)} planted flaws", *missed)
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--faults", type=int, default=len(KINDS))
    parser.add_argument("--minutes", type=float, default=2.25, help="how long faults and feed last")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=150.0, help="mean of an answer")
    parser.add_argument("--flaw", default="", help="plant this flaw (tests/chaos/flaws.py)")
    parser.add_argument("--changes", type=float, default=0.2, help="share of edits and deletions")
    parser.add_argument("--controls", action="store_true", help="hunt planted flaws instead")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=list(KINDS),
        metavar="FAULT",
        help=f"only this kind of fault, may be repeated; there are: {', '.join(KINDS)}",
    )
    parser.add_argument("--quick", action="store_true", help="nobody is killed before the end")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs there")
    return parser.parse_args()


def summary(result: Result) -> list[str]:
    """The verdict, for people."""
    found = result.counts
    words = ("lost", "twice", "torn", "misordered")
    others = sorted(set(found) - set(words))
    lines = [f"  {times:3d} x {kind}" for kind, times in sorted(result.faults.items())]
    lines += [
        f"  {times:3d} x {kind} (did not come about)"
        for kind, times in sorted(result.missed.items())
    ]
    lines += [str(one) for one in result.violations[:50]]
    lines.append(
        f"seed {result.setting.seed}: {result.fed} records (and {result.aborted} aborted),"
        f" {result.inputs} inputs, {result.faults.total()} faults,"
        f" {result.outputs} outputs in {result.seconds:.0f} s: "
        + ", ".join(f"{word} {found[word]}" for word in (*words, *others))
    )
    if result.lost_commits:
        lines.append(
            f"  the broker lost commits of the group (its own logs say so {result.lost_commits}"
            " times): offsets went back, and nothing may have come of it"
        )
    outcomes = (f"{times} {outcome}" for outcome, times in sorted(result.outcomes.items()))
    lines.append(f"  {', '.join(outcomes)}")
    return lines


def as_json(result: Result) -> dict[str, object]:
    """The same, for programs."""
    return {
        "setting": {k: v for k, v in asdict(result.setting).items() if k != "logs"},
        "records": result.fed,
        "inputs": result.inputs,
        "aborted_inputs": result.aborted,
        "outputs": result.outputs,
        "outcomes": dict(result.outcomes),
        "lost_commits": result.lost_commits,
        "faults": dict(result.faults),
        "missed": dict(result.missed),
        "counts": {kind: result.counts[kind] for kind in ("lost", "twice", "torn", "misordered")}
        | dict(result.counts),
        "violations": [asdict(one) for one in result.violations],
        "seconds": round(result.seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
