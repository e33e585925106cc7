"""From the model's words to a reply that may be published.

In: the model's text, the asking post, the included context. Out: the text as it may be said,
in one or more parts, with the verdict of every check, and ``ReplyCreated`` for each part.
Guaranteed of each part: no control characters; no ``@handle``, URL or bare domain outside the
allow-set, since platforms make links of plain text; within the platform's length in graphemes
and bytes; visibility never wider than the narrowest post it is built on; work in proportion
to that length, whatever an asker faceted and the model wrote. Next: ``bot/audit.py`` and the
topics.

A link becomes ``[link]``, a handle its bare name. A bare domain gets a space behind its dots,
``evil. com``: no platform sees a link there, and prose such as "end.Next" is only tidied.

The allow-set: the asker, and the accounts and URLs faceted in what the asker wrote.
"""

import functools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice

import regex

from bot.context import ContextPost
from bot.links import (
    Span,
    covered_by,
    dots,
    handle_name,
    handles,
    hard_links,
    is_plain,
    links,
    merged,
    plain_handle,
)
from bot.markdown import undisguised, without_markdown
from bot.split import Room, numbered, split
from bot.text import beginning, clean, cut, finish
from bot.values import BotIdentity, Limits, is_open, narrowest
from model.engine import Generation
from schemas.audit import RuleVerdict
from schemas.feed import Facet, FacetType, Message, Post, Visibility
from schemas.ids import reply_id
from schemas.replies import AUTOMATED, ReplyCreated

LINK = "[link]"
CHANGED = "changed"
PASS = "pass"  # noqa: S105 - a verdict
SKIP = "skip"
MAX_ROUNDS = 10  # of neutralising and cutting, until nothing changes any more
MAX_LINKS = 20  # link facets of an asker that are looked at
MAX_URL = 512  # characters of the longest URL that is ever allowed
MAX_FACETS = 100  # mention facets of an asker that are looked at
MAX_HANDLE = 320  # characters of the longest handle that is ever allowed
MAX_LANGS = 3
# Of a generation, as multiples of what a reply may hold: room for what the checks take out.
SPARE_GRAPHEMES = 4
SPARE_BYTES = 2

_AT = regex.compile(r"^[@＠﹫]")
_LABEL = r"[\p{L}\p{N}](?:[\p{L}\p{N}\p{M}\-]{0,61}[\p{L}\p{N}\p{M}])?"
_PORT = r"(?::(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}))?"
_SAFE = r"[\p{L}\p{N}\p{M}_~%&=+:@/#*$\-]"
# URLs that every platform takes as a whole: a full domain, no user, in the path no brackets
# or quotes, and no punctuation that may end a sentence but right before other characters.
_WEB = regex.compile(
    rf"https?://(?:{_LABEL}\.)+\p{{L}}{_LABEL}{_PORT}(?:/|[/?#](?:{_SAFE}|[.,;!?](?={_SAFE}))+)?",
    regex.I,
)
_SCHEME_AND_HOST = regex.compile(r"^(?:https?://)?[^/?#]*", regex.I)
_LANG = regex.compile(r"[A-Za-z0-9-]{1,35}")
_PLACEHOLDER = regex.compile(regex.escape(LINK))
_TO_NOWHERE = regex.compile(rf"\]\((?=<?{regex.escape(LINK)})")
_SAYS_SOMETHING = regex.compile(r"[\p{L}\p{N}\p{S}]")
_INSIDE = regex.compile(r"[\p{L}\p{N}\p{M}\p{Cf}_.\-@＠﹫/]")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a reply may link to: handle (see ``handle_name``) to account id, URL to URL.

    ``urls`` maps each form in which an URL may be written to the URL that was faceted.
    """

    accounts: Mapping[str, str]
    urls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """One part of a reply, with its number where there are several."""

    text: str
    facets: tuple[Facet, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What may be said, in parts; none where nothing is left of it.

    ``text`` is the whole without numbers: for comparing, not for publishing.
    """

    text: str
    parts: tuple[Said, ...]
    verdicts: tuple[RuleVerdict, ...]


