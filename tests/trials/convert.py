"""Data sets of real conversations to feed files for ``twite demo --feed``.

    python -m tests.trials.convert oasst TREES.jsonl --limit 50 > feed.jsonl
    python -m tests.trials.convert chitchat CHATS.json --output feed.jsonl
    python -m tests.trials.convert irc LOG_FOLDER
    python -m tests.trials.convert mt-bench QUESTIONS.jsonl

In come paths to local copies of the data sets; out goes one event per line: a mention of the
bot below the real ancestors of a post, or a private message to it. The people who ask become
people of the platform; those who were answered keep their words. What is chosen depends on
the seed only.

    oasst      Open Assistant's reply trees: the prompter asks, the assistant is the bot
    chitchat   talks of two: the first to speak writes to the bot
    irc        IRC logs with human reply annotations (jkkummerfeld/irc-disentanglement):
               threads of several people, the last one mentions the bot
    mt-bench   questions, as mentions that stand alone

With ``--lively`` the threads and talks live on (``lively.py``): their posts come on the stream
of posts, and some of them are edited, deleted or asked for a second time.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bot.events import Person, addressed, bot_person, mention, message_to, post, structured
from bot.settings import BotSettings
from schemas.envelope import Event
from schemas.feed import MAX_ANCESTORS, Post
from schemas.fields import parse_time
from tests.trials.lively import lively

START = datetime(2026, 1, 1, tzinfo=UTC)
MAX_TEXT = 3000  # characters of one post
BotEvents = Iterator[list[Event[Any]]]


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of a thread: who says what. ``author`` None is the bot; ``asks``: the turn is a
    mention of its own, so its text names the bot wherever it stands."""

    key: str
    author: Person | None
    text: str
    asks: bool = False


def thread_mention(bot: BotSettings, thread_id: str, turns: Sequence[Said]) -> Event[Any]:
    """The last turn as a mention of the bot, the others as its ancestors, root first."""
    posts: list[Post] = []
    for number, turn in enumerate(turns):
        asks = turn.asks or number == len(turns) - 1
        text, facets = addressed(bot, turn.text) if asks else (turn.text, ())
        posts.append(
            post(
                turn.author or bot_person(bot),
                text[:MAX_TEXT],
                conversation_id=thread_id,
                facets=facets,
                above=posts[-1] if posts else None,
                created_at=START + timedelta(seconds=number),
                uri=f"{thread_id}/{turn.key}",
            )
        )
    *ancestors, asking = posts
    event_id = f"{asking.uri}#mention"
    return mention(bot, asking, ancestors=ancestors[-MAX_ANCESTORS:], event_id=event_id)


def oasst(path: Path, bot: BotSettings) -> BotEvents:
    """Each prompt of a tree is a mention below everything that was said above it."""
    for line in path.read_text("utf-8").splitlines():
        tree = json.loads(line)
        thread_id = f"oasst:{tree['message_tree_id']}"
        asker = person("oasst", tree["message_tree_id"])
        yield [
            thread_mention(bot, thread_id, turns)
            for turns in _paths(tree["prompt"], (), asker)
            if turns[-1].author is not None
        ]


def _paths(
    message: Mapping[str, Any], above: tuple[Said, ...], asker: Person
) -> Iterator[tuple[Said, ...]]:
    author = asker if message["role"] == "prompter" else None
    turns = (*above, Said(message["message_id"], author, message["text"], author is not None))
    yield turns
    for reply in message["replies"]:
        yield from _paths(reply, turns, asker)


def chitchat(path: Path, bot: BotSettings) -> BotEvents:
    """What the first to speak writes, as private messages; the bot stands for the other."""
    for key, talk in json.loads(path.read_text("utf-8")).items():
        said = [message for turn in talk["messages"] for message in turn]
        if not said:
            continue
        first = said[0]["sender"]
        writer = person("chitchat", first)
        yield [
            message_to(
                bot,
                writer,
                message["text"][:MAX_TEXT],
                conversation_id=f"chitchat:{key}",
                created_at=parse_time(message["timestamp"]),
                uri=f"chitchat:{key}/{number}",
            )
            for number, message in enumerate(said)
            if message["sender"] == first and message["text"]
        ]


