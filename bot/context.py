"""What the model may see around an input: the thread, a quoted post, the input itself.

In: a mention or a private message as the event carries it. Out: ``ContextPost`` values in
reading order (ancestors root first, the quoted post, the asking post), each with whether it
is included and why; then ``spend`` fits them into a token budget. Guaranteed: every text
stands beside its own author, and only an unbroken run of ancestors that ends at the parent
is included. Deterministic. Next: ``bot/prompt.py``.

What the event does not carry (views, consent) comes in here later as more posts and whys.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bot.text import ELLIPSIS, graphemes, safe
from bot.values import Question, visibility_of
from schemas.audit import ContextItem, Trust
from schemas.feed import (
    Account,
    Attachment,
    MentionCreated,
    Message,
    MessageCreated,
    Post,
    Ref,
    Visibility,
)

Count = Callable[[str], int]
"""How many tokens a text takes."""

TURN_TOKENS = 16  # allowed for the label and the frame of one post
CHARACTERS_PER_TOKEN = 16  # text beyond this many for each allowed token is not even counted


class Kind(StrEnum):
    """What a post is in the conversation."""

    ANCESTOR = "ancestor"
    QUOTED = "quoted"
    ASKING = "asking"


class Why(StrEnum):
    """Why a post is in the context, or why it was left out."""

    ROOT = "root"
    ANCESTOR = "ancestor"
    QUOTED = "quoted"
    ASKING = "asking"
    VISIBILITY = "visibility"
    BROKEN_RUN = "broken-run"
    CYCLE = "cycle"
    CONVERSATION = "other-conversation"
    WRONG_QUOTE = "not-the-quote"
    REPEATED = "repeated"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPost:
    """One post or message. ``text`` holds the texts of its attachments as well.

    ``is_bot``: the bot's own. ``visibility`` is none where the word is unknown. ``trust`` is
    always ``untrusted`` so far: whatever comes out of the feed is data.
    """

    ref: Ref
    author: Account
    text: str
    kind: Kind
    visibility: Visibility | None
    is_bot: bool
    included: bool
    why: Why
    trust: Trust = "untrusted"

    def item(self) -> ContextItem:
        """As the audit keeps it: no text."""
        return ContextItem(
            ref=self.ref,
            author_id=self.author.id,
            trust=self.trust,
            included=self.included,
            why=self.why.value,
        )

    def left_out(self, why: Why) -> "ContextPost":
        return replace(self, included=False, why=why)


def gather(data: Question, bot_id: str) -> tuple[ContextPost, ...]:
    """Everything the event carries, in reading order."""
    if isinstance(data, MessageCreated):
        return tuple(_talk(data.message, bot_id))
    return tuple(_thread(data, bot_id))


def spend(
    posts: Sequence[ContextPost], count: Count, budget: int, post_tokens: int
) -> tuple[ContextPost, ...]:
    """The posts that fit into ``budget`` tokens, each cut to ``post_tokens``; the rest left out.

    Spent from the newest to the oldest and no further than the first that does not fit; the
    asking post and the oldest of the thread are always kept.
    """
    cap = max(1, min(post_tokens, budget // 2 - TURN_TOKENS))
    kept = _essential(posts)
    chosen = {i: _capped(posts[i], count, cap) for i in kept}
    left = budget - sum(_cost(post, count) for post in chosen.values())
    for i in reversed(range(len(posts))):
        if i in chosen or not posts[i].included:
            continue
        post = _capped(posts[i], count, cap)
        left -= _cost(post, count)
        if left < 0:
            break
        chosen[i] = post
    return tuple(
        chosen.get(i) or (post.left_out(Why.BUDGET) if post.included else post)
        for i, post in enumerate(posts)
    )


def cut_to_tokens(text: str, count: Count, max_tokens: int) -> str:
    """The longest beginning in whole graphemes that takes at most ``max_tokens``, with an
    ellipsis where something is missing."""
    short = text[: CHARACTERS_PER_TOKEN * max_tokens]
    if short == text and count(text) <= max_tokens:
        return text
    pieces = graphemes(short)
    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        if count("".join(pieces[:middle])) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return "".join(pieces[:low]) + ELLIPSIS


def _thread(data: MentionCreated, bot_id: str) -> Iterator[ContextPost]:
    run = _run(data)
    oldest = next((i for i, (_, fault) in enumerate(run) if fault is None), None)
    for i, (post, fault) in enumerate(run):
        why = fault or (Why.ROOT if i == oldest else Why.ANCESTOR)
        yield _context_post(post, Kind.ANCESTOR, why, bot_id, included=fault is None)
    if data.quoted:
        known = {data.post.uri, *(post.uri for post, fault in run if fault is None)}
        yield _quoted(data.quoted, data.post.quote, known, bot_id)
    yield _context_post(data.post, Kind.ASKING, Why.ASKING, bot_id)


def _talk(message: Message, bot_id: str) -> Iterator[ContextPost]:
    if message.quoted:
        yield _quoted(message.quoted, message.quote, {message.uri}, bot_id)
    yield _context_post(message, Kind.ASKING, Why.ASKING, bot_id)


def _run(data: MentionCreated) -> list[tuple[Post, Why | None]]:
    """Each ancestor, root-most first, with why it can't be believed or is not to be seen.

    Walks from the mention upwards; behind the first break nothing is believed.
    """
    run: list[tuple[Post, Why | None]] = []
    child, known, broken = data.post, {data.post.uri}, False
    for post in reversed(data.ancestors):
        fault = Why.BROKEN_RUN if broken else _fault(post, child, known)
        broken = fault is not None
        if fault is None and visibility_of(post) is None:
            fault = Why.VISIBILITY
        run.append((post, fault))
        known.add(post.uri)
        child = post
    return run[::-1]


def _fault(post: Post, child: Post, known: set[str]) -> Why | None:
    """Why ``post`` can't be the parent of ``child``; refs that the platform left out may be."""
    if post.uri in known:
        return Why.CYCLE
    if post.conversation_id != child.conversation_id:
        return Why.CONVERSATION
    is_root = child.parent is None and child.root is not None and child.root.uri == child.uri
    if is_root or (child.parent is not None and child.parent.uri != post.uri):
        return Why.BROKEN_RUN
    return None


