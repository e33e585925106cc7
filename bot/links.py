"""What a platform would make a link or a call of, in any text.

A string comes in, spans and places go out. The finders find more than any one platform does,
on purpose: what they miss, a platform may turn into a link or a call, so a doubtful case
counts as found. Top-level domains come and go, so a bare domain is told by its form and not
from a list: a word, a dot, and two letters or more. Each finder takes time in proportion to
the length of the text: none begins twice in one run of characters.

Links of three kinds: ``hard_links`` are links whatever stands around them (schemes, addresses);
``domains`` are links by a dot alone; ``dots`` are the dots behind which a space is enough to
make plain words of a domain. Next: ``bot/reply.py`` keeps replies free of them.
"""

import functools
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import regex
from linkify_it.tlds import TLDS

# Full stops of Chinese and Japanese: dots in a domain, and mostly just the end of a sentence.
_IDEOGRAPHIC = "。｡\ufe12"
# With the usual one and its other forms.
_STOPS = ".\u2024\ufe52\uff0e" + _IDEOGRAPHIC
# Signs that end in a full stop when normalised (NFKC): a dot to some, part of a word to others.
_NUMBERED = "\u2488-\u249b\U0001f100\u33c2\u33c7\u33d8"
_DOTS = _STOPS + _NUMBERED
_DOT = f"[{_DOTS}]"
_AT = r"[@＠﹫]"

# What may stand in one label of a domain or in a handle; format characters and marks are in,
# because some linkers look through them.
_L = r"\p{L}\p{N}\p{M}\p{Cf}_\-"
# What linkers take for a part of a word: symbols and emoji as well.
_WORD = rf"[[{_L}\p{{S}}\p{{Co}}\p{{Cn}}]--[<>｜{_DOTS}]]"
_TAIL = r"(?:[:/?#\\]\S*)?"
# Schemes that need no "//"; those with it are found by their form.
_SCHEMES = (
    "mailto|tel|sms|smsto|callto|facetime|skype|xmpp|sips?|magnet|bitcoin|ethereum|lightning|"
    "monero|geo|maps|data|javascript|vbscript|about|blob|file|view-source|intent|market|urn|"
    "matrix|nostr|did|acct|web\\+[a-z]+|ipfs|ipns|tg|whatsapp|signal|news|https?|ftp"
)
# Top-level domains are looked up only behind an ideographic full stop. These are registered,
# reserved or in use, and not in the list of the library.
_MORE_TLDS = (
    "ישראל السعوديه السعودیة السعودیۃ اليمن ايران سوريا پاكستان 澳门 臺灣 kids merck music onion"
)