_IRC_LINE = re.compile(r"\[\d\d:\d\d\] <([^>]+)> (.*)")


def irc(path: Path, bot: BotSettings) -> BotEvents:
    """Each line that answers another is a mention below the chain that it answers."""
    for log in sorted(path.glob("*.raw.txt")) if path.is_dir() else [path]:
        lines = log.read_text("utf-8", errors="replace").splitlines()
        name = log.name.removesuffix(".raw.txt")
        answered = _annotations(log.with_name(f"{name}.annotation.txt"))
        for number in sorted(answered):
            turns = _chain(lines, answered, number)
            if len(turns) > 1:
                yield [thread_mention(bot, f"irc:{name}:{turns[0].key}", turns)]


def _annotations(path: Path) -> dict[int, int]:
    """Line number to that of the line it answers; lines that start a talk are left out."""
    answered: dict[int, int] = {}
    for line in path.read_text("utf-8").splitlines():
        earlier, later = sorted(int(number) for number in line.split()[:2])
        if earlier != later:
            answered[later] = max(earlier, answered.get(later, -1))
    return answered


def _chain(lines: Sequence[str], answered: Mapping[int, int], number: int) -> list[Said]:
    """The lines from the first of a talk down to ``number``; service messages are left out."""
    chain: list[Said] = []
    at: int | None = number
    while at is not None:
        if found := _IRC_LINE.fullmatch(lines[at]):
            asks = at in answered
            chain.append(Said(str(at), person("irc", found[1]), found[2], asks))
        elif at == number:
            return []
        at = answered.get(at)
    return chain[::-1]


def mt_bench(path: Path, bot: BotSettings) -> BotEvents:
    """The first turn of each question, as a mention that stands alone."""
    for line in path.read_text("utf-8").splitlines():
        question = json.loads(line)
        key = str(question["question_id"])
        turn = Said("1", person("mt-bench", key), question["turns"][0])
        yield [thread_mention(bot, f"mt-bench:{key}", [turn])]


def person(data_set: str, name: str) -> Person:
    """Somebody of a data set; a long id becomes a short handle."""
    return Person(f"{data_set}:{name}", re.sub(r"[^\w-]", "", name)[:16] or "someone")


CONVERTERS: Mapping[str, Callable[[Path, BotSettings], BotEvents]] = {
    "oasst": oasst,
    "chitchat": chitchat,
    "irc": irc,
    "mt-bench": mt_bench,
}


def choose(
    conversations: Iterator[list[Event[Any]]], limit: int | None, seed: int, per: int
) -> Iterator[Event[Any]]:
    """``limit`` events of conversations in a random order, at most ``per`` of each."""
    chosen = [conversation for conversation in conversations if conversation]
    random.Random(seed).shuffle(chosen)
    events = (event for conversation in chosen for event in conversation[:per])
    for number, event in enumerate(events):
        if limit is not None and number >= limit:
            return
        yield event


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=sorted(CONVERTERS))
    parser.add_argument("path", type=Path, help="file of the data set; for irc its folder")
    parser.add_argument("--limit", type=int, help="at most so many events")
    parser.add_argument("--per-conversation", type=int, default=3, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lively", action="store_true", help="with edits and deletions")
    parser.add_argument("--bot-account", default=BotSettings().account_id)
    parser.add_argument("--bot-handle", default=BotSettings().handle)
    parser.add_argument("--output", type=Path, help="default: standard output")
    options = parser.parse_args(arguments)
    bot = BotSettings(account_id=options.bot_account, handle=options.bot_handle)
    events = choose(
        CONVERTERS[options.kind](options.path, bot),
        options.limit,
        options.seed,
        options.per_conversation,
    )
    if options.lively:
        events = lively(events, bot, options.seed)
    text = "".join(json.dumps(structured(event), ensure_ascii=False) + "\n" for event in events)
    if options.output:
        options.output.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