def _quoted(post: Post, quote: Ref | None, known: set[str], bot_id: str) -> ContextPost:
    why = Why.QUOTED
    if quote is not None and quote.uri != post.uri:
        why = Why.WRONG_QUOTE
    elif post.uri in known:
        why = Why.REPEATED
    elif visibility_of(post) is None:
        why = Why.VISIBILITY
    return _context_post(post, Kind.QUOTED, why, bot_id, included=why is Why.QUOTED)


def _context_post(
    post: Post | Message, kind: Kind, why: Why, bot_id: str, *, included: bool = True
) -> ContextPost:
    return ContextPost(
        ref=post.ref,
        author=post.author,
        text="\n".join([without_call(post, bot_id), *map(_card, post.attachments)]),
        kind=kind,
        visibility=visibility_of(post),
        is_bot=post.author.id == bot_id,
        included=included,
        why=why,
    )


def without_call(post: Post | Message, bot_id: str) -> str:
    """The text without the mention of the bot that it begins with: whom it is for is known.

    A small model reads the bot's handle as a name to talk about. A post that is nothing but
    the mention keeps it.
    """
    data = post.text.encode()
    ours = (f for f in post.facets if f.type == "mention" and f.account_id == bot_id)
    start = 0
    for facet in sorted(ours, key=lambda facet: facet.byte_start):
        if data[start : facet.byte_start].strip():
            break
        start = facet.byte_end
    return data[start:].decode().lstrip() or post.text


def _card(attachment: Attachment) -> str:
    texts = (attachment.title, attachment.description, attachment.alt)
    return f"[{': '.join([attachment.type, *(text for text in texts if text)])}]"


def _essential(posts: Sequence[ContextPost]) -> set[int]:
    """Places of the asking post and of the oldest of the thread."""
    thread = [i for i, p in enumerate(posts) if p.included and p.kind is not Kind.QUOTED]
    return {thread[0], thread[-1]}


def _capped(post: ContextPost, count: Count, max_tokens: int) -> ContextPost:
    # A text of a megabyte is cut before anything looks at all of it; one more character
    # tells ``cut_to_tokens`` that something is missing.
    text = safe(post.text[: CHARACTERS_PER_TOKEN * max_tokens + 1]).strip()
    return replace(post, text=cut_to_tokens(text, count, max_tokens))


def _cost(post: ContextPost, count: Count) -> int:
    return count(post.text) + TURN_TOKENS
