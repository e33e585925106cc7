"""How two texts differ, word by word.

In: a text before and after. Out: pieces in reading order, each the same, gone or new. Bounded:
what is longer than ``LONGEST`` words is compared as far as that, and the rest is told as changed.
Next: ``bot/replay/show.py`` and ``bot/replay/page.py``.
"""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

Piece = tuple[Literal["same", "gone", "new"], str]
LONGEST = 1000  # words and spaces of a text that are compared; the time grows with the square
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def pieces(before: str, after: str) -> Iterator[Piece]:
    """The texts joined again from these pieces are the texts."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    matcher = SequenceMatcher(None, old[:LONGEST], new[:LONGEST], autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            yield "same", "".join(old[i:i_end])
            continue
        if i < i_end:
            yield "gone", "".join(old[i:i_end])
        if j < j_end:
            yield "new", "".join(new[j:j_end])
    if rest := "".join(old[LONGEST:]):
        yield "gone", rest
    if rest := "".join(new[LONGEST:]):
        yield "new", rest
