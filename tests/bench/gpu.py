"""``python -m tests.bench.gpu``: P4 on a GPU, the engine's rows against what the card can do.

For a model of random weights in the shape of one with 8 billion, and for the default model: tokens
a second of the engine's rows (``model.slots``) while all of them answer, over a bare loop that
calls the stock model with its own static cache, and over the roofline: the weights are read once a
step, and the card's memory gives so many bytes a second (measured by a copy). Without CUDA it says
so and exits with 2; ``make bench-gpu`` runs P3 as well. ``measure`` runs on any device.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model.libraries import quiet_libraries
from model.slots import Slots

PROMPT, TOKENS = 200, 128
EIGHT_BILLION = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Tokens a second: of the engine's rows, of a bare loop, and what memory allows at most."""

    rows: int
    engine: float
    bare: float
    roofline: float


def main() -> int:
    """The exit status: 2 where there is no GPU."""
    console = Console()
    if not torch.cuda.is_available():
        console.print(
            "bench-gpu needs a GPU with CUDA, and torch sees none here. Nothing was measured."
        )
        return 2
    device = torch.device("cuda")
    table = Table("model", "rows", "engine", "bare loop", "roofline", "of bare", "of roofline",
                  title=f"P4, tokens/s on {torch.cuda.get_device_name(device)}")  # fmt: skip
    for name, model in (("default", default_model(device)), ("8B, random", random_model(device))):
        for rows in (1, 16, 64):
            found = measure(model, rows, prompt=PROMPT, tokens=TOKENS)
            table.add_row(name, *_row(found))
        del model
        torch.cuda.empty_cache()
    console.print(table)
    return 0


def _row(found: Figures) -> tuple[str, ...]:
    rates = (found.engine, found.bare, found.roofline)
    shares = (found.engine / found.bare, found.engine / found.roofline)
    return (f"{found.rows}", *(f"{r:,.0f}" for r in rates), *(f"{share:.2f}" for share in shares))


def default_model(device: torch.device) -> Any:
    """The default model's weights in bf16."""
    from transformers import AutoModelForCausalLM

    from model.weights import resolve

    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(resolve().path, dtype=torch.bfloat16)
    return model.eval().to(device)


def random_model(device: torch.device, shape: dict[str, int] | None = None) -> Any:
    """A Llama of that shape, made on the device itself; what it says means nothing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device, quiet_libraries():
            return LlamaForCausalLM(LlamaConfig(**(shape or EIGHT_BILLION))).eval()
    finally:
        torch.set_default_dtype(before)


def measure(model: Any, rows: int, *, prompt: int, tokens: int) -> Figures:
    """Decode ``tokens`` for ``rows`` prompts of ``prompt`` tokens, both ways."""
    ids = [[(7 * n + 13 * row) % 1000 + 10 for n in range(prompt)] for row in range(rows)]
    weights = sum(p.numel() * p.element_size() for p in {*model.parameters()})
    steps = _bandwidth(model.device) / weights
    bare = _bare(model, ids, tokens)
    return Figures(rows, _engine(model, ids, tokens), bare, rows * steps)


def _engine(model: Any, ids: Sequence[list[int]], tokens: int) -> float:
    """The rows of the engine, as its batch steps them; on a CPU they take the model's weights."""
    slots = Slots(model, len(ids), len(ids[0]) + tokens + 8)
    for row, prompt in enumerate(ids):
        slots.read(prompt, 0, slots.reading_rows[0])
        slots.move(slots.reading_rows[0], row, len(prompt))
    last, place = [prompt[-1] for prompt in ids], len(ids[0])
    slots.decode(last, [place] * len(ids))
    before = time.perf_counter()
    for step in range(1, tokens):
        logits = slots.decode(last, [place + step] * len(ids))
        last = logits.argmax(-1).tolist()
    return len(ids) * (tokens - 1) / (time.perf_counter() - before)


@torch.inference_mode()
def _bare(model: Any, ids: Sequence[list[int]], tokens: int) -> float:
    """The stock model with its own static cache, a step at a time, all rows of one length."""
    from transformers import StaticCache

    length = len(ids[0]) + tokens + 8
    cache = StaticCache(config=model.config, max_cache_len=length)
    given = torch.tensor(ids, device=model.device)
    last = model(given, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1)[:, None]
    place = torch.tensor([len(ids[0])], device=model.device)
    before = 0.0
    for step in range(tokens):
        last = (
            model(last, past_key_values=cache, cache_position=place + step)
            .logits[:, -1]
            .argmax(-1)[:, None]
        )
        last.tolist()  # the engine looks at each token as well
        before = before or time.perf_counter()
    return len(ids) * (tokens - 1) / (time.perf_counter() - before)


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes."""
    size = 1 << (30 if device.type == "cuda" else 26)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    _wait(device)
    before = time.perf_counter()
    for _ in range(4):
        target.copy_(source)
    _wait(device)
    return 4 * 2 * size / (time.perf_counter() - before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
