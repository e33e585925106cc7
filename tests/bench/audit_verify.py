"""audit-verify: how fast the hash chain of the audit is verified, and made.

Decisions of some 6 KB stand on ``bot.audit``. Sealers, as ``twite audit seal`` runs them, seal all
of them; then the function of ``twite audit verify`` compares every record with its seal, in this
process.
Its baseline is reading the same log without looking at it. The rate of sealing stands beside it.
"""

import asyncio
import json
import time
from typing import Any

from aiokafka import AIOKafkaProducer

from bot.sealing.sealer import seal_all
from bot.sealing.seals import Head
from bot.sealing.verify import verify
from bot.settings import KafkaSettings
from consumers.reader import Range, range_reader
from infra.topics import create_topics
from schemas import names
from tests.bench import kafka
from tests.bench.result import Check, Result
from tests.bench.setting import Setting
from tests.bench.stats import median
from tests.schemas.samples import headers, sample

_CHUNK = 1_000
_PROMPT_TOKENS, _ANSWER_TOKENS, _RULES = 200, 60, 15
_SEALING_S = 1_800.0


async def run(setting: Setting) -> Result:
    """Write, seal, read bare and verify."""
    count, rounds = (4_000, 1) if setting.quick else (100_000, 3)
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)
    size = await _write(setting, count)
    settings = KafkaSettings(bootstrap_servers=setting.bootstrap_servers)
    sealed_per_s = count / await _seal(settings, count)
    setting.say(f"sealed: {sealed_per_s:,.0f} records/s")
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        read = count / await _read(setting)
        began, used = time.perf_counter(), time.process_time()
        found = await verify(settings)
        samples.append(
            {
                "round": number + 1,
                "reading_per_s": read,
                "verified_per_s": count / (time.perf_counter() - began),
                "processor_us_per_record": 1e6 * (time.process_time() - used) / count,
                "proven": sum(one.good for one in found) / count,
            }
        )
        setting.say(f"verified: {samples[-1]['verified_per_s']:,.0f} records/s")
    return _result(count, size, sealed_per_s, samples)


def _result(count: int, size: int, sealed_per_s: float, samples: list[dict[str, Any]]) -> Result:
    value = median([sample["verified_per_s"] for sample in samples])
    baseline = median([sample["reading_per_s"] for sample in samples])
    return Result(
        id="audit-verify",
        what="decision records per second that are compared with the hash chain of the audit",
        goal="value >= 2000",
        ratio=value / baseline,
        value=value,
        unit="records/s",
        baseline=baseline,
        parameters={"records": count, "bytes": size, "partitions": kafka.PARTITIONS},
        samples=samples,
        checks=[
            Check(what="records/s sealed", goal="value >= 1000", found=sealed_per_s),
            Check(
                what="share that is proven",
                goal="value >= 1",
                found=min(sample["proven"] for sample in samples),
            ),
        ],
        notes=["The ratio is to reading the same log without looking at it."],
    )


def _decision(number: int) -> bytes:
    data = sample(names.DECISION_RECORDED) | {"decision_id": f"decision:{number}"}
    prompt, output = data["prompt"], data["output"]
    prompt["messages"] = [prompt["messages"][0] | {"content": f"{number} words " * 30}] * 4
    prompt["token_ids"] = [(number + at) % 49_152 for at in range(_PROMPT_TOKENS)]
    output["text"] = f"{number} answers " * 15
    output["token_ids"] = [(number * at) % 49_152 for at in range(_ANSWER_TOKENS)]
    output["logprobs"] = [-(number + at) / 1_000_003 for at in range(_ANSWER_TOKENS)]
    data["rules"] = [{"name": f"rule-{at}", "verdict": "pass"} for at in range(_RULES)]
    return json.dumps(data, separators=(",", ":")).encode()


async def _write(setting: Setting, count: int) -> int:
    """Bytes of one value."""
    told = list(headers(names.DECISION_RECORDED))
    async with AIOKafkaProducer(
        bootstrap_servers=setting.bootstrap_servers, linger_ms=20, max_batch_size=1 << 19
    ) as producer:
        for start in range(0, count, _CHUNK):
            sent = [
                await producer.send(
                    names.BOT_AUDIT,
                    _decision(number),
                    b"conv:1",
                    partition=number % kafka.PARTITIONS,
                    headers=told,
                )
                for number in range(start, min(start + _CHUNK, count))
            ]
            await asyncio.gather(*sent)
    return len(_decision(count - 1))


async def _seal(settings: KafkaSettings, count: int) -> float:
    """Seconds until everything is sealed."""
    stop = asyncio.Event()
    ends: dict[str, int] = {}

    def sealed(place: str, head: Head) -> None:
        ends[place] = head.end
        if sum(ends.values()) >= count:
            stop.set()

    began = time.perf_counter()
    async with asyncio.timeout(_SEALING_S):
        await seal_all(settings, stop, sealed=sealed)
    return time.perf_counter() - began


async def _read(setting: Setting) -> float:
    """Seconds of reading the log alone."""
    began = time.perf_counter()
    async with range_reader(setting.bootstrap_servers) as reader:
        async for _ in reader.read(Range(names.BOT_AUDIT)):
            pass
    return time.perf_counter() - began
