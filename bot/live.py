"""What the asker of a private talk may watch while the model still writes.

In: the engine, a request, and who watches. Out: the same generation as without a watcher.
Guaranteed: what is shown went through the checks of a reply; of a text that still grows, its last
word is held back, and a link or code that is still open, as the next words may change what they
are. Nothing that goes wrong here touches the reply. Next: ``bot/presence.py`` tells the topic.
"""

from collections.abc import Callable
from contextlib import aclosing
from typing import Protocol

import regex
import structlog

from model.engine import Engine, EngineUnavailable, Generation, GenerationRequest

log = structlog.get_logger(__name__)

_TAIL = 400  # characters at the end in which something may still be open
_LAST_WORD = regex.compile(r"\S+\Z")
# A link of markdown with its text or address not closed yet, a tag, code.
_OPEN = regex.compile(r"(?:!?\[[^\]]*(?:\](?:\([^)]*)?)?|<[^>\n]*|`[^`]*|[*_~]{1,3}[^*_~\s]*)\Z")


class Watcher(Protocol):
    """Whoever watches one answer. None of this waits or raises."""

    def typing(self) -> None:
        """The model is being asked."""
        ...

    def wants_text(self) -> bool:
        """Whether a partial text would go out now."""
        ...

    def partial(self, text: str) -> None:
        """The answer so far, as it may be said."""
        ...

    def done(self) -> None:
        """The input is decided, whatever came of it."""
        ...


async def watched(
    engine: Engine,
    request: GenerationRequest,
    watcher: Watcher | None,
    sayable: Callable[[str], str],
) -> Generation:
    """``Engine.generate``, while ``watcher`` reads along. ``sayable`` makes of a beginning what
    may be said of it; empty: nothing. Raises what the engine raises."""
    if watcher is None:
        return await engine.generate(request)
    watcher.typing()
    so_far = list[str]()
    async with aclosing(engine.stream(request)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk.generation:
                made: Generation = chunk.generation
                return made
            so_far.append(chunk.text)
            if watcher.wants_text():
                _show(watcher, "".join(so_far), sayable)
    raise EngineUnavailable("The engine ended a reply in the middle.")


def settled(text: str) -> str:
    """The beginning of ``text`` that no next word can make something else of."""
    begun = _LAST_WORD.sub("", text).rstrip()
    before = len(begun) - _TAIL
    for _ in range(_TAIL):  # what is open may stand in something that is
        found = _OPEN.search(begun, max(0, before))
        if found is None:
            return begun
        begun = begun[: found.start()].rstrip()
    return ""


def _show(watcher: Watcher, text: str, sayable: Callable[[str], str]) -> None:
    try:
        if shown := sayable(settled(text)):
            watcher.partial(shown)
    except Exception as error:  # what a partial text is worth is less than the answer
        log.warning("partial_text_failed", error=type(error).__name__)
