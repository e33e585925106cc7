"""replay-rescore: replies of the default model, put to it again from their recorded prompts.

A worker with the real model answers mentions below posts of a few sentences, 16 at once; then all
of these decisions are replayed frozen on the same machine, in a process of its own, 8 at once: the
reply is made again from the recorded token ids, sampling and seed, and the recorded tokens are
scored in one pass. The value is the share that scores as ``identical``; beside it stands the share
whose text came out the same, bit by bit. Nothing here is a time, so a busy machine does no harm.
"""

import random
import time
from typing import Any

from infra.topics import create_topics
from tests.bench import chats, kafka, mentions
from tests.bench.p1_conversation import settings_of
from tests.bench.result import Check, Result
from tests.bench.setting import Setting, outcome

SLOTS, IN_FLIGHT, TOKENS = 16, 8, 48
_PATIENCE_S = 3600.0


async def run(setting: Setting) -> Result:
    """One worker, then one replay."""
    total = 40 if setting.quick else 500
    dice = random.Random(1)
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)

    def words() -> tuple[str, str]:
        return chats.remark(dice), chats.question(dice)

    await mentions.preload(setting.bootstrap_servers, "rescore", total, words)
    since_ms = round(time.time() * 1000) - 1
    settings = settings_of(setting) | {
        "model": {"slots": SLOTS, "max_new_tokens": TOKENS},
        "worker": {"max_in_flight": SLOTS, "deadline_s": 900.0},
    }
    await outcome(setting, "bot", {"settings": settings, "total": total}, _PATIENCE_S)
    setting.say(f"{total} decided")
    asked = {
        "settings": settings,
        "mode": "frozen",
        "since_ms": since_ms,
        "in_flight": IN_FLIGHT,
        "folder": str(setting.folder / "replays"),
    }
    found = await outcome(setting, "replay", asked, _PATIENCE_S)
    setting.say(f"{found['identical']} of {found['inputs']} as they were, scores {found['scores']}")
    return _result(found)


def _result(found: dict[str, Any]) -> Result:
    scored = sum(found["scores"].values())
    share = found["scores"].get("identical", 0) / scored if scored else None
    return Result(
        id="replay-rescore",
        what="replies of the default model that score as identical when they are replayed",
        goal="value >= 0.99",
        ratio=None,
        value=share,
        unit="of the replies score as identical",
        baseline=None,
        parameters={
            "decisions": found["inputs"],
            "scored": scored,
            "tokens": TOKENS,
            "answered_at_once": SLOTS,
            "replayed_at_once": IN_FLIGHT,
        },
        samples=[found],
        checks=[
            Check(
                what="of the decisions came out bit by bit as they were",
                goal="value >= 0",
                found=found["identical"] / found["inputs"],
            )
        ],
        notes=["Default sampling, so that seeds matter; bf16 on a processor, one machine."],
    )
