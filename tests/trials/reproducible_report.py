"""The results of ``tests.trials.reproducible`` as tables in Markdown.

In come its lines, out come two tables: how many replies are the same token by token alone and
among others, and how far the tokens that are not drawn again are from being drawn.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from model.engine import Sampling
from model.scoring import noise, tolerance_of

Rows = Iterable[Mapping[str, Any]]
RUNS = ("alone", "together", "another precision", "another seed", "another prompt")
REPLIES = (
    "| precision | temperature | replies | tokens | the same alone and among 16 |"
    " score identical, made alone | score identical, made among 16 |"
)
MARGINS = (
    "| precision | temperature | judged | replies | tokens | tokens not drawn again |"
    " median margin | 90 % | 99 % | largest | identical within the tolerance |"
)


def report(rows: Rows) -> str:
    """Both tables."""
    found = list(rows)
    places = sorted({(row["precision"], row["temperature"]) for row in found}, reverse=True)
    replies = (line for place in places for line in _replies(found, *place))
    margins = (line for place in places for line in _margins(found, *place))
    return "\n".join(
        [REPLIES, "|---" * 7 + "|", *replies, "", MARGINS, "|---" * 11 + "|", *margins]
    )


def of(rows: Rows, precision: str, temperature: float, mode: str) -> list[Any]:
    """What was found, block by block."""
    blocks = {
        row["block"]: row["found"]
        for row in rows
        if (row["precision"], row["temperature"], row["mode"]) == (precision, temperature, mode)
    }
    return [blocks[block] for block in sorted(blocks)]


def _replies(rows: Rows, precision: str, temperature: float) -> Iterator[str]:
    alone = [reply for block in of(rows, precision, temperature, "alone") for reply in block]
    together = [reply for block in of(rows, precision, temperature, "together") for reply in block]
    same = sum(one == other for one, other in zip(alone, together, strict=False))
    scored = of(rows, precision, temperature, "scored")
    told = [f"{_identical(_joined(scored, run), precision, temperature)}" for run in RUNS[:2]]
    tokens = sum(map(len, alone))
    yield _line([precision, temperature, len(alone), tokens, same, *told])


def _margins(rows: Rows, precision: str, temperature: float) -> Iterator[str]:
    scored = of(rows, precision, temperature, "scored")
    for run in RUNS:
        replies = _joined(scored, run)
        if not replies:
            continue
        every = [margin for reply in replies for margin in reply]
        off = sorted(margin for margin in every if margin > 0)
        shares = [f"{_share(off, share):.2g}" if off else "" for share in (0.5, 0.9, 0.99, 1)]
        identical = _identical(replies, precision, temperature)
        yield _line(
            [precision, temperature, run, len(replies), len(every), len(off), *shares, identical]
        )


def _joined(scored: Sequence[Mapping[str, Any]], run: str) -> list[list[float]]:
    return [reply for block in scored for reply in block[run]]


def _identical(replies: Sequence[Sequence[float]], precision: str, temperature: float) -> int:
    most = noise(Sampling(temperature=temperature), tolerance_of(precision))
    return sum(max(reply) <= most for reply in replies)


def _share(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