def allow_set(post: Post | Message, bot_id: str) -> Allowed:
    """The allow-set of a reply to ``post``. The bot itself is not in it: it calls nobody there.

    A handle that two accounts claim is out, unless the asker is one of them. Only the first
    ``MAX_FACETS`` mentions and the first ``MAX_LINKS`` links count.
    """
    accounts = _claimed(post.text.encode(), _first(post, FacetType.MENTION, MAX_FACETS))
    asker = handle_name(post.author.handle)
    if _is_handle(f"@{asker}"):
        accounts[asker] = post.author.id
    urls = [f.url for f in _first(post, FacetType.LINK, MAX_LINKS) if f.url is not None]
    return Allowed(
        {name: owner for name, owner in accounts.items() if owner != bot_id},
        {form: url for url in urls for form in _forms(url)},
    )


def check(generation: Generation, allowed: Allowed, limits: Limits, lang: str | None) -> Checked:
    """The checks in their order, each with its verdict; the last one finds nothing to change."""
    text = generation.text[: 2 * SPARE_BYTES * limits.max_bytes * limits.max_parts]
    verdicts = []
    for name, step in _steps(generation, allowed, limits, lang):
        after = step(text)
        verdicts.append(_verdict(name, same=after == text))
        text = after
    parts = _in_parts(text, allowed, limits, lang)
    verdicts.append(_length_verdict(text, parts))
    settle = partial(
        _settled, neutral=_neutral(limits), allowed=allowed, room=parts.room, lang=lang
    )
    settled = tuple(filter(None, map(settle, parts.texts)))
    verdicts.append(_verdict("settled", same=settled == parts.texts))
    says = any(_SAYS_SOMETHING.search(part.replace(LINK, "")) for part in settled)
    verdicts.append(RuleVerdict(name="empty", verdict=PASS if says else SKIP))
    settled = settled if says else ()
    said = (Said(part, tuple(_facets(part, allowed))) for part in numbered(settled))
    return Checked(" ".join(settled), tuple(said), tuple(verdicts))


def neutralise(text: str, allowed: Allowed) -> str:
    """``text`` with every link and handle outside the allow-set made plain words.

    What is put in their place may touch what stands around it: ``check`` repeats this.
    """
    if is_plain(text):
        return text
    calls, urls = _good(text, allowed)
    in_calls, in_urls = covered_by(calls), covered_by(urls)
    bad_links = [s for s in hard_links(text) if not (in_calls(*_ends(s)) or in_urls(*_ends(s)))]
    good = set(calls)
    bad_calls = {s for s in handles(text) if s not in good and not in_urls(*_ends(s))}
    bad = merged([*bad_links, *bad_calls], text)
    edits = {_ends(s): plain_handle(s.text) if s in bad_calls else LINK for s in bad}
    gone = covered_by(bad)
    for place in dots(text):
        if not any(holds(place - 1, place + 1) for holds in (in_calls, in_urls, gone)):
            edits[place, place] = " "
    return _edited(text, edits)


def neutralise_shown(text: str, allowed: Allowed) -> str:
    """``neutralise`` for a platform that shows markdown, in which links may hide."""

    def hides(words: str, urls: Sequence[str]) -> bool:
        foreign = any(_form(url) not in allowed.urls for url in urls)
        return foreign or neutralise(words, allowed) != words

    return undisguised(_TO_NOWHERE.sub("] (", neutralise(text, allowed)), hides)


def first_reply_id(post: Post | Message, bot: BotIdentity) -> str:
    """The id of the (first part of the) reply to ``post``."""
    return reply_id(bot.id, post.uri, post.revision, 1)


def seed_of(reply: str, attempt: int = 1) -> int:
    """The sampling seed of a try (from 1) at a reply: 53 bits made of its id, exact in every
    JSON reader."""
    number = uuid.UUID(reply) if attempt == 1 else uuid.uuid5(uuid.UUID(reply), str(attempt))
    return number.int % 2**53


def langs_of(post: Post | Message) -> tuple[str, ...]:
    """The languages that the platform told, so far as they are sensible."""
    return tuple(lang for lang in post.langs if _LANG.fullmatch(lang))[:MAX_LANGS]


