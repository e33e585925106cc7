"""The prompt: chat messages for the model, and their token ids.

In: the posts of ``bot/context.py``, a template, the engine's tokenizer. Out: ``Composed``:
messages whose parts carry their trust, the token ids, and which posts fitted. Guaranteed:
everything people wrote, names included, stands in untrusted parts; only the template, the hint
at the asker's language and the frame around names and texts are trusted. Roles alternate and
begin with ``user``. The bot's own earlier posts are ``assistant`` turns. Next: the model.

Frame: one post is ``name: text``. Further lines of a text are indented and names hold no
colon and no line break, so no text can look like the post of somebody else.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import regex

from bot.context import TURN_TOKENS, ContextPost, Count, Kind, spend
from bot.language import Tongue
from bot.language import hint as hint_of
from bot.split import without_number
from bot.templates import BOT, choose
from bot.text import one_line
from bot.values import BotIdentity, Limits, Question, Setup, Template
from model.engine import ChatMessage, ChatTokenizer, Part, Prompt, Role, Trust
from schemas.audit import PromptMessage
from schemas.feed import Account, Ref

MAX_NAME = 40  # graphemes of a name in a label
INDENT = "\n  "
OPENING = "(The thread begins.)"
_COLONS = regex.compile(r"[:：∶꞉︓﹕˸ː]")


@dataclass(frozen=True, slots=True)
class Composed:
    """A prompt ready for the model. ``record`` is its parts for the audit, in order; ``hint`` is
    what it says of the asker's language."""

    template: Template
    context: tuple[ContextPost, ...]
    messages: tuple[ChatMessage, ...]
    record: tuple[PromptMessage, ...]
    prompt: Prompt
    hint: str = ""


def prompt_for(
    context: Sequence[ContextPost],
    question: Question,
    tongue: Tongue | None,
    setup: Setup,
    tokenizer: ChatTokenizer,
    context_length: int,
) -> Composed:
    """The prompt of a question, as long as the limits and the model (``context_length`` tokens,
    the answer included) allow. ``tongue``: the asker's language."""
    template, limits = choose(setup.prompts, question), setup.limits
    words = hint_of(tongue, setup.prompts.language, setup.prompts.language_hint)
    room = room_of(setup, context_length)
    return compose(context, tokenizer, template, setup.bot, limits, room, words)


def room_of(setup: Setup, context_length: int) -> int:
    """Most tokens of a prompt: as set, but the model must have room for the answer as well."""
    left = max(context_length // 2, context_length - setup.sampling.max_tokens)
    return min(setup.limits.prompt_tokens, left)


def compose(
    posts: Sequence[ContextPost],
    tokenizer: ChatTokenizer,
    template: Template,
    bot: BotIdentity,
    limits: Limits,
    room: int,
    hint: str = "",
) -> Composed:
    """The prompt of at most ``room`` tokens, as far as the template alone leaves that open.

    The budget of the posts shrinks until the whole, frame included, fits. ``hint``: what is
    said of the asker's language, in the operator's words.
    """
    count = functools.cache(tokenizer.count)  # of each text twice, and again for each budget
    budget = max(1, room - _count_trusted(tokenizer.count, template.text + hint) - TURN_TOKENS)
    while True:
        context = spend(posts, count, budget, limits.post_tokens)
        record = write(context, template, bot, hint)
        messages = messages_of(record)
        prompt = tokenizer.encode_chat(messages)
        over = len(prompt.token_ids) - room
        if over <= 0 or budget == 1:
            return Composed(template, context, messages, record, prompt, hint)
        budget = max(1, budget - max(over, budget // 8))


@functools.lru_cache(maxsize=64)
def _count_trusted(count: Count, text: str) -> int:
    """Of the operator's words, which are the same for every prompt."""
    return count(text)


def write(
    posts: Iterable[ContextPost], template: Template, bot: BotIdentity, hint: str = ""
) -> tuple[PromptMessage, ...]:
    """The parts of the prompt in order; those of one turn stand together."""
    account = bot.account
    turns = [post for post in posts if post.included]
    names = labels(account, [post.author for post in turns])
    parts = [_part("system", template.text.replace(BOT, names[bot.id]), "trusted")]
    if hint:
        parts.append(_part("system", f"\n{hint}", "trusted"))
    if turns[0].is_bot:
        parts.append(_part("user", OPENING, "trusted"))
    for post in turns:
        lines = list(_own(post) if post.is_bot else _theirs(post, names))
        if lines and lines[0].role == parts[-1].role:
            parts.append(_part(lines[0].role, "\n", "trusted"))
        parts.extend(lines)
    return tuple(parts)


def messages_of(record: Iterable[PromptMessage]) -> tuple[ChatMessage, ...]:
    """The messages that the parts of a prompt make up; also from an audit record."""
    return tuple(
        ChatMessage(role, tuple(Part(part.content, part.trust) for part in parts))
        for role, parts in groupby(record, key=lambda part: part.role)
    )


def labels(bot: Account, authors: Iterable[Account]) -> dict[str, str]:
    """A name for every account id, no two alike: who shares a name gets a number."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for account in (bot, *authors):
        if account.id not in names:
            names[account.id] = _untaken(_name(account), taken)
            taken.add(names[account.id].casefold())
    return names


def _own(post: ContextPost) -> Iterator[PromptMessage]:
    # Without the number of a thread's part: the model would write numbers of its own.
    if text := without_number(post.text):
        yield _part("assistant", text, "untrusted", post.ref)


def _theirs(post: ContextPost, names: dict[str, str]) -> Iterator[PromptMessage]:
    if post.kind is Kind.QUOTED:
        yield _part("user", "Quoted, ", "trusted", post.ref)
    yield _part("user", names[post.author.id], "untrusted", post.ref)
    yield _part("user", ":", "trusted", post.ref)
    # The space goes with the text: tokenizers know " word" as one piece.
    yield _part("user", " " + post.text.replace("\n", INDENT), "untrusted", post.ref)


def _part(role: Role, text: str, trust: Trust, ref: Ref | None = None) -> PromptMessage:
    return PromptMessage(role=role, content=text, ref=ref, trust=trust)


def _name(account: Account) -> str:
    """The display name, else the handle, made harmless; never empty."""
    for text in (account.display_name or "", account.handle):
        # Cut before anything looks at all of it; the colons are for the frame alone.
        if name := one_line(_COLONS.sub(" ", text[: 32 * MAX_NAME]), MAX_NAME):
            return name
    return "somebody"


def _untaken(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name} {number}"
    return candidate
