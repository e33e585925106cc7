"""How far is a reply the same when it is made again? The figures behind ``docs/reproducible.md``.

    python -m tests.trials.reproducible RESULTS.jsonl [--feed FILE...] [--prompts N]
        [--tokens N] [--seconds N] [--threads N] [--precision fp32 --precision bf16]
    python -m tests.trials.reproducible RESULTS.jsonl --report

For each precision and temperature, every prompt is answered alone and among 16 in flight; then
each reply is read once (``model.slots``, the pass that scoring makes), and each of its tokens is
drawn again, which tells the margins. As controls, replies are judged by another seed, and behind
another prompt: these must diverge. Results go to the file as they come; a run that is broken off,
or whose ``--seconds`` are over (exit status 3), goes on where it stopped.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bot.settings import Settings
from bot.wiring import setup_of
from model.engine import GenerationRequest, Prompt, Sampling
from model.loader import build_tokenizer
from model.scoring import margin
from model.transformers_engine import TransformersEngine
from tests.trials.reproducible_report import report
from tests.trials.talks import prompts

PRECISIONS = ("fp32", "bf16")
TEMPERATURES = (0.0, 0.7)
TOGETHER = 16
MODES = ("together", "alone", "scored")
BLOCK = 32  # prompts of one piece of work
CONTROLS = 2  # of a block, for each control
MORE = 3  # exit status: run again


@dataclass(frozen=True, slots=True)
class Work:
    """One piece: what the results are told apart by."""

    precision: str
    temperature: float
    mode: str
    block: int


class Results:
    """The file; a piece of work stands there whole, as one line, or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    def _read(self) -> None:
        text = self._path.read_text("utf-8") if self._path.exists() else ""
        lines = text.split("\n")[:-1]  # the last one is whole when it ends
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._done = {self._key(row): row["found"] for row in self.rows}

    def of(self, work: Work) -> Any:
        """What was found for a piece of work, None where it is still to be done. Two runs, of
        another precision each, may share the file."""
        self._read()
        return self._done.get((work.precision, work.temperature, work.mode, work.block))

    def add(self, work: Work, found: Any) -> None:
        row = {
            "precision": work.precision, "temperature": work.temperature,
            "mode": work.mode, "block": work.block, "found": found,
        }  # fmt: skip
        with self._path.open("ab", buffering=0) as file:  # one write: nobody else's in between
            file.write(json.dumps(row).encode() + b"\n")
        self._read()

    def _key(self, row: dict[str, Any]) -> tuple[str, float, str, int]:
        return row["precision"], row["temperature"], row["mode"], row["block"]


