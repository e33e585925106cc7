"""Is there room for what people ask beside a prompt file? Told before the first question.

In: prompt files, the limits, and the tokenizer and context length of the model. Out: nothing, or
``PromptError`` with the file, its tokens, how many it may have, and what to set. Guaranteed where
nothing is raised: at least half of a prompt's tokens, or enough for two posts of full length, is
left for the conversation. Without a tokenizer ``surely_fits`` tells by the bytes alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bot.context import TURN_TOKENS
from bot.prompt import labels, room_of
from bot.templates import BOT, PromptError, PromptFile
from bot.values import Setup
from model.engine import ChatTokenizer

ALWAYS_KEPT = 2  # posts: the one that asks, and the root of its thread


@dataclass(frozen=True, slots=True)
class Room:
    """Tokens of a whole prompt, and how many of them are kept for posts."""

    tokens: int
    posts: int

    @property
    def template(self) -> int:
        """Most tokens of a prompt file, the hint at a language and the frame included."""
        return self.tokens - self.posts


def room_in(tokens: int, post_tokens: int) -> Room:
    """How a prompt of so many tokens is shared out."""
    return Room(tokens, min(ALWAYS_KEPT * (post_tokens + TURN_TOKENS), tokens // 2))


def surely_fits(files: Iterable[PromptFile], setup: Setup) -> bool:
    """Whether the files fit whatever the tokenizer, as a token stands for a byte or more. What
    the model's context leaves is not looked at."""
    most = room_in(setup.limits.prompt_tokens, setup.limits.post_tokens).template
    return all(len(_words(file, setup).encode()) + TURN_TOKENS <= most for file in files)


def require_room(
    files: Iterable[PromptFile], setup: Setup, tokenizer: ChatTokenizer, context_length: int
) -> None:
    """Raises ``PromptError`` for the first file that is too long for this model."""
    limits = setup.limits
    room = room_in(room_of(setup, context_length), limits.post_tokens)
    for file in files:
        tokens = tokenizer.count(_words(file, setup)) + TURN_TOKENS
        if tokens > room.template:
            raise PromptError(
                f"{tokens} tokens (with its frame), and at most {room.template} may be: of the"
                f" {room.tokens} that a prompt has, {room.posts} are kept for what people write.",
                where=file.place if file.is_own else file.template.name,
                todo=_todo(tokens, room, setup, context_length),
            )


def _todo(tokens: int, room: Room, setup: Setup, context_length: int) -> str:
    wanted = min(2 * tokens, tokens + ALWAYS_KEPT * (setup.limits.post_tokens + TURN_TOKENS))
    left = context_length - setup.sampling.max_tokens
    if wanted <= left:
        return f"Shorten it, or set bot.prompt_tokens to {wanted} or more."
    return (
        f"Shorten it: the model's context has {context_length} tokens, of which"
        f" {setup.sampling.max_tokens} are for the answer (model.max_new_tokens)."
    )


def _words(file: PromptFile, setup: Setup) -> str:
    """What of a prompt is the operator's: the file with the bot's name, and the hint."""
    bot = setup.bot
    name = labels(bot.account, ())[bot.id]
    return file.template.text.replace(BOT, name) + setup.prompts.language_hint
