"""A talk with the bot at the terminal: what a person types becomes events.

Lines come in; mentions and private messages go out, and each outcome is printed as it comes
with the seconds it took; until then something says that the bot is thinking. A thread grows as
people talk in it: the next mention carries what was said before, the bot's replies included.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from bot.events import Person, addressed, bot_person, mention, message_to, post
from bot.observe import Outcome
from bot.settings import BotSettings
from bot.show import outcome_text, plain
from bot.stdin import stdin_lines
from schemas.envelope import Event
from schemas.feed import MAX_ANCESTORS, Post

YOU = Person("you", "you", "You")
HELP = """\
text           mention the bot in the present thread
/dm text       write to it in private
/thread        start a new thread; the bot then knows nothing of the old one
/thread text   the same, and mention it there
/help          this list
/quit          end (or Ctrl-D)"""
ENDINGS = frozenset({"quit", "exit", "bye", ":q", "/exit", "/q"})

Ask = Callable[[Event[Any]], Awaitable[Outcome | None]]


@dataclass(slots=True)
class Talk:
    """One talk: ``ask`` publishes an event and waits for its outcome."""

    bot: BotSettings
    console: Console
    ask: Ask
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
        match command:
            case "/dm" if rest:
                await self._message(rest)
            case "/dm":
                self._hint("/dm needs a text: /dm Who are you?")
            case "/thread":
                self._thread, self._number = [], self._number + 1
                self._hint("a new thread")
                if rest:
                    await self._mention(rest)
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
        outcome = await self._show(event)
        self._thread.append(asking)
        for reply in outcome.replies if outcome else ():
            self._thread.append(self._posted(reply.data.reply_id, reply.data.text))

    async def _message(self, text: str) -> None:
        await self._show(message_to(self.bot, YOU, text, conversation_id=f"{self._run}:dm"))

    async def _show(self, event: Event[Any]) -> Outcome | None:
        started = time.monotonic()
        with self._thinking():
            outcome = await self.ask(event)
        if outcome is None:
            self.console.print(Text("no outcome came in time", "red"))
        else:
            self.console.print(outcome_text(outcome))
            self.console.print(Text(f"    {time.monotonic() - started:.1f} s", "dim"))
        return outcome

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
        uri = f"post:{reply_id}"
        return post(author, text, conversation_id=self._conversation, above=above, uri=uri)

    @property
    def _conversation(self) -> str:
        return f"{self._run}:thread-{self._number}"


async def typed_lines(console: Console, prompt: str = "you> ") -> AsyncIterator[str]:
    """What a person types, line by line, until the input ends."""
    console.print(Text(prompt, "bold"), end="")
    async for line in stdin_lines():
        yield line.decode("utf-8", "replace")
        console.print(Text(prompt, "bold"), end="")
