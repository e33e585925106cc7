"""A long answer in several posts: ``… (1/3)``, ``… (2/3)``, ``… (3/3)``.

A text comes in, its parts go out, each short enough to carry its number. Guaranteed: joined,
the parts are the text but for white space, as far as ``max_parts`` reach (the last part then
ends as ``bot.text.cut`` ends); no grapheme cluster, and nothing that must stay whole (allowed
links and handles), is cut; no cut makes plain words a link or a handle where another place to
cut does not. Cuts fall at the end of a sentence, else of a word, else of a grapheme.
Next: ``bot/reply.py``, which looks once more at every part.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import regex

from bot.text import beginning, cut, fits, graphemes, sentences, strip_start

MAX_PARTS = 9  # numbers of one digit, so that all parts have the same room
LEAST_GRAPHEMES = 40  # room of a part below which a long answer is cut instead
LEAST_BYTES = 160
TRIES = 40  # places for a cut that are looked at

_NUMBER = regex.compile(rf"\s?\([1-{MAX_PARTS}]/[1-{MAX_PARTS}]\)$")
_WORD_END = regex.compile(r"(?<=\S)(?=\s)")

Spans = Callable[[str], Iterable[tuple[int, int]]]
"""Stretches of a text, in code points, that must stay whole."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a text may hold."""

    graphemes: int
    bytes: int

    def holds(self, text: str) -> bool:
        return fits(text, self.graphemes, self.bytes)

    def beside_number(self) -> "Room":
        """The room of one of several parts."""
        taken = len(number(1, 1))
        return Room(self.graphemes - taken, self.bytes - taken)

    @property
    def fits_parts(self) -> bool:
        """Whether a part has enough room beside its number to be worth reading."""
        part = self.beside_number()
        return part.graphemes >= LEAST_GRAPHEMES and part.bytes >= LEAST_BYTES


def number(part: int, parts: int) -> str:
    """What stands behind the text of one of several parts."""
    return f" ({part}/{parts})"


def numbered(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Each part with its number; one alone has none."""
    if len(parts) == 1:
        return parts
    return tuple(part + number(n, len(parts)) for n, part in enumerate(parts, start=1))


def without_number(text: str) -> str:
    """A part without its number, as the bot reads its own earlier words."""
    return _NUMBER.sub("", text)


def split(
    text: str,
    room: Room,
    max_parts: int,
    *,
    lang: str | None = None,
    whole: Spans = lambda text: (),
    stable: Callable[[str], bool] = lambda text: True,
) -> tuple[str, ...]:
    """The parts, without numbers, each within ``room``; what is left over is cut.

    ``whole`` names what must not be cut (nothing longer than ``room``); ``stable`` says of a
    text whether it may stand alone.
    """
    parts: list[str] = []
    rest = text
    while rest and len(parts) < max_parts - 1 and not room.holds(rest):
        end = _end(rest, room, lang, whole, stable)
        if not end:
            break
        parts.append(rest[:end].rstrip())
        rest = strip_start(rest[end:])
    last = cut(rest, room.graphemes, room.bytes, lang)
    return (*parts, *([last] if last or not parts else []))


def _end(
    text: str, room: Room, lang: str | None, whole: Spans, stable: Callable[[str], bool]
) -> int:
    """Where the first part of ``text`` ends; 0 where its first grapheme is too large."""
    places = list(_places(text, room, lang, whole))
    for place in places[:TRIES]:
        if stable(text[:place].rstrip()) and stable(strip_start(text[place:])):
            return place
    return places[0] if places else 0


def _places(text: str, room: Room, lang: str | None, whole: Spans) -> Iterator[int]:
    """Where a part may end, best first: a part that ends well and is at least a third full,
    else one that is full, else whatever there is."""
    begun = beginning(text, room.graphemes, room.bytes)
    cuttable = _cuttable(text, begun, whole)
    kinds = [
        [end for end in ends if end in cuttable]
        for ends in (_sentence_ends(text, len(begun), lang), _word_ends(text, len(begun)))
    ]
    full = [[end for end in ends if 3 * end >= len(begun)] for ends in kinds]
    rest = sorted(cuttable)
    seen = set[int]()
    for end in chain(*(reversed(ends) for ends in (*full, rest))):
        if end not in seen:
            seen.add(end)
            yield end


def _cuttable(text: str, begun: str, whole: Spans) -> set[int]:
    """Ends of graphemes of ``begun`` that are in nothing that must stay whole."""
    ends, place = set[int](), 0
    for grapheme in graphemes(begun):
        place += len(grapheme)
        ends.add(place)
    for start, end in whole(text):
        ends.difference_update(range(start + 1, min(end, place + 1)))
    return ends


def _sentence_ends(text: str, length: int, lang: str | None) -> list[int]:
    """Ends of sentences up to ``length``, without the white space behind them."""
    ends, place = [], 0
    for sentence in sentences(text, lang):
        end = place + len(sentence.rstrip())
        if end > length:
            break
        place += len(sentence)
        ends.append(end)
    return ends


def _word_ends(text: str, length: int) -> list[int]:
    return [found.start() for found in _WORD_END.finditer(text, 0, length + 1)]
