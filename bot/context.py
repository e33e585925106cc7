"""What the model may see around an input: posts with whether each is included, and why.

In: posts, messages and replies that ``bot/thread.py`` and ``bot/talk.py`` found. Out:
``ContextPost`` values, always a text beside its own author; ``spend`` fits them into a token
budget. Deterministic. Next: ``bot/prompt.py``.

What stands in public threads is a ``ThreadPost``, what was said in private a ``TalkPost``: the
two are told apart by type all the way to the topics (``bot/audience.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self, TypeVar

from bot.knowledge import ReplyPart
from bot.text import ELLIPSIS, graphemes, safe
from bot.values import visibility_of
from schemas.audit import ContextItem, Trust
from schemas.feed import Account, Attachment, Message, Post, Ref, Visibility

Count = Callable[[str], int]
"""How many tokens a text takes."""

TURN_TOKENS = 16  # allowed for the label and the frame of one post
CHARACTERS_PER_TOKEN = 16  # text beyond this many for each allowed token is not even counted


HIDDEN: Final = ContextItem(
    ref=Ref(uri="left-out"),
    author_id="left-out",
    trust="untrusted",
    included=False,
    why="consent",
)
"""Something was left out: whose and what it was is nobody's business."""


class Kind(StrEnum):
    """What a post is in the conversation."""

    ANCESTOR = "ancestor"
    SIBLING = "sibling"
    TURN = "turn"
    OWN = "own-reply"
    QUOTED = "quoted"
    ASKING = "asking"


class Why(StrEnum):
    """Why a post is in the context, or why it was left out."""

    ROOT = "root"
    ANCESTOR = "ancestor"
    SIBLING = "sibling"
    TURN = "turn"
    OWN = "own-reply"
    QUOTED = "quoted"
    ASKING = "asking"
    CONSENT = "consent"
    DELETED = "deleted"
    AUDIENCE = "audience"
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
        """As the audit keeps it: no text, and not whose it is who does not want to be seen."""
        if self.why is Why.CONSENT:
            return HIDDEN
        return ContextItem(
            ref=self.ref,
            author_id=self.author.id,
            trust=self.trust,
            included=self.included,
            why=self.why.value,
        )

    def left_out(self, why: Why) -> Self:
        return replace(self, included=False, why=why)


class ThreadPost(ContextPost):
    """A post of a public thread, or what the bot said there."""

    __slots__ = ()


class TalkPost(ContextPost):
    """A message of a private talk, or what the bot said there."""

    __slots__ = ()


C = TypeVar("C", bound=ContextPost)


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


def thread_post(
    post: Post, kind: Kind, why: Why, bot_id: str, *, included: bool = True
) -> ThreadPost:
    """A post as it stands in the context."""
    return _context_post(ThreadPost, post, kind, why, bot_id, included=included)


def talk_post(
    message: Message | Post, kind: Kind, why: Why, bot_id: str, *, included: bool = True
) -> TalkPost:
    """A message, or a post that was quoted in a private talk, as it stands in the context."""
    return _context_post(TalkPost, message, kind, why, bot_id, included=included)


def own_reply(made: type[C], part: ReplyPart, bot: Account) -> C:
    """What the bot said before; its ref is the id of the reply."""
    return made(
        ref=Ref(uri=part.reply_id, revision=part.revision),
        author=bot,
        text=part.text,
        kind=Kind.OWN,
        visibility=part.visibility,
        is_bot=True,
        included=True,
        why=Why.OWN,
    )


def _context_post(
    made: type[C], post: Post | Message, kind: Kind, why: Why, bot_id: str, *, included: bool
) -> C:
    return made(
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
    ours = [f for f in post.facets if f.type == "mention" and f.account_id == bot_id]
    if not ours:
        return post.text.lstrip() or post.text
    data, start = post.text.encode(), 0
    for facet in sorted(ours, key=lambda facet: facet.byte_start):
        if data[start : facet.byte_start].strip():
            break
        start = facet.byte_end
    return data[start:].decode().lstrip() or post.text


def _card(attachment: Attachment) -> str:
    texts = (attachment.title, attachment.description, attachment.alt)
    return f"[{': '.join([attachment.type, *(text for text in texts if text)])}]"


def _essential(posts: Sequence[ContextPost]) -> set[int]:
    """Places of the asking post and of the root of the thread."""
    return {
        i for i, post in enumerate(posts) if post.included and post.why in (Why.ROOT, Why.ASKING)
    }


def _capped(post: ContextPost, count: Count, max_tokens: int) -> ContextPost:
    # A text of a megabyte is cut before anything looks at all of it; one more character
    # tells ``cut_to_tokens`` that something is missing.
    text = safe(post.text[: CHARACTERS_PER_TOKEN * max_tokens + 1]).strip()
    text = cut_to_tokens(text, count, max_tokens)
    return post if text == post.text else replace(post, text=text)


def _cost(post: ContextPost, count: Count) -> int:
    return count(post.text) + TURN_TOKENS
