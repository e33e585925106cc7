"""Text as people see it: graphemes, sentences, and what a platform would make a link of.

Plain strings come in, plain strings and spans go out; no step here knows of events or
models. ``links`` and ``handles`` find more than any one platform does, on purpose: what they
miss, a platform may turn into a link or a call, so a doubtful case counts as found.
Next: ``bot/reply.py`` checks replies with it, ``bot/prompt.py`` makes labels with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import regex
import sentencex
from linkify_it import LinkifyIt
from linkify_it.tlds import TLDS

ELLIPSIS = "…"

# Flags such as Wales are a black flag and tag characters; elsewhere tags hide text.
_FLAG = r"\U0001F3F4[\U000E0020-\U000E007E]{1,16}\U000E007F"
# Controls but for tab and newline, lone surrogates, bidi embeddings, overrides and isolates,
# invisible filler, broken characters. Joiners (ZWJ, ZWNJ) and direction marks stay.
_UNSAFE = (
    r"[\p{Cc}--[\t\n]]|\p{Cs}|[\u202A-\u202E\u2066-\u206F\u00AD\uFEFF\uFFF9-\uFFFD"
    r"\u2060-\u2065\u180E\u115F\u1160\u3164\uFFA0\U000E0000-\U000E0FFF--\U000E0100-\U000E01EF]"
)
_CLEAN = regex.compile(rf"({_FLAG})|{_UNSAFE}", regex.V1)
_BREAKS = regex.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_BLANK = regex.compile(r"[^\S\n]+|\u200B+")
_LINE_ENDS = regex.compile(r" *\n *")
_MANY_LINES = regex.compile(r"\n{3,}")
_GRAPHEME = regex.compile(r"\X")
_WORD_END = regex.compile(r"(?<=\S)(?=\s)")

# What may stand in one label of a domain or in a handle; format characters and marks are in,
# because some linkers look through them.
_L = r"\p{L}\p{N}\p{M}\p{Cf}_\-"
_DOT = r"[.．｡。]"
_AT = r"[@＠﹫]"
# Scripts written without spaces: there a domain can begin in the middle of a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TAIL = r"(?:[:/?#\\][^\s]*)?"
# Schemes that need no "//"; those with it are found by their form.
_SCHEMES = (
    "mailto|tel|sms|smsto|callto|facetime|skype|xmpp|sips?|magnet|bitcoin|ethereum|lightning|"
    "monero|geo|maps|data|javascript|vbscript|about|blob|file|view-source|intent|market|urn|"
    "matrix|nostr|did|acct|web\\+[a-z]+|ipfs|ipns|tg|whatsapp|signal|news|https?|ftp"
)


def _tlds() -> tuple[list[str], list[str]]:
    """Top-level domains as people write them: ASCII ones, and those of other scripts."""
    names = [name.lower() for name in TLDS]
    other = [name.encode().decode("idna") for name in names if name.startswith("xn--")]
    return names, other


_ASCII_TLDS, _OTHER_TLDS = _tlds()

_ASCII_SET = frozenset(_ASCII_TLDS)
_OTHER_SET = frozenset(_OTHER_TLDS)

# No link is without one of these; most replies hold none and need no closer look.
_SUSPECT = regex.compile(rf"[.．｡。:]\S|{_AT}|[/\\]{{2}}")
# Each finds one kind of link; those that overlap are made one.
_LINKS = (
    # any scheme with "//", known ones without
    regex.compile(r"(?<![a-z0-9+.\-])[a-z0-9+.\-]+:[/\\]{2}\S*", regex.I),
    regex.compile(rf"(?<![\p{{L}}\p{{N}}])(?:{_SCHEMES}):\S+", regex.I),
    # addresses: name@host, whether or not the host has a dot
    regex.compile(
        rf"(?<![^\s@＠﹫()<>\[\]\"'])[^\s@＠﹫()<>\[\]\"']+{_AT}+[{_L}][{_L}.．｡。]*{_TAIL}"
    ),
    regex.compile(rf"(?<![a-z0-9])www{_DOT}[{_L}]\S*", regex.I),
    # IPv4
    regex.compile(
        rf"(?<![\p{{N}}.])\p{{Nd}}{{1,3}}(?:{_DOT}\p{{Nd}}{{1,3}}){{3}}(?!\p{{N}}){_TAIL}"
    ),
)
_DOTTED = regex.compile(rf"(?<![{_L}])[{_L}]+(?:{_DOT}[{_L}]+)+")
_ONE_DOT = regex.compile(_DOT)
_AFTER_HOST = regex.compile(_TAIL)
_ASCII_LABEL = regex.compile(r"xn--[a-z0-9\-]+|[a-z]+(?![a-z0-9])", regex.I)
_INVISIBLE = regex.compile(r"[\p{Cf}\p{M}]+")
_ASCII_END = regex.compile(rf"(?<=[{_UNSPACED}])[a-z0-9_.\-]*[a-z0-9_\-]\.[a-z0-9_.\-]*$", regex.I)
_HANDLE = regex.compile(
    rf"(?<!{_AT}){_AT}+[\p{{Cf}}\p{{M}}.\-]*[\p{{L}}\p{{N}}_](?:[{_L}]|{_DOT}(?=[\p{{L}}\p{{N}}_])"
    rf"|{_AT}(?=[\p{{L}}\p{{N}}_]))*"
)
_TRAILING = regex.compile(r"[\p{P}\p{S}--[/\\\-_=&#%+~@$]]+$", regex.V1)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text, in code points: ``start`` included, ``end`` excluded."""

    start: int
    end: int
    text: str


