"""Text as people see it: what is safe to show, graphemes, sentences, cutting.

Plain strings come in, plain strings go out; no step here knows of events or models. Every
step takes time in proportion to the length of the text.
Next: ``bot/reply.py`` checks replies with it, ``bot/prompt.py`` makes labels with it.
"""

import regex
import sentencex

ELLIPSIS = "…"
MAX_INDENT = 16  # columns

# Flags such as Wales are a black flag and tag characters; elsewhere tags hide text.
_FLAG = r"\U0001F3F4[\U000E0020-\U000E007E]{1,16}\U000E007F"
# Controls but for tab and newline, lone surrogates, bidi embeddings, overrides and isolates,
# invisible filler, broken characters. Joiners (ZWJ, ZWNJ) and direction marks stay.
_UNSAFE = (
    r"[\p{Cc}--[\t\n]]|\p{Cs}|[\u202A-\u202E\u2066-\u206F\u00AD\uFEFF\uFFF9-\uFFFD"
    r"\u2060-\u2065\u180E\u115F\u1160\u3164\uFFA0\U000E0000-\U000E0FFF--\U000E0100-\U000E01EF]"
)
# Those of them that Python calls printable.
_ODD = regex.compile(r"[\u115F\u1160\u3164\uFFA0\uFFFC\uFFFD]")
_CLEAN = regex.compile(rf"({_FLAG})|{_UNSAFE}", regex.V1)
_BREAKS = regex.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_BLANK = regex.compile(r"(?:[^\S\n]|\u200B)+")
_INDENT = regex.compile(r"[^\S\n]{2,}")
_MANY_LINES = regex.compile(r"\n{3,}")
_GRAPHEME = regex.compile(r"\X")
_WORD_END = regex.compile(r"(?<=\S)(?=\s)")


def safe(text: str) -> str:
    """Without control characters, bidi overrides and hidden text; one kind of line break.

    Emoji families (ZWJ), flags, and the marks that right-to-left scripts need stay.
    """
    cleaned: str = _CLEAN.sub(lambda m: m[1] or "", _BREAKS.sub("\n", text))
    return cleaned


def clean(text: str) -> str:
    """``safe``, with white space made plain: single spaces, at most one empty line.

    Lines that are indented stay so: code and lists are hard to read without.
    """
    if text.isprintable() and "  " not in text and not _ODD.search(text):
        return text.strip()  # nearly every answer: one line without anything to clean
    lines = "\n".join(map(_clean_line, safe(text).split("\n")))
    return _MANY_LINES.sub("\n\n", lines).strip()


def one_line(text: str, max_graphemes: int) -> str:
    """``clean``, on one line, at most ``max_graphemes`` long: a name fit for a label."""
    # A grapheme may hold any number of marks: the length in code points is bounded as well.
    plain = " ".join(clean(text[: 32 * max_graphemes]).split())
    return "".join(graphemes(plain)[:max_graphemes])[: 4 * max_graphemes]


def graphemes(text: str) -> list[str]:
    """What people see as single characters (UAX #29 extended grapheme clusters)."""
    return _GRAPHEME.findall(text)


def size(text: str) -> tuple[int, int]:
    """Length in graphemes and in UTF-8 bytes."""
    return len(graphemes(text)), len(text.encode())


def sentences(text: str, lang: str | None = None) -> list[str]:
    """The sentences of a text, each with the white space behind it; joined they are the text."""
    return list(sentencex.segment((lang or "en").split("-")[0].lower(), text))


def cut(text: str, max_graphemes: int, max_bytes: int, lang: str | None = None) -> str:
    """The longest beginning that fits: whole sentences, else whole words, else graphemes.

    A text that is cut inside a sentence ends with an ellipsis, where there is room for it.
    """
    if fits(text, max_graphemes, max_bytes):
        return text
    whole = _whole(sentences(text, lang), max_graphemes, max_bytes)
    if whole:
        return whole
    mark = ELLIPSIS if max_graphemes > 1 and max_bytes > len(ELLIPSIS.encode()) else ""
    room = max_graphemes - len(mark), max_bytes - len(mark.encode())
    begun = beginning(text, *room)
    words = [m.start() for m in _WORD_END.finditer(text, 0, len(begun) + 1)]
    short = begun[: words[-1]] if words else begun
    return (short.rstrip() + mark) if short.strip() else ""


def finish(text: str, lang: str | None = None) -> str:
    """A text that broke off, without its unfinished last sentence; else with an ellipsis."""
    *whole, _last = sentences(text, lang) or [""]
    done = "".join(whole).rstrip()
    return done or (text.rstrip() + ELLIPSIS if text.strip() else "")


def beginning(text: str, max_graphemes: int, max_bytes: int) -> str:
    """As many whole graphemes as fit, however they end."""
    if _surely_fits(text, max_graphemes, max_bytes):
        return text
    used = end = 0
    for count, match in enumerate(_GRAPHEME.finditer(text)):
        used += len(match[0].encode())
        if count >= max_graphemes or used > max_bytes:
            break
        end = match.end()
    return text[:end]


def strip_start(text: str) -> str:
    """``text`` without white space at its start; a blank that carries marks is no white space."""
    end = 0
    for match in _GRAPHEME.finditer(text):
        if not match[0].isspace():
            break
        end = match.end()
    return text[end:]


def fits(text: str, max_graphemes: int, max_bytes: int) -> bool:
    """Whether a text is no longer than that."""
    if _surely_fits(text, max_graphemes, max_bytes):
        return True
    count, length = size(text)
    return count <= max_graphemes and length <= max_bytes


def _surely_fits(text: str, max_graphemes: int, max_bytes: int) -> bool:
    """Without looking at it: no more graphemes than code points, of at most 4 bytes each."""
    return len(text) <= max_graphemes and 4 * len(text) <= max_bytes


def _clean_line(line: str) -> str:
    words = _BLANK.sub(" ", line).strip()
    indent = _INDENT.match(line) if words else None
    columns = min(len(indent[0].expandtabs(4)), MAX_INDENT) if indent else 0
    return " " * columns + words


def _whole(pieces: list[str], max_graphemes: int, max_bytes: int) -> str:
    """As many whole pieces as fit; the white space behind the last one does not count."""
    kept, count, length = [], 0, 0
    for piece in pieces:
        more, longer = size(piece.rstrip())
        if count + more > max_graphemes or length + longer > max_bytes:
            break
        kept.append(piece)
        # counted piece by piece: at most too many, where a piece begins with a mark
        count, length = count + size(piece)[0], length + len(piece.encode())
    return "".join(kept).rstrip()