@dataclass
class Trial:
    """Prompts and how they are sampled; ``late`` tells that the time is over."""

    asked: Sequence[Prompt]
    sampling: Sampling
    results: Results
    threads: int
    late: Callable[[], bool]

    async def run(self, precision: str) -> bool:
        """Whether all is done."""
        left = self._open(precision)
        if not left:
            return True
        engine = TransformersEngine(dtype=precision, slots=TOGETHER, threads=self.threads)
        await engine.start()
        try:
            read = await asyncio.to_thread(reader, precision, self.threads)
            for work in left:
                if self.late():
                    return False
                judged = work.mode == "scored"
                self.results.add(
                    work, self._margins(read, work) if judged else await self._replies(engine, work)
                )
                print(work, flush=True)
        finally:
            await engine.stop()
        return True

    def _open(self, precision: str) -> list[Work]:
        blocks = range(-(-len(self.asked) // BLOCK))
        every = [Work(precision, t, m, b) for b in blocks for t in TEMPERATURES for m in MODES]
        return [work for work in every if self.results.of(work) is None]

    async def _replies(self, engine: TransformersEngine, work: Work) -> list[list[int]]:
        at_once = asyncio.Semaphore(TOGETHER if work.mode == "together" else 1)

        async def reply(number: int) -> list[int]:
            sampling = self.sampling_of(number, work.temperature)
            async with at_once:
                request = GenerationRequest(f"r{number}", self.asked[number], sampling)
                return list((await engine.generate(request)).token_ids)

        return list(await asyncio.gather(*(reply(number) for number in self._numbers(work))))

    def _numbers(self, work: Work) -> range:
        return range(work.block * BLOCK, min(len(self.asked), (work.block + 1) * BLOCK))

    def sampling_of(self, number: int, temperature: float) -> Sampling:
        return replace(self.sampling, temperature=temperature, seed=number)

    def _margins(self, read: "Read", work: Work) -> dict[str, list[list[float]]]:
        """Name of the run to the margins of each of its replies."""
        found: dict[str, list[list[float]]] = {"alone": [], "together": []}
        found |= {"another seed": [], "another prompt": [], "another precision": []}
        known = {m: self.results.of(replace(work, mode=m)) for m in ("alone", "together")}
        other = next(p for p in PRECISIONS if p != work.precision)
        across = self.results.of(replace(work, mode="alone", precision=other))
        for place, number in enumerate(self._numbers(work)):
            how = self.sampling_of(number, work.temperature)
            ids, together = known["alone"][place], known["together"][place]
            judged = self._margin(read, number, ids, how)
            found["alone"].append(judged)
            same = ids == together
            found["together"].append(judged if same else self._margin(read, number, together, how))
            if place < CONTROLS and work.temperature > 0:
                wrong = replace(how, seed=number + 1_000_000)
                found["another seed"].append(self._margin(read, number, ids, wrong))
            if place < CONTROLS:
                # Neighbours may ask the same, or be turns of one talk.
                elsewhere = (number + len(self.asked) // 2) % len(self.asked)
                found["another prompt"].append(self._margin(read, elsewhere, ids, how))
            if across and place < 4 * CONTROLS:
                found["another precision"].append(self._margin(read, number, across[place], how))
        return found

    def _margin(self, read: "Read", number: int, ids: list[int], how: Sampling) -> list[float]:
        prompt = self.asked[number].token_ids
        seen = set(prompt)
        margins = []
        for n, (logits, token) in enumerate(zip(read(prompt, ids), ids, strict=True)):
            margins.append(round(margin(logits, token, how, n, seen), 9))
            seen.add(token)
        return margins


Read = Callable[[Sequence[int], Sequence[int]], Any]


def reader(precision: str, threads: int) -> Read:
    """Reads prompt and reply as scoring does: logits before each token, (tokens, vocabulary)."""
    import torch

    from model.loading import load_model
    from model.slots import Slots
    from model.weights import resolve

    torch.set_num_threads(threads)
    loaded = load_model(resolve(), device="cpu", dtype=precision, context_length=None)
    slots = Slots(loaded.model, 1, loaded.context_length)

    def read(prompt: Sequence[int], ids: Sequence[int]) -> Any:
        first = len(prompt) - 1
        if first:
            slots.read(prompt[:-1], 0)
        return slots.read([prompt[-1], *ids[:-1]], first, every=True).numpy()

    return read


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    options = _options().parse_args(arguments)
    results = Results(options.results)
    if options.report:
        print(report(results.rows))
        return 0
    settings = Settings()
    tokenizer, length = build_tokenizer("transformers", settings.model.name, None, print)
    setup = setup_of(settings, "")
    found = prompts(options.feed, setup, settings.bot, tokenizer, length)
    asked = list(islice(_short(found, options.longest), options.prompts))
    end = time.monotonic() + options.seconds
    sampling = replace(setup.sampling, max_tokens=options.tokens)
    trial = Trial(asked, sampling, results, options.threads, lambda: time.monotonic() > end)
    done = [asyncio.run(trial.run(one)) for one in options.precision or PRECISIONS]
    return 0 if all(done) else MORE


def _short(found: Iterator[Prompt], longest: int) -> Iterator[Prompt]:
    return (prompt for prompt in found if len(prompt.token_ids) <= longest)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--feed", type=Path, nargs="*", default=[])
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--longest", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of a reply at most")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--report", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