def safe(text: str) -> str:
    """Without control characters, bidi overrides and hidden text; one kind of line break.

    Emoji families (ZWJ), flags, and the marks that right-to-left scripts need stay.
    """
    cleaned: str = _CLEAN.sub(lambda m: m[1] or "", _BREAKS.sub("\n", text))
    return cleaned


def clean(text: str) -> str:
    """``safe``, with white space made plain: single spaces, at most one empty line."""
    text = safe(text)
    text = _LINE_ENDS.sub("\n", _BLANK.sub(" ", text))
    return _MANY_LINES.sub("\n\n", text).strip()


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
    if _fits(text, max_graphemes, max_bytes):
        return text
    whole = _whole(sentences(text, lang), max_graphemes, max_bytes)
    if whole:
        return whole
    mark = ELLIPSIS if max_graphemes > 1 and max_bytes > len(ELLIPSIS.encode()) else ""
    room = max_graphemes - len(mark), max_bytes - len(mark.encode())
    beginning = _beginning(text, *room)
    words = [m.start() for m in _WORD_END.finditer(text, 0, len(beginning) + 1)]
    short = beginning[: words[-1]] if words else beginning
    return (short.rstrip() + mark) if short.strip() else ""


def finish(text: str, lang: str | None = None) -> str:
    """A text that broke off, without its unfinished last sentence; else with an ellipsis."""
    *whole, _last = sentences(text, lang) or [""]
    done = "".join(whole).rstrip()
    return done or (text.rstrip() + ELLIPSIS if text.strip() else "")


def links(text: str) -> list[Span]:
    """Whatever a platform may make a link of: URLs of any scheme, bare domains, addresses.

    In order of place, without overlaps; those that overlap are made one.
    """
    if not _SUSPECT.search(text):
        return []
    found = [Span(*m.span(), m[0]) for pattern in _LINKS for m in pattern.finditer(text)]
    spans = [*map(_trimmed, [*found, *_hosts(text)]), *linkified(text)]
    return merged(spans, text)


def handles(text: str) -> list[Span]:
    """Every ``@handle``, ``@handle@host`` and ``@handle.host``, whichever at sign it has."""
    return [Span(*m.span(), m[0]) for m in _HANDLE.finditer(text)]


def handle_name(handle: str) -> str:
    """A handle for comparing: without its at sign, one kind of at sign inside, case folded."""
    return regex.sub(_AT, "@", handle).removeprefix("@").casefold()


def plain_handle(handle: str) -> str:
    """The first name of a handle, which no platform takes for a handle or a link."""
    name: str = regex.split(_AT, regex.sub(rf"^{_AT}+", "", handle))[0]
    return regex.split(_DOT, name)[0] if links(name) else name


def linkified(text: str) -> list[Span]:
    """What linkify-it finds, knowing all top-level domains."""
    return [Span(m.index, m.last_index, m.raw) for m in _linker().match(text) or []]


def merged(spans: Iterable[Span], text: str) -> list[Span]:
    """Spans of ``text`` in order of place, those that overlap made one."""
    apart: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda s: s.start):
        if apart and span.start < apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], span.end)
        else:
            apart.append((span.start, span.end))
    return [Span(start, end, text[start:end]) for start, end in apart]


@cache
def _linker() -> Any:
    return LinkifyIt(options={"fuzzy_ip": True}).tlds([*_ASCII_TLDS, *_OTHER_TLDS])


def _hosts(text: str) -> list[Span]:
    """Bare domains: labels with dots between, one of the later ones a top-level domain."""
    found = []
    for match in _DOTTED.finditer(text):
        dots = [*_ONE_DOT.finditer(match[0])]
        ends = [_tld_end(match[0], dot.end()) for dot in dots]
        if end := max(ends):
            begin = _begin(match[0][:end])
            after = _AFTER_HOST.match(text, match.start() + end)
            end = after.end() if after else match.start() + end
            found.append(Span(match.start() + begin, end, text[match.start() + begin : end]))
    return found


def _tld_end(run: str, begin: int) -> int:
    """Where the top-level domain ends that begins here in a dotted run; 0: there is none."""
    label = _ONE_DOT.split(run[begin:], 1)[0]
    hidden = _INVISIBLE.match(label)
    skip = hidden.end() if hidden else 0
    ascii_label = _ASCII_LABEL.match(label, skip)
    if ascii_label and (
        ascii_label[0].lower() in _ASCII_SET or ascii_label[0].lower().startswith("xn--")
    ):
        return begin + ascii_label.end()
    return begin + len(label) if _INVISIBLE.sub("", label).lower() in _OTHER_SET else 0


def _begin(host: str) -> int:
    """Where a host begins: after a script that puts no spaces between words, if it can."""
    match = _ASCII_END.search(host)
    return match.start() if match else 0


def _trimmed(span: Span) -> Span:
    """Without the punctuation that ends a sentence, not a link."""
    text = _TRAILING.sub("", span.text) or span.text
    return Span(span.start, span.start + len(text), text)


def _fits(text: str, max_graphemes: int, max_bytes: int) -> bool:
    count, length = size(text)
    return count <= max_graphemes and length <= max_bytes


def _whole(pieces: list[str], max_graphemes: int, max_bytes: int) -> str:
    """As many whole pieces as fit; the white space behind the last one does not count."""
    text = ""
    for piece in pieces:
        if not _fits((text + piece).rstrip(), max_graphemes, max_bytes):
            break
        text += piece
    return text.rstrip()


def _beginning(text: str, max_graphemes: int, max_bytes: int) -> str:
    """As many whole graphemes as fit."""
    used = end = 0
    for count, match in enumerate(_GRAPHEME.finditer(text)):
        used += len(match[0].encode())
        if count >= max_graphemes or used > max_bytes:
            break
        end = match.end()
    return text[:end]
