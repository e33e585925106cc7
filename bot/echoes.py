"""The bot's own words, recognised when somebody else says them back.

In: the texts of replies as they are made. Out: whether a text is what the bot just said. A bot
that repeats what it hears calls this one again and again, whatever its hop counter says: its
words are known wherever it says them, those of people only in the conversation in which the bot
said them, for a question that the bot repeated may be anybody's. Kept are digests of the words
alone, so that neither letter case, marks, handles nor part numbers make a difference; of the
newest replies of this process, for a day. What the bot said before it was started is told from
the thread itself (``bot/facts.py``).
"""

import functools
import hashlib
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable

import regex

ENTRIES = 20_000
KEEP_S = 86_400.0
MIN_LETTERS = 20  # below that everybody says it: "Good morning to you!"
MAX_LENGTH = 20_000  # longer than any reply

_HANDLE = regex.compile(r"@[\w.@:-]+")
_NUMBER = regex.compile(r"\s*[(\[]?\d{1,3}\s*/\s*\d{1,3}[)\]]?\s*")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")


class Echoes:
    """The words of the newest ``entries`` replies. ``counter`` is seconds that only go up."""

    def __init__(
        self,
        entries: int = ENTRIES,
        keep_s: float = KEEP_S,
        *,
        counter: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = entries
        self._keep_s = keep_s
        self._counter = counter
        self._said: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def said(self, text: str, conversation: str, to: str = "") -> None:
        """The bot says this there, in answer ``to`` that. Where it only says the same, it is the
        echo: whoever asks that again, or the same input tried again, is not."""
        digest = words_of(text)
        if digest is None or digest == words_of(to):
            return
        self._said[digest] = self._counter(), conversation
        self._said.move_to_end(digest)
        if len(self._said) > self._entries:
            self._said.popitem(last=False)

    def knows(self, text: str, conversation: str | None) -> bool:
        """Whether the bot said this not long ago, there (None: anywhere)."""
        digest = words_of(text) if self._said else None
        found = None if digest is None else self._said.get(digest)
        if found is None:
            return False
        at, there = found
        return self._counter() - at < self._keep_s and conversation in (None, there)


def same_words(one: str, other: str) -> bool:
    """Whether two texts say the same; not where they are so short that everybody says it."""
    digest = words_of(one)
    return digest is not None and digest == words_of(other)


def words_of(text: str) -> bytes | None:
    """The digest of the words of a text; none where it is too short, or longer than a reply."""
    return None if len(text) > MAX_LENGTH else _words_of(text)


@functools.lru_cache(maxsize=256)  # of a question when it comes in and when it is answered
def _words_of(text: str) -> bytes | None:
    plain = _HANDLE.sub(" ", unicodedata.normalize("NFKC", text)).strip()
    words = _WORD.findall(_without_number(plain).casefold())
    if sum(map(len, words)) < MIN_LETTERS:
        return None
    return hashlib.sha256(" ".join(words).encode(errors="surrogatepass")).digest()[:16]


def _without_number(text: str) -> str:
    """Without the number of a part (``1/3``) at either end."""
    if first := _NUMBER.match(text):
        text = text[first.end() :]
    *_, last = (None, *_NUMBER.finditer(text, max(0, len(text) - 16)))
    return text[: last.start()] if last and last.end() == len(text) else text
