"""Markdown to plain text, for platforms that show ``**so**`` as it is written; and what to do
where a platform shows markdown and a link hides in it.

A model's text comes in, the same text without marks goes out: emphasis, code spans, fences,
headings, links (``words (URL)``) and pictures (their words). Lists, quotes, tables, rules and
line breaks stay as they are written: they read well. Guaranteed: a text without such marks comes
out as it came in, and so does every paragraph without them; ``5*3*2``, ``snake_case``,
``__init__``, ``#tag`` and ``2 * 3`` are no marks. Next: ``bot/reply.py``, whose other checks
come after this one, since what is taken out may join two halves of a link.

Where markdown stays, ``undisguised`` writes plainly each paragraph of which a platform would
show a link or a call that is not to be seen in its source: ``evil\\.com``, ``&#64;bob``,
``[words](//evil%2Ecom)``, ``@**bob**``. All of CommonMark is read there, HTML too.

The reading is CommonMark's (markdown-it-py); rules for HTML, entities, references and indented
code are off, since their marks are ordinary text here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import regex
from markdown_it import MarkdownIt
from markdown_it.token import Token

_NESTING = 20  # levels, below which the parser leaves text unread
_DEEP_NESTING = 50  # where it must not
_OFF = ("table", "code", "hr", "reference", "html_block", "lheading", "autolink", "html_inline")
_MD = MarkdownIt("commonmark", {"html": False, "maxNesting": _NESTING}).enable("strikethrough")
_MD.disable([*_OFF, "entity", "text_join"])
_SHOWN = MarkdownIt("commonmark", {"html": True, "maxNesting": _DEEP_NESTING})
_SHOWN.enable("strikethrough")
for _md in (_MD, _SHOWN):
    _md.validateLink = lambda url: True  # type: ignore[method-assign]  # the checks come later
    _md.normalizeLink = lambda url: url  # type: ignore[method-assign]  # compared as written
    _md.normalizeLinkText = lambda link: link  # type: ignore[method-assign]

# No mark is without one of these.
_SUSPECT = regex.compile(r"[*_`~\[\\]|^[ >\-+*0-9.)]*#", regex.M)
# Nor is anything disguised without one of these.
_DISGUISE = regex.compile(r"[*_`~\[\\&<]")
# What it needs for that: marks to take out, and where a blank takes a mark its meaning.
_MARKS = regex.compile(r"[*_`~\\]")
_BLUNT = regex.compile(r"(?<=\])(?=[(:])|(?<=[<&])(?=\S)")
_TAG = regex.compile(r"<(?=[a-z/!?])", regex.I)
# A comment, or a tag with an attribute: what may hide something, or lead somewhere.
_DEEP = regex.compile(r"<(?:[!?]|[^>\s/]+[\s/]+[^>\s/])")
_BREAKS = regex.compile(r"\r\n?")
_PAIRS = {"em", "strong", "s"}
# Letters of scripts that put spaces between words: elsewhere emphasis stands inside of them.
_IN_WORD = regex.compile(r"[[\p{L}\p{N}\p{M}_]--\p{Lo}]", regex.V1)
_NAME = regex.compile(r"\w+")
_HASHES = regex.compile(r"#{1,6}[ \t]*$")
_ESCAPED = frozenset("*`#[]~")


def without_markdown(text: str) -> str:
    """``text`` in plain words."""
    if not _SUSPECT.search(text):
        return text
    text = _BREAKS.sub("\n", text).replace("\0", "")  # as the parser does
    lines = text.split("\n")
    return _edited(lines, _edits(lines, _MD.parse(text)))


Hides = Callable[[str, Sequence[str]], bool]
"""Whether words as they are shown, or the URLs behind them, have what they may not have."""


def undisguised(text: str, hides: Hides) -> str:
    """``text``, each paragraph that hides something in the words that a platform would show;
    all of it without marks where it is nested too deeply to be told.

    Those may be read as markdown in turn: to be repeated until nothing changes.
    """
    if not _DISGUISE.search(text):
        return text
    text = _BREAKS.sub("\n", text).replace("\0", "")
    tokens = _SHOWN.parse(text)
    if _is_deep(tokens):
        return _BLUNT.sub(" ", _MARKS.sub("", text))
    lines = text.split("\n")
    return _edited(lines, _revealed(lines, tokens, hides))


@dataclass(frozen=True, slots=True)
class _Edit:
    """Lines ``start`` (included) to ``end`` (excluded) and what takes their place."""

    start: int
    end: int
    lines: list[str]


def _edited(lines: list[str], edits: Iterator[_Edit]) -> str:
    for edit in sorted(edits, key=lambda edit: -edit.start):
        lines[edit.start : edit.end] = edit.lines
    return "\n".join(lines)


def _edits(lines: Sequence[str], tokens: Sequence[Token]) -> Iterator[_Edit]:
    for token in tokens:
        if token.map is None:
            continue
        start, end = token.map
        if token.type == "fence":
            yield from _fence(lines, token, start, end)
        elif token.type == "inline":
            yield from _inline(lines, token, start, end)


def _fence(lines: Sequence[str], token: Token, start: int, end: int) -> Iterator[_Edit]:
    """Without its first line and, where it was closed, its last."""
    last = lines[end - 1].strip().lstrip("> ")
    closed = end - 1 > start and last.startswith(token.markup) and not last.strip(token.markup[0])
    yield _Edit(start, start + 1, [])
    if closed:
        yield _Edit(end - 1, end, [])


def _inline(lines: Sequence[str], token: Token, start: int, end: int) -> Iterator[_Edit]:
    """A paragraph or heading, written anew only where something in it is a mark."""
    plain = _plain(token.children or [])
    heading = token.content and _HASHES.search(_before(lines[start], _first_line(token)))
    if heading or plain.split() != token.content.split():
        yield _rewritten(lines[start:end], token, plain, start)


def _rewritten(lines: Sequence[str], token: Token, words: str, start: int) -> _Edit:
    """Other words in the place of a paragraph's or heading's; ``lines`` are its own."""
    contents = token.content.split("\n")
    before = [_before(line, content) for line, content in zip(lines, contents, strict=False)]
    before[0] = _HASHES.sub("", before[0])
    written = words.split("\n")
    before += before[-1:] * (len(written) - len(before))  # more lines than there were
    shown = [b + line for b, line in zip(before, written, strict=False)]
    return _Edit(start, start + len(lines), shown)


def _first_line(token: Token) -> str:
    return token.content.partition("\n")[0]


def _is_deep(tokens: Sequence[Token]) -> bool:
    """Whether the parser may have left something unread; each bracket may be a level."""
    most = max((max(token.level, token.content.count("[")) for token in tokens), default=0)
    return most >= _DEEP_NESTING - 2


def _revealed(lines: Sequence[str], tokens: Sequence[Token], hides: Hides) -> Iterator[_Edit]:
    for token in tokens:
        if token.map is None:
            continue
        start, end = token.map
        children = token.children or []
        if token.type == "html_block":
            yield _Edit(start, end, [_TAG.sub("< ", line) for line in lines[start:end]])
        elif token.type == "inline" and hides(words := _words(children), _urls(children)):
            yield _rewritten(lines[start:end], token, words, start)


def _words(children: Sequence[Token]) -> str:
    """What is shown of a paragraph, without any marks."""
    words = []
    for place, child in enumerate(children):
        match child.type:
            case "html_inline":
                continue
            case "text_special":
                words.append(child.content)
            case _:
                words.append(_shown(child, children[:place]))
    return "".join(words)


def _urls(children: Sequence[Token]) -> list[str]:
    """Of links and pictures; a tag of HTML that is more than a mark stands for itself."""
    urls = [str(url) for c in children for name, url in c.attrs.items() if name in ("href", "src")]
    tags = [c.content for c in children if c.type == "html_inline"]
    return urls + [tag for tag in tags if _DEEP.match(tag)]


def _before(line: str, content: str) -> str:
    """What stands before the words of a line: indent, list and quote marks, hashes."""
    content = content.strip()
    place = line.rfind(content)
    return line[:place] if place >= 0 else ""


def _plain(children: Sequence[Token]) -> str:
    """The words of a paragraph; marks inside of words stay as they are."""
    kept = _kept(children)
    words: list[str] = []
    for place, child in enumerate(children):
        words.append(child.markup if place in kept else _shown(child, children[:place]))
    return "".join(words)


def _shown(child: Token, before: Sequence[Token]) -> str:
    match child.type:
        case "softbreak" | "hardbreak":
            return "\n"
        case "text_special":
            return _escaped(child)
        case "link_close":
            return _target(before)
        case "image":
            return _plain(child.children or []) or str(child.attrs.get("src", ""))
        case _:
            return child.content


def _kept(children: Sequence[Token]) -> set[int]:
    """Places of emphasis marks that are none to a person: 5*3*2, 2**3**2, __init__."""
    kept = set[int]()
    opened: list[int] = []
    for place, child in enumerate(children):
        kind, _, side = child.type.rpartition("_")
        if kind not in _PAIRS:
            continue
        if side == "open":
            opened.append(place)
        elif _is_text(children, start := opened.pop(), place):
            kept |= {start, place}
    return kept


def _is_text(children: Sequence[Token], start: int, end: int) -> bool:
    """Whether the marks at these places belong to what people write."""
    inside = [
        bool(_IN_WORD.match(_edge(children[max(start - 4, 0) : start])[-1:])),
        bool(_IN_WORD.match(_edge(children[end + 1 : end + 5])[:1])),
    ]
    match children[end].markup:
        case "*":
            return any(inside)
        case "__":
            return bool(_NAME.fullmatch(_edge(children[start + 1 : end])))
        case _:
            return all(inside)


def _edge(children: Sequence[Token]) -> str:
    breaks = ("softbreak", "hardbreak")
    return "".join("\n" if child.type in breaks else child.content for child in children)


def _escaped(child: Token) -> str:
    """A backslash goes only before what would be a mark without it; a shrug keeps its arm."""
    return child.content if child.content in _ESCAPED else child.markup


def _target(before: Sequence[Token]) -> str:
    """`` (URL)`` behind the words of a link; nothing where the words are the URL."""
    start = max(place for place, child in enumerate(before) if child.type == "link_open")
    url = str(before[start].attrs.get("href", ""))
    words = _plain(before[start + 1 :])
    if not url or words.strip() in (url, url.partition("://")[2], url.removeprefix("mailto:")):
        return ""
    return f" ({url})" if words.strip() else url
