"""P3: tokens a second of the whole worker with its real model, over the engine alone.

Mentions stand in the topic; the worker reads, gathers, decides, asks the engine in its own process,
checks and publishes exactly once, with as many in flight as the engine has slots. Then the engine
is asked for the very same replies with nothing around it. Same machine, same settings, one after
the other; both figures hold the same start and the same end of a run.
"""

from typing import Any

from infra.topics import create_topics
from tests.bench import kafka, mentions
from tests.bench.p1_conversation import GENEROUS
from tests.bench.result import Result
from tests.bench.setting import Setting, child
from tests.bench.stats import median

SLOTS, TOKENS = 16, 64
ANSWER_S = 1_500.0


async def run(setting: Setting) -> Result:
    """Each round has new mentions and a new worker, in the same group."""
    total, rounds = (32, 1) if setting.quick else (160, 3)
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        await mentions.preload(setting.bootstrap_servers, f"round-{number}", total)
        found = await _round(setting, total)
        samples.append({"round": number + 1, **found})
        setting.say(
            f"worker {found['worker_tokens_per_s']:.0f} tokens/s,"
            f" engine alone {found['alone_tokens_per_s']:.0f}"
        )
    return Result(
        id="P3",
        what="tokens/s of the whole worker, over those of its engine alone with the same requests",
        goal="ratio >= 0.9",
        ratio=median([sample["ratio"] for sample in samples]),
        value=median([sample["worker_tokens_per_s"] for sample in samples]),
        unit="tokens/s",
        baseline=median([sample["alone_tokens_per_s"] for sample in samples]),
        parameters={
            "model": "default",
            "mentions": total,
            "slots": SLOTS,
            "tokens": TOKENS,
            "rounds": rounds,
        },
        samples=samples,
        notes=["On a GPU the goal is 0.97; none was at hand."],
    )


async def _round(setting: Setting, total: int) -> dict[str, Any]:
    spec = {"settings": _settings(setting), "total": total}
    async with child(setting, "pipeline", spec) as program:
        worker = await program.news("pipeline", ANSWER_S)
        alone = await program.news("alone", ANSWER_S)
        await program.wait(60)
    rates = [found["tokens"] / found["seconds"] for found in (worker, alone)]
    return {
        "worker_tokens_per_s": rates[0],
        "alone_tokens_per_s": rates[1],
        "ratio": rates[0] / rates[1],
        "requests": worker["requests"],
        "tokens": worker["tokens"],
    }


def _settings(setting: Setting) -> dict[str, Any]:
    return {
        "kafka": {"bootstrap_servers": setting.bootstrap_servers, "group_id": "p3"},
        "model": {"slots": SLOTS, "max_new_tokens": TOKENS},
        "worker": {"max_in_flight": SLOTS, "deadline_s": 600},
        "limits": GENEROUS,
        "views": {"directory": str(setting.folder / "views")},
        "http": {"port": 0},
        "logging": {"format": "json", "level": "warning"},
    }
