"""Prompts as the bot makes them: of feed files, or of the demo and of talks made from templates.

In come feed files (none: the demo's own feed, and threads and private talks from the templates
below), out come prompts as token ids, the same ones each time. Context, prompt files and tokenizer
are those of a worker (``bot.preview``).
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from bot.ask import to_output
from bot.demo_feed import scenes
from bot.errors import Trouble
from bot.events import Person, addressed, mention, message_to, post
from bot.feed import Entry, read_file
from bot.preview import asked_of, knowledge_of, preview, records_of
from bot.settings import BotSettings
from bot.values import Setup
from model.engine import ChatTokenizer, Prompt
from schemas.feed import Post
from schemas.record import Output, Record

MADE = 600  # threads and talks
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)  # prompts do not depend on the day
PEOPLE = [Person(f"acct-{name}", name, name.title()) for name in ("ada", "bo", "cleo", "dev")]
PLACES = (
    "Paris", "Rome", "Kyoto", "Lima", "Oslo", "Cairo",
    "Quito", "Dakar", "Hanoi", "Perth", "Turin", "Malmö",
)  # fmt: skip
THINGS = (
    "tea", "bread", "chess", "jazz", "bees", "volcanoes",
    "steam", "moss", "glaciers", "kites", "lichens", "radio",
)  # fmt: skip
SAID = (
    "I was in {place} last week.",
    "Does anybody here know something about {thing}?",
    "In {place} everybody talks about {thing} these days.",
    "My sister says that {thing} were invented in {place}. I doubt it.",
    "Wir fahren im Sommer nach {place} und suchen ein Buch über {thing}.",
    "Not everything about {thing} is true, you know: people in {place} say 3 things at once!",
)
ASKED = (
    "What is {place} known for?",
    "Tell me one fact about {thing}, please.",
    "Write two sentences about {thing} in {place}.",
    "Is it true what they say here?",
    "Who is right, and why?",
    "Give me a list of three words about {thing}.",
    "What should I see in {place} if I have {number} days?",
    "Explain {thing} to a child of {number}.",
    "What is {number} plus {number}, and what has that to do with {place}?",
)


def prompts(
    files: Sequence[Path], setup: Setup, bot: BotSettings, tokenizer: ChatTokenizer, length: int
) -> Iterator[Prompt]:
    """One for each mention or message that a person wrote to the bot, in the order of the feed.

    ``length``: of the model's context in tokens. What the bot would not answer is left out.
    """
    found = [read_file(file) for file in files] or [demo(bot), made(bot)]
    before: dict[bytes | None, list[Record]] = defaultdict(list)
    for record in records_of(chain.from_iterable(found), round(NOW.timestamp() * 1000)):
        known = before[record.key]
        known.append(record)
        if asked_of(record) is None:
            continue
        try:
            seen = preview(record, knowledge_of(known, bot.account_id), setup, tokenizer, length)
        except Trouble:
            continue
        if seen.skipped is None:
            yield seen.prompt


def demo(bot: BotSettings) -> Iterator[Entry]:
    """The records of the demo's own feed."""
    return (Entry(n, scene.record) for n, scene in enumerate(scenes(bot, "trial")))


def made(bot: BotSettings) -> Iterator[Entry]:
    """Threads of up to five posts, and private talks; the same ones each time."""
    for number in range(MADE):
        dice = random.Random(number)
        outputs = (_thread if number % 3 else _talk)(bot, dice, f"made-{number}")
        yield from (Entry(number, output) for output in outputs)


def _thread(bot: BotSettings, dice: random.Random, name: str) -> Iterator[Output]:
    above: list[Post] = []
    for at in range(dice.randrange(5)):
        said = dice.choice(SAID).format(**words(dice))
        above.append(below(above, dice, said, name, at))
    text, facets = addressed(bot, dice.choice(ASKED).format(**words(dice)))
    asking = post(
        dice.choice(PEOPLE), text, conversation_id=name, facets=facets,
        above=above[-1] if above else None, created_at=NOW, uri=f"{name}/ask",
    )  # fmt: skip
    yield to_output(mention(bot, asking, ancestors=above, event_id=name))


def below(above: list[Post], dice: random.Random, text: str, name: str, at: int) -> Post:
    """A post of the thread ``name``, below those that are there."""
    last = above[-1] if above else None
    return post(
        dice.choice(PEOPLE), text, conversation_id=name,
        above=last, created_at=NOW, uri=f"{name}/{at}",
    )  # fmt: skip


def _talk(bot: BotSettings, dice: random.Random, name: str) -> Iterator[Output]:
    person = dice.choice(PEOPLE)
    for _ in range(dice.randrange(1, 4)):
        text = dice.choice(ASKED).format(**words(dice))
        yield to_output(message_to(bot, person, text, conversation_id=name, created_at=NOW))


def words(dice: random.Random) -> dict[str, object]:
    """What the templates are filled with."""
    return {
        "place": dice.choice(PLACES),
        "thing": dice.choice(THINGS),
        "number": dice.randrange(2, 90),
    }