# No link is without one of these; most replies hold none and need no closer look.
_SUSPECT = regex.compile(rf"[{_DOTS}:]\S|{_AT}|[/\\]{{2}}", regex.V1)
_SLASHES = regex.compile(r"[/\\]{2}")
# Each finds one kind of hard link, beside what none of its kind is without, which is looked for
# first and far quicker; those that overlap are made one.
_HARD = (
    # any scheme with "//", known ones without
    (_SLASHES, regex.compile(r"(?<![a-z0-9+.\-])[a-z0-9+.\-]++:[/\\]{2}\S*+", regex.I)),
    (
        regex.compile(":"),
        regex.compile(rf"(?<![\p{{L}}\p{{N}}])(?:{_SCHEMES}):\S++", regex.I),
    ),
    # addresses: name@host, whether or not the host has a dot
    (
        regex.compile(rf"[^\s@＠﹫()<>\[\]\"']{_AT}"),
        regex.compile(
            rf"(?<![^\s@＠﹫()<>\[\]\"'])[^\s@＠﹫()<>\[\]\"']++{_AT}++[{_L}][{_L}{_DOTS}]*+{_TAIL}",
            regex.V1,
        ),
    ),
    # hosts without a top-level domain behind "//": this machine, numbers
    (
        _SLASHES,
        regex.compile(
            rf"(?<![:/\\])[/\\]{{2,}}+(?:localhost|\p{{Nd}}++{_DOT}\p{{Nd}})\S*+",
            regex.I | regex.V1,
        ),
    ),
)
_RUN = regex.compile(rf"(?<!{_WORD}){_WORD}++(?:[{_NUMBERED}]*{_DOT}{_WORD}++)+", regex.V1)
_AFTER_HOST = regex.compile(_TAIL)
# A dot that joins what stands before it, brackets and quotes aside, to the label behind it.
_JOINT = regex.compile(
    rf"(?:(?<=[^\s\p{{Ps}}\p{{Pi}}\"'/\\{_STOPS}]){_DOT}|[{_NUMBERED}])({_WORD}++)", regex.V1
)
_NUMBERS = regex.compile(rf"\p{{Nd}}++(?:{_DOT}\p{{Nd}}++){{3,}}+", regex.V1)
# A host behind "//": there any label may be the last one, of one letter or a number as well.
_BEHIND_SLASHES = regex.compile(rf"[/\\]{{2}}(?:{_WORD}|{_DOT})++", regex.V1)
_DOT_IN_IT = regex.compile(rf"{_DOT}(?={_WORD})", regex.V1)
_ONE_DOT = regex.compile(_DOT)
_ONE_AT = regex.compile(_AT)
_INVISIBLE = regex.compile(r"[\p{Cf}\p{M}]+")
_ASCII_LABEL = regex.compile(r"xn--[a-z0-9\-]+|[a-z]+(?![a-z0-9])", regex.I)
_HANDLE = regex.compile(
    rf"(?<!{_AT}){_AT}++[\p{{Cf}}\p{{M}}.\-]*+[\p{{L}}\p{{N}}_](?:[{_L}]"
    rf"|{_DOT}(?=[\p{{L}}\p{{N}}_])|{_AT}(?=[\p{{L}}\p{{N}}_]))*+",
    regex.V1,
)
_TRAILING = regex.compile(r"[\p{P}\p{S}--[/\\\-_=&#%+~@$]]", regex.V1)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text, in code points: ``start`` included, ``end`` excluded."""

    start: int
    end: int
    text: str


def is_plain(text: str) -> bool:
    """Whether there is surely neither a link nor a handle; tells most answers at one glance."""
    return not _SUSPECT.search(text)


def links(text: str) -> list[Span]:
    """Whatever a platform may make a link of: URLs of any scheme, bare domains, addresses.

    In order of place, without overlaps; those that overlap are made one.
    """
    return merged([*hard_links(text), *domains(text)], text)


def hard_links(text: str) -> list[Span]:
    """URLs with a scheme, and addresses, where one begins with no regard to the others."""
    if is_plain(text):
        return []
    patterns = [pattern for needed, pattern in _HARD if needed.search(text)]
    found = (Span(*m.span(), m[0]) for pattern in patterns for m in pattern.finditer(text))
    return [_trimmed(span) for span in found]


def domains(text: str) -> list[Span]:
    """Bare domains and IPv4 addresses, each with its path."""
    joints = dots(text)
    found, after = [], 0
    for run in _RUN.finditer(text) if joints else ():
        for start, end in _pieces(run.start(), run[0], joints):
            if start < after or bisect_right(joints, start) == bisect_right(joints, end):
                continue  # in the path of the one before, or without a dot that joins
            tail = _AFTER_HOST.match(text, end) if end == run.end() else None
            after = tail.end() if tail else end
            found.append(_trimmed(Span(start, after, text[start:after])))
    return found


def dots(text: str) -> list[int]:
    """Where a space makes plain words of what may be a domain: right behind its dots."""
    if is_plain(text):
        return []
    joints = {m.start(1) for m in _JOINT.finditer(text) if _joins(text, m.start(1), m[1])}
    for number in _NUMBERS.finditer(text):  # four numbers are an IPv4 address, three are none
        places = [dot.end() for dot in _ONE_DOT.finditer(number[0])]
        joints.update(number.start() + place for place in places[2::3])
    for host in _BEHIND_SLASHES.finditer(text):
        joints.update(host.start() + dot.end() for dot in _DOT_IN_IT.finditer(host[0]))
    return sorted(joints)


def handles(text: str) -> list[Span]:
    """Every ``@handle``, ``@handle@host`` and ``@handle.host``, whichever at sign it has."""
    return [Span(*m.span(), m[0]) for m in _HANDLE.finditer(text)]


def handle_name(handle: str) -> str:
    """A handle for comparing: without its at sign, one kind of at sign inside, case folded."""
    return _ONE_AT.sub("@", handle).removeprefix("@").casefold()


def plain_handle(handle: str) -> str:
    """The first name of a handle, which no platform takes for a handle or a link."""
    name: str = _ONE_AT.split(handle.lstrip("@＠﹫"), 1)[0]
    return _ONE_DOT.split(name, 1)[0] if links(name) else name


def merged(spans: Iterable[Span], text: str) -> list[Span]:
    """Spans of ``text`` in order of place, those that overlap made one."""
    apart: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda s: s.start):
        if apart and span.start < apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], span.end)
        else:
            apart.append((span.start, span.end))
    return [Span(start, end, text[start:end]) for start, end in apart]


@functools.lru_cache(maxsize=128)  # of a question, for its language and for its words
def without_links(text: str) -> str:
    """``text`` with a blank in the place of every link and handle."""
    if is_plain(text):
        return text
    pieces, last = [], 0
    for span in merged([*links(text), *handles(text)], text):
        pieces.append(text[last : span.start])
        last = span.end
    return " ".join([*pieces, text[last:]])


def covered_by(spans: Iterable[Span]) -> Callable[[int, int], bool]:
    """Tells of a stretch whether one of ``spans`` holds the whole of it."""
    starts, reach = [], [0]
    for span in sorted(spans, key=lambda s: s.start):
        starts.append(span.start)
        reach.append(max(reach[-1], span.end))
    return lambda start, end: reach[bisect_right(starts, start)] >= end


def _pieces(start: int, run: str, joints: list[int]) -> Iterator[tuple[int, int]]:
    """A dotted run from dot to dot where a dot of it just ends a sentence."""
    begin = start
    for dot in _ONE_DOT.finditer(run):
        place = bisect_left(joints, start + dot.end())
        joint = place < len(joints) and joints[place] == start + dot.end()
        if dot[0] in _IDEOGRAPHIC and not joint:
            yield begin, start + dot.start()
            begin = start + dot.end()
    yield begin, start + len(run)


def _joins(text: str, at: int, label: str) -> bool:
    """Whether the dot before ``at`` and the label there may make a domain.

    They do not where the label begins with no letter or has only one: no top-level domain does.
    That leaves numbers (3.14, v1.2, 10.30am) and abbreviations (e.g., U.S.A., a.m.) alone.
    """
    before = text[max(at - 4, 0) : at - 1]
    if before.lower() == "www":
        return True
    if not label.isascii():
        label = unicodedata.normalize("NFKC", _INVISIBLE.sub("", label))
    if text[at - 1] in _IDEOGRAPHIC and not _known(before[-1:], label):
        return False
    if text[at - 1] in _IDEOGRAPHIC and text.startswith("://", at + len(label)):
        return False
    return label[:1].isalpha() and len(label) > 1 and _letters(label, 2)


def _letters(label: str, least: int) -> bool:
    found = (char for char in label if char.isalpha())
    return sum(1 for _ in zip(range(least), found, strict=False)) == least


def _known(before: str, label: str) -> bool:
    """Whether a label behind an ideographic full stop is a top-level domain: any word of ASCII
    letters between two of them, else one of the list."""
    ascii_label = _ASCII_LABEL.match(label)
    if not (before.isascii() and before.isalnum()):
        name = ascii_label[0].lower() if ascii_label else label.lower()
        return name in _TLDS or name.startswith("xn--")
    return label[:1].isascii() or label.lower().startswith(_OTHER_TLDS)


def _tlds() -> frozenset[str]:
    """Top-level domains as people write them."""
    names = [name.lower() for name in [*TLDS, *_MORE_TLDS.split()]]
    other = [name.encode().decode("idna") for name in names if name.startswith("xn--")]
    return frozenset([*names, *other])


_TLDS = _tlds()
_OTHER_TLDS = tuple(name for name in _TLDS if not name.isascii())


def _trimmed(span: Span) -> Span:
    """Without the punctuation that ends a sentence, not a link."""
    length = len(span.text)
    while length and _TRAILING.match(span.text, length - 1):
        length -= 1
    return Span(span.start, span.start + length, span.text[:length]) if length else span
