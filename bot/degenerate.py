"""Answers that are none: empty, one phrase over and over, or what was said just before.

A checked text and what stands around it come in; out goes what is wrong with it, if anything, and
how the model is asked once more: with another seed and, as no seed changes the likeliest token,
a temperature above zero. Pure. Next: ``bot/conversation.py``, which asks at most twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import takewhile

import regex

from bot.context import ContextPost
from bot.links import without_links
from bot.reply import Checked, seed_of
from bot.split import without_number
from model.engine import Sampling
from schemas.audit import RuleVerdict
from schemas.feed import Message, Post

RULE = "worth-saying"
SHORT = 4  # words up to which a text may be that of somebody else: "Good morning!"
LEAST = 12  # words below which nothing counts as repetition: "no no no"
TIMES = 4  # how often a phrase stands there at least
MOST = 0.7  # of all words, above which a phrase is most of a text
PHRASES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)  # words of the phrases that are counted
LONG_WORD = 40  # characters from which a word is looked at character by character
LONGEST = 4000  # characters of somebody else's text that are compared
_PASSED = RuleVerdict(name=RULE, verdict="pass")

# Words; where a script puts no spaces between them, and of emoji, single characters.
_WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{So}]"
    r"|[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]++",
    regex.V1,
)


class Fault(StrEnum):
    """What is wrong with an answer."""

    EMPTY = "empty"
    REPETITION = "repetition"
    ASKERS_WORDS = "the asker's own words"
    SAID_BEFORE = "said before"


def fault_of(
    checked: Checked, question: Post | Message, context: Sequence[ContextPost]
) -> Fault | None:
    """What is wrong with an answer to ``question``, if anything."""
    if not checked.parts:
        return Fault.EMPTY
    words = words_of(checked.text)
    if is_repetition(words):
        return Fault.REPETITION
    if len(words) <= SHORT:
        return None
    if _are_of(words, without_links(question.text[:LONGEST])):
        return Fault.ASKERS_WORDS
    said_before = any(_are_of(words, text) for text in _before(context))
    return Fault.SAID_BEFORE if said_before else None


def again(sampling: Sampling, reply: str, temperature: float) -> Sampling:
    """How the second answer of a reply is drawn: another seed, at least ``temperature``."""
    warmer = max(sampling.temperature, temperature)
    return replace(sampling, seed=seed_of(reply, 2), temperature=warmer)


def verdict(fault: Fault | None, sampling: Sampling, *, last: bool) -> RuleVerdict:
    """What the audit says of one try; of one that was not taken, also how it was drawn."""
    if fault is None:
        return _PASSED
    how = f"{fault.value}; seed {sampling.seed}, temperature {sampling.temperature}"
    return RuleVerdict(name=RULE, verdict="skip" if last else "retry", detail=how)


def words_of(text: str) -> list[str]:
    """The words of a text, for comparing: no punctuation, case folded."""
    return list(_words(text[:LONGEST]))


def _are_of(words: Sequence[str], text: str) -> bool:
    """Whether these are the words of a text, looked at no further than they are."""
    found = _words(text[:LONGEST])
    return all(word == next(found, None) for word in words) and next(found, None) is None


def is_repetition(words: Sequence[str]) -> bool:
    """Whether one phrase, said at least ``TIMES`` times, is most of the words."""
    if len(words) < LEAST:
        return False
    lengths = takewhile(lambda length: TIMES * length <= len(words), PHRASES)
    return any(
        times >= TIMES and times * length > MOST * len(words)
        for length in lengths
        for times in [_times(words, length)]
    )


def _times(words: Sequence[str], length: int) -> int:
    """How often the commonest phrase of so many words stands there, without overlaps."""
    count: dict[tuple[str, ...], int] = {}
    free: dict[tuple[str, ...], int] = {}  # from where on the phrase may be counted again
    for place in range(len(words) - length + 1):
        phrase = tuple(words[place : place + length])
        if free.get(phrase, 0) <= place:
            count[phrase] = count.get(phrase, 0) + 1
            free[phrase] = place + length
    return max(count.values(), default=0)


def _words(text: str) -> Iterator[str]:
    for found in _WORD.finditer(text.casefold()):
        word = found[0]
        yield from word if len(word) > LONG_WORD else (word,)


def _before(context: Sequence[ContextPost]) -> Iterator[str]:
    """The bot's previous reply: its last post, and the thread of posts that it may end."""
    turns = [post for post in context if post.included]
    while turns and not turns[-1].is_bot:
        turns.pop()
    run = list(takewhile(lambda post: post.is_bot, reversed(turns)))[::-1]
    texts = [without_number(post.text) for post in run]
    yield from (texts[-1], " ".join(texts)) if texts else ()
