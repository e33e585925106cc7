"""A talk with the bot at the terminal: what a person types becomes events.

Lines come in; mentions and private messages go out, and each outcome is printed as it comes
with the seconds it took; until then something says that the bot is thinking. A thread grows as
people talk in it: the next mention carries what was said before, the bot's replies included.
Lines that were said have numbers, by which they can be edited and deleted; what the bot then
corrects or takes back changes in the thread too.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from bot.events import (
    Person,
    account_changed,
    addressed,
    bot_person,
    deletion_of,
    edit_of,
    edited,
    mention,
    message_to,
    post,
)
from bot.observe import Outcome
from bot.settings import BotSettings
from bot.show import outcome_text, plain
from bot.stdin import stdin_lines
from schemas.codes import Outcome as Kind
from schemas.envelope import Event
from schemas.feed import MAX_ANCESTORS, Message, Post
from schemas.replies import ReplyCorrected

YOU = Person("you", "you", "You")
HELP = """\
text           mention the bot in the present thread
/dm text       write to it in private; /dm /forget: it forgets that talk
/thread        start a new thread; the bot then knows nothing of the old one
/thread text   the same, and mention it there
/edit N text   make your line N say something else
/delete N      take your line N away
/optout        want no answers of the bot
/optin         want them again
/help          this list
/quit          end (or Ctrl-D)"""
OPTED_OUT = "you are opted out: no answers, and the model sees nothing of yours"
OPTED_IN = "you are opted in again"
LATE = "no outcome came in time"
NOTHING_BUILT = "no reply of the bot is built on it"
UNCHANGED = "it says that already: nothing changed"
ALONE = {"/quit", "/optout", "/optin", "/help"}  # commands without anything behind them
ENDINGS = frozenset({"quit", "exit", "bye", ":q", "/exit", "/q"})

Ask = Callable[[Event[Any]], Awaitable[Outcome | None]]
Change = Callable[[Event[Any]], Awaitable[Sequence[Outcome] | None]]


@dataclass(slots=True)
class Talk:
    """One talk: ``ask`` publishes an event and waits for its outcome, ``change`` one that tells
    of a change, and waits for the outcomes that come of it."""

    bot: BotSettings
    console: Console
    ask: Ask
    change: Change
    _lines: dict[int, Post | Message] = field(default_factory=dict)  # by number; deleted: gone
    _count: int = 0
    _thread: list[Post] = field(default_factory=list)
    _number: int = 1
    _run: str = field(default_factory=lambda: f"talk-{time.time_ns():x}")

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Until the lines end, or one of them is ``/quit``."""
        self._hint(HELP)
        async for line in lines:
            if line.strip() == "/quit":
                return
            await self.line(line.strip())

    async def line(self, line: str) -> None:
        """Do what one line says."""
        command, _, rest = line.partition(" ")
        if line.lower() in ENDINGS:
            self._hint("/quit ends the talk")
        elif line.startswith("/"):
            await self._command(command, rest.strip())
        elif line:
            await self._mention(line)

    async def _command(self, command: str, rest: str) -> None:
        if command in ALONE and rest:
            self._hint(f"{command} stands alone on its line")
            return
        match command:
            case "/forget":
                self._hint("did you mean /dm /forget? It makes the bot forget your private talk")
            case "/dm" if rest:
                await self._message(rest)
            case "/dm":
                self._hint("/dm needs a text: /dm Who are you?")
            case "/thread":
                self._thread, self._number = [], self._number + 1
                self._hint("a new thread")
                if rest:
                    await self._mention(rest)
            case "/edit":
                await self._edit(*_numbered(rest))
            case "/delete":
                await self._delete(*_numbered(rest))
            case "/optout" | "/optin":
                await self._opt(out=command == "/optout")
            case "/help":
                self._hint(HELP)
            case _:
                self._hint(f"unknown command {plain(command)}, /help lists them")

    def _hint(self, text: str) -> None:
        self.console.print(Text(text, "dim"))

    async def _mention(self, text: str) -> None:
        shown, facets = addressed(self.bot, text)
        above = self._thread[-1] if self._thread else None
        asking = post(YOU, shown, conversation_id=self._conversation, facets=facets, above=above)
        event = mention(self.bot, asking, ancestors=self._thread[-MAX_ANCESTORS:])
        outcome = await self._show(event, asking)
        self._thread.append(asking)
        for reply in outcome.replies if outcome else ():
            self._thread.append(self._posted(reply.data.reply_id, reply.data.text))

    async def _message(self, text: str) -> None:
        event = message_to(self.bot, YOU, text, conversation_id=f"{self._run}:dm")
        await self._show(event, event.data.message)

    async def _show(self, event: Event[Any], said: Post | Message) -> Outcome | None:
        started = time.monotonic()
        self._count += 1
        self._lines[self._count] = said
        with self._thinking():
            outcome = await self.ask(event)
        if outcome is None:
            self.console.print(Text(LATE, "red"))
        else:
            self.console.print(outcome_text(outcome))
        self._hint(f"    {time.monotonic() - started:.1f} s; you said this as line {self._count}")
        return outcome

    # What changes of what was said.

    async def _edit(self, number: int | None, text: str) -> None:
        if number is None or not text:
            self._hint("/edit needs the number of a line and a text: /edit 1 What is a bird?")
        elif said := self._line(number):
            now = edited(said, text)
            if now.text == said.text:
                self._hint(UNCHANGED)
                return
            self._lines[number] = now
            self._replace(said.uri, now)
            await self._tell(edit_of(said, now))

    async def _delete(self, number: int | None, text: str) -> None:
        if number is None or text:
            self._hint("/delete needs the number of a line: /delete 1")
        elif said := self._line(number):
            del self._lines[number]
            self._replace(said.uri, None)
            await self._tell(deletion_of(said))

    def _line(self, number: int) -> Post | Message | None:
        said = self._lines.get(number)
        if said is None:
            lines = ", ".join(map(str, self._lines)) or "none"
            self._hint(f"there is no line {number} of yours; there are: {lines}")
        return said

    async def _opt(self, *, out: bool) -> None:
        if await self.change(account_changed(YOU, opted_out=out)) is None:
            self.console.print(Text(LATE, "red"))
        else:
            self._hint(OPTED_OUT if out else OPTED_IN)

    async def _tell(self, event: Event[Any]) -> None:
        """Of a change, and show what the bot makes of it."""
        with self._thinking():
            outcomes = await self.change(event)
        if outcomes is None:
            self.console.print(Text(LATE, "red"))
            return
        for alike in _alike(outcomes):
            self.console.print(outcome_text(alike[0]))
            if len(alike) > 1:
                self._hint(f"    the same for {len(alike) - 1} more of its replies")
        for outcome in outcomes:
            self._take_back(outcome)
        if not outcomes:
            self._hint(NOTHING_BUILT)

    def _take_back(self, outcome: Outcome) -> None:
        """The thread as the platform shows it now."""
        for change in outcome.changes:
            uri = _uri_of(change.data.reply_id)
            said = next((post for post in self._thread if post.uri == uri), None)
            if isinstance(change.data, ReplyCorrected) and said is not None:
                self._replace(uri, edited(said, change.data.text))
            else:
                self._replace(uri, None)

    def _replace(self, uri: str, new: Post | Message | None) -> None:
        """Another revision of a post of the thread, or none of it any more."""
        shown = [new if post.uri == uri else post for post in self._thread]
        self._thread = [post for post in shown if isinstance(post, Post)]

    @contextmanager
    def _thinking(self) -> Iterator[None]:
        """A sign of life: seconds that count up at a terminal, else one line."""
        if not self.console.is_terminal:
            self._hint("thinking …")
            yield
            return
        columns = SpinnerColumn(), TextColumn("thinking"), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True) as progress:
            progress.add_task("thinking", total=None)
            yield

    def _posted(self, reply_id: str, text: str) -> Post:
        """The bot's reply as the platform would show it in the thread."""
        above = self._thread[-1]
        author = bot_person(self.bot)
        uri = _uri_of(reply_id)
        return post(author, text, conversation_id=self._conversation, above=above, uri=uri)

    @property
    def _conversation(self) -> str:
        return f"{self._run}:thread-{self._number}"


def _uri_of(reply_id: str) -> str:
    """Of a reply of the bot, as this platform names it."""
    return f"post:{reply_id}"


def _alike(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """In their order; skips for one and the same reason together, as they look alike."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        same = outcome.decision.reason if outcome.decision.outcome is Kind.SKIPPED else None
        groups.setdefault(f"skipped {same}" if same else str(outcome.input), []).append(outcome)
    return list(groups.values())


def _numbered(rest: str) -> tuple[int | None, str]:
    """The number that a command begins with, and the text behind it."""
    number, _, text = rest.partition(" ")
    return (int(number) if number.isdecimal() else None), text.strip()


async def typed_lines(console: Console, prompt: str = "you> ") -> AsyncIterator[str]:
    """What a person types, line by line, until the input ends."""
    console.print(Text(prompt, "bold"), end="")
    async for line in stdin_lines():
        yield line.decode("utf-8", "replace")
        console.print(Text(prompt, "bold"), end="")
