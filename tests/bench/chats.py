"""Prompts like the demo's, as token ids: the bot's own words, then a thread of a few posts.

150 to 250 tokens each, no two alike behind the system prompt that they share; the same ones each
time for the same seed.
"""

import random
from collections.abc import Iterator

from bot.templates import BOT, load_prompts
from model.engine import ChatMessage, ChatTokenizer, Part

FEWEST, MOST = 150, 250
_PEOPLE = ("Ada", "Bo", "Cleo", "Dev", "Eve", "Finn")
_PLACES = ("Paris", "Rome", "Kyoto", "Lima", "Oslo", "Cairo", "Quito", "Dakar", "Hanoi", "Perth")
_THINGS = ("tea", "bread", "chess", "jazz", "bees", "volcanoes", "moss", "glaciers", "kites")
_SAID = (
    "I was in {place} last week and all that people talked about was {thing}.",
    "Does anybody here know something about {thing}? My sister says they come from {place}.",
    "Not everything about {thing} is true, you know: people in {place} say three things at once!",
    "We go to {place} every summer, mostly because of the {thing}, and it has never been dull.",
    "In {place} they have {number} words for {thing}, or so I was told by somebody on a train.",
)
_ASKED = (
    "Tell me what {place} is known for, and what that has to do with {thing}.",
    "Explain {thing} to a child of {number}, please.",
    "What should I see in {place} if I have {number} days and like {thing}?",
    "Who is right about {thing}, and why?",
)


def chats(tokenizer: ChatTokenizer, count: int, seed: int) -> list[list[int]]:
    """``count`` prompts."""
    dice = random.Random(seed)
    return [_chat(tokenizer, dice) for _ in range(count)]


def remark(dice: random.Random) -> str:
    """Something that people say in a thread."""
    return _filled(dice.choice(_SAID), dice)


def question(dice: random.Random) -> str:
    """Something that people ask a bot."""
    return _filled(dice.choice(_ASKED), dice)


def _chat(tokenizer: ChatTokenizer, dice: random.Random) -> list[int]:
    target, lines = dice.randrange(FEWEST, MOST - 30), _lines(dice)
    thread: list[str] = []
    while True:
        asked = f"{dice.choice(_PEOPLE)}: {_filled(dice.choice(_ASKED), dice)}"
        ids = _encoded(tokenizer, [*thread, asked])
        if len(ids) >= target:
            return ids
        thread.append(next(lines))


def _encoded(tokenizer: ChatTokenizer, lines: list[str]) -> list[int]:
    words = load_prompts().mention.text.replace(BOT, "twite")
    system = ChatMessage("system", (Part(words, "trusted"),))
    asked = ChatMessage("user", (Part("\n".join(lines)),))
    return list(tokenizer.encode_chat([system, asked]).token_ids)


def _lines(dice: random.Random) -> Iterator[str]:
    while True:
        yield f"{dice.choice(_PEOPLE)}: {_filled(dice.choice(_SAID), dice)}"


def _filled(text: str, dice: random.Random) -> str:
    return text.format(
        place=dice.choice(_PLACES), thing=dice.choice(_THINGS), number=dice.randrange(2, 90)
    )
