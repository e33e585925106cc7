"""replay-rate: recorded inputs made again, against the live pipeline on the same inputs.

The worker is that of ``bot/app.py`` with the echo engine at no latency, as in P1-conversation:
mentions stand in the topic, each below a post that only the view knows. Its rate is counted from
the first input to the last commit. Then the same decisions are replayed by ``bot/replay`` in a
process of its own, first frozen and then rebuilt, with results published on ``bot.replays``; their
rate is counted from the opening of the log to the last result kept, the making of the plan and the
building of the views included. The ratio is that of the frozen one, the slower goal beside it that
of the rebuilt. Memory: the largest resident set at the end of a replay, over that at its half.
"""

import time
from typing import Any

from infra.topics import create_topics
from tests.bench import kafka, mentions
from tests.bench.p1_conversation import settings_of
from tests.bench.result import Check, Result
from tests.bench.setting import Setting, outcome
from tests.bench.stats import median

MODES = ("frozen", "rebuilt")
IN_FLIGHT = 64
_PATIENCE_S = 1800.0
_COUNTED = (
    "Of the replays the making of the plan, and of the rebuilt one the building of the views from"
    " the beginning of the log, are counted."
)


async def run(setting: Setting) -> Result:
    """Every round has new inputs; each is answered once and replayed twice."""
    total, rounds = (2_000, 1) if setting.quick else (33_400, 3)
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        await mentions.preload(setting.bootstrap_servers, f"replay-{number}", total)
        since_ms = round(time.time() * 1000) - 1
        spec = {"settings": settings_of(setting), "total": total}
        sample: dict[str, Any] = {"round": number + 1, "live": await _live(setting, spec)}
        for mode in MODES:
            sample[mode] = await _replayed(setting, spec, mode, since_ms)
        samples.append(sample)
        told = ", ".join(f"{name} {sample[name]['per_s']:,.0f}/s" for name in ("live", *MODES))
        setting.say(told)
    return _result(samples, {"inputs": total * rounds, "rounds": rounds, "in_flight": IN_FLIGHT})


async def _live(setting: Setting, spec: dict[str, Any]) -> dict[str, float]:
    done = await outcome(setting, "bot", spec, _PATIENCE_S)
    return _figures(done)


async def _replayed(
    setting: Setting, spec: dict[str, Any], mode: str, since_ms: int
) -> dict[str, float]:
    asked = {
        "settings": spec["settings"],
        "mode": mode,
        "since_ms": since_ms,
        "in_flight": IN_FLIGHT,
        "folder": str(setting.folder / "replays"),
    }
    done = await outcome(setting, "replay", asked, _PATIENCE_S)
    if done["inputs"] < spec["total"]:
        raise RuntimeError(f"{mode}: {done['inputs']} of {spec['total']} were replayed")
    more = ("identical", "rss_half_mib", "rss_end_mib")
    return _figures(done) | {name: done[name] for name in more}


def _figures(done: dict[str, Any]) -> dict[str, float]:
    return {
        "per_s": done["inputs"] / done["seconds"],
        "processor_us_per_input": 1e6 * done["processor_s"] / done["inputs"],
        "inputs": done["inputs"],
    }


def _result(samples: list[dict[str, Any]], parameters: dict[str, Any]) -> Result:
    def middle(name: str, figure: str = "per_s") -> float:
        return median([sample[name][figure] for sample in samples])

    ratios = {
        mode: median([sample[mode]["per_s"] / sample["live"]["per_s"] for sample in samples])
        for mode in MODES
    }
    grown = max(
        sample[mode]["rss_end_mib"] / sample[mode]["rss_half_mib"]
        for sample in samples
        for mode in MODES
    )
    same = min(
        sample[mode]["identical"] / sample[mode]["inputs"] for sample in samples for mode in MODES
    )
    costs = ", ".join(
        f"{name} {middle(name, 'processor_us_per_input'):.0f} µs" for name in ("live", *MODES)
    )
    return Result(
        id="replay-rate",
        what="decisions made again from their recorded prompts, against the live pipeline on the"
        " same inputs, both with an instant engine",
        goal="ratio >= 1.5",
        ratio=ratios["frozen"],
        value=middle("frozen"),
        unit="inputs/s",
        baseline=middle("live"),
        parameters={**parameters, "partitions": kafka.PARTITIONS, "threads": mentions.THREADS},
        samples=samples,
        checks=[
            Check(what="rebuilt, to the live rate", goal="value >= 1.5", found=ratios["rebuilt"]),
            Check(what="share that came out as it was", goal="value >= 1", found=same),
            Check(what="memory at the end over that at half", goal="value <= 1.2", found=grown),
        ],
        notes=[f"Processor time per input: {costs}.", _COUNTED],
    )
