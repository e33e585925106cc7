"""Stop strings over a text that arrives in pieces.

In come pieces of text, out comes what may be shown: never a stop string, never the start of
one that the next piece might complete. Joined, the pieces that come out are the reply's text.
"""


class StopStrings:
    """Watches one reply for its stop strings."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = stop
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """Take a piece and return what may be shown; ``hit`` tells that a stop string came."""
        if self.hit:
            return ""
        text = self._held + piece
        # The one that is complete first wins, so that it does not matter how the text was cut.
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)[1]]
        keep = self._unsure(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _unsure(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins one of the stop strings."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0