def visibility_for(posts: Iterable[ContextPost]) -> Visibility:
    """Of a reply built on ``posts``, the asking one among them: that of the narrowest.

    What is narrower than unlisted is direct: the asker's followers are not the bot's.
    """
    narrow = narrowest(*(p.visibility or Visibility.DIRECT for p in posts if p.included))
    return narrow if is_open(narrow) else Visibility.DIRECT


def make(
    post: Post | Message,
    context: Sequence[ContextPost],
    checked: Checked,
    bot: BotIdentity,
    decision_id: str,
    now: datetime,
    *,
    langs: tuple[str, ...] | None = None,
    prompt_hash: str | None = None,
) -> tuple[ReplyCreated, ...]:
    """The reply to ``post``, one or more parts; ``langs``: its languages where they are known,
    else those that the platform told of the asker."""
    return tuple(
        ReplyCreated(
            reply_id=reply_id(bot.id, post.uri, post.revision, number),
            conversation_id=post.conversation_id,
            in_reply_to=post.ref,
            root=post.root or post.ref,
            author=bot.account,
            text=said.text,
            facets=said.facets,
            langs=langs_of(post) if langs is None else langs,
            visibility=visibility_for(context),
            part=number,
            parts=len(checked.parts),
            labels=(AUTOMATED,),
            built_on=tuple(item.ref for item in context if item.included),
            decision_id=decision_id,
            hops=post.hops + 1,
            prompt_hash=prompt_hash,
            created_at=now,
        )
        for number, said in enumerate(checked.parts, start=1)
    )


def _first(post: Post | Message, kind: FacetType, count: int) -> Iterator[Facet]:
    """The first ``count`` facets of a kind."""
    return islice((facet for facet in post.facets if facet.type == kind), count)


def _claimed(text: bytes, facets: Iterable[Facet]) -> dict[str, str]:
    """Handle to account id, as mention facets over ``text`` have it; only where they agree."""
    claims: dict[str, set[str]] = {}
    for facet in facets:
        length = facet.byte_end - facet.byte_start
        if facet.account_id is None or length > 4 * MAX_HANDLE:
            continue
        shown = text[facet.byte_start : facet.byte_end].decode()
        if _is_handle(shown):
            claims.setdefault(handle_name(shown), set()).add(facet.account_id)
    return {name: ids.pop() for name, ids in claims.items() if len(ids) == 1}


def _steps(
    generation: Generation, allowed: Allowed, limits: Limits, lang: str | None
) -> tuple[tuple[str, Callable[[str], str]], ...]:
    neutral = _neutral(limits)

    def markdown(text: str) -> str:
        return text if limits.markdown else clean(without_markdown(text))

    def unfinished(text: str) -> str:
        spare = limits.max_parts * SPARE_GRAPHEMES, limits.max_parts * SPARE_BYTES
        kept = beginning(text, spare[0] * limits.max_graphemes, spare[1] * limits.max_bytes)
        broken = generation.finish_reason == "length" or kept != text
        return finish(kept, lang) if broken else text

    def plain(text: str) -> str:
        return _until_same(text, lambda text: clean(neutral(text, allowed)))

    return (
        ("characters", clean),
        ("unfinished", unfinished),
        ("markdown", markdown),
        ("links-and-handles", plain),
    )


def _neutral(limits: Limits) -> Callable[[str, Allowed], str]:
    return neutralise_shown if limits.markdown else neutralise


@dataclass(frozen=True, slots=True)
class _Parts:
    texts: tuple[str, ...]
    room: Room


def _in_parts(text: str, allowed: Allowed, limits: Limits, lang: str | None) -> _Parts:
    """``text`` whole, else in numbered parts, else cut where parts would be too short."""
    room = Room(limits.max_graphemes, limits.max_bytes)
    if room.holds(text) or limits.max_parts == 1 or not room.fits_parts:
        return _Parts((cut(text, room.graphemes, room.bytes, lang),), room)
    part = room.beside_number()
    short, neutral = _that_fit(allowed, part), _neutral(limits)
    texts = split(
        _until_same(text, lambda text: clean(neutral(text, short))),
        part,
        limits.max_parts,
        lang=lang,
        whole=lambda text: _whole(text, short),
        stable=lambda text: neutral(text, short) == text,
    )
    return _Parts(texts, part) if len(texts) > 1 else _Parts(texts, room)


