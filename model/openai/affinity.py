"""Which prompts a server has seen, to send a talk where its earlier turns are still warm.

A prompt is cut into blocks of token ids; the key of a block covers everything before it (the way
of vLLM's prefix cache), so the longest known run of keys is the prefix that can be reused there.
A server's memory is guessed as the last ``KEPT`` blocks that were sent to it.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

BLOCK = 16  # tokens
KEPT = 65_536  # blocks per server: a million tokens, a few MB here


def block_keys(token_ids: Sequence[int]) -> list[int]:
    """One key per full block, each over all ids up to its end."""
    keys, key = list[int](), 0
    for start in range(0, len(token_ids) - BLOCK + 1, BLOCK):
        key = hash((key, *token_ids[start : start + BLOCK]))
        keys.append(key)
    return keys


class SeenPrefixes:
    """The blocks that one server was sent lately."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._keys: OrderedDict[int, None] = OrderedDict()

    def add(self, keys: Iterable[int]) -> None:
        """This prompt goes to the server; the longest unused blocks are forgotten."""
        for key in keys:
            self._keys[key] = None
            self._keys.move_to_end(key)
        while len(self._keys) > self._kept:
            self._keys.popitem(last=False)

    def warm(self, keys: Sequence[int]) -> int:
        """How many blocks of this prompt, from its start, the server has seen."""
        for number, key in enumerate(keys):
            if key not in self._keys:
                return number
        return len(keys)

    def forget(self) -> None:
        """The server was started anew."""
        self._keys.clear()