def _that_fit(allowed: Allowed, room: Room) -> Allowed:
    """The allow-set without what is longer than a part."""
    return Allowed(
        {name: owner for name, owner in allowed.accounts.items() if room.holds(f"@{name}")},
        {form: url for form, url in allowed.urls.items() if room.holds(form)},
    )


def _whole(text: str, allowed: Allowed) -> Iterator[tuple[int, int]]:
    """What no cut may go through."""
    for spans in _good(text, allowed):
        yield from map(_ends, spans)
    yield from (found.span() for found in _PLACEHOLDER.finditer(text))


def _length_verdict(text: str, parts: _Parts) -> RuleVerdict:
    complete = "".join("".join(parts.texts).split()) == "".join(text.split())
    count = len(parts.texts)
    detail = f"{count} parts" if count > 1 else None
    return RuleVerdict(name="length", verdict=PASS if complete else CHANGED, detail=detail)


@functools.cache
def _verdict(name: str, *, same: bool) -> RuleVerdict:
    return RuleVerdict(name=name, verdict=PASS if same else CHANGED)


def _settled(
    text: str,
    *,
    neutral: Callable[[str, Allowed], str],
    allowed: Allowed,
    room: Room,
    lang: str | None,
) -> str:
    """A part that stands by itself: short enough, and nothing in it became a link by a cut."""

    def once(text: str) -> str:
        return clean(cut(neutral(text, allowed), room.graphemes, room.bytes, lang))

    return _until_same(text, once)


def _until_same(text: str, step: Callable[[str], str]) -> str:
    """``step`` again and again until nothing changes; empty where that does not end."""
    for _ in range(MAX_ROUNDS):
        before, text = text, step(text)
        if text == before:
            return text
    return ""


def _good(text: str, allowed: Allowed) -> tuple[list[Span], list[Span]]:
    """Handles and links of ``text`` that the allow-set holds, exactly as they stand there."""
    if is_plain(text):
        return [], []
    calls = [
        span
        for span in handles(text)
        if handle_name(span.text) in allowed.accounts
        and not _INSIDE.match(text[max(span.start - 1, 0) : span.start])
    ]
    urls = [span for span in links(text) if _form(span.text) in allowed.urls]
    return calls, urls


def _facets(text: str, allowed: Allowed) -> Iterator[Facet]:
    calls, urls = _good(text, allowed)
    links_here, within = set(urls), covered_by(urls)
    for span in sorted([*calls, *urls], key=lambda s: s.start):
        start = len(text[: span.start].encode())
        end = start + len(span.text.encode())
        if span in links_here:
            url = allowed.urls[_form(span.text)]
            yield Facet(type=FacetType.LINK, byte_start=start, byte_end=end, url=url)
        elif not within(*_ends(span)):
            owner = allowed.accounts[handle_name(span.text)]
            yield Facet(type=FacetType.MENTION, byte_start=start, byte_end=end, account_id=owner)


def _ends(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _edited(text: str, edits: Mapping[tuple[int, int], str]) -> str:
    """``text`` with what stands at each place, start and end, replaced."""
    pieces, last = [], 0
    for (start, end), words in sorted(edits.items()):
        pieces += [text[last:start], words]
        last = end
    return "".join([*pieces, text[last:]])


def _is_handle(text: str) -> bool:
    """Whether the whole of ``text`` is one handle with its at sign."""
    whole = Span(0, len(text), text)
    return bool(_AT.match(text)) and len(text) <= MAX_HANDLE and handles(text) == [whole]


def _forms(url: str) -> Iterator[str]:
    """How a faceted URL may be written: as it is, and without its scheme.

    None where platforms may take another part of it for a link, by its form alone: no finder
    looks at what an asker faceted, only at replies.
    """
    if len(url) <= MAX_URL and _WEB.fullmatch(url):
        short = _form(url)
        yield from (short, short.partition("://")[2])


def _form(written: str) -> str:
    """For comparing: scheme and host in lower case; a path that is only a slash is none."""
    host = _SCHEME_AND_HOST.match(written)
    end = host.end() if host else 0
    path = written[end:]
    return written[:end].lower() + ("" if path == "/" else path)
