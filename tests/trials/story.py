"""The worked story of ``docs/audits.md``, made from what the commands really print.

``python -m tests.trials.story`` starts Apache Kafka and a worker with the default model, lets a
small thread happen, and then does what a moderator would do, command by command. What they print
goes between the marks in ``docs/audits.md``, the report's picture to ``docs/replay-report.png``
(where a Chromium is found). Ids and times are those of that run.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bot.ask import ask, publish, to_output
from bot.clients import producer
from bot.config import as_environment
from bot.events import Person, addressed, edit_of, edited, mention, post
from bot.settings import Settings
from bot.worker_process import WorkerProcess
from infra.broker import LocalBroker
from infra.topics import create_topics
from schemas import names
from schemas.envelope import Envelope, Event
from schemas.feed import Post, PostCreated
from tests.wait import wait_until

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- story: begin -->", "<!-- story: end -->"
PICTURE = "replay-report.png"
WIDTH = 100  # columns of the terminal
SEALED_S = 5.0  # until the last record has its seal
MOST_LINES = 60  # of one command
THREAD = "at://thread/tower"
MARA, JO = Person("acc-mara", "mara", "Mara"), Person("acc-jo", "jo", "Jo")
NEXT = (
    "You are {bot}, a helpful bot in a social feed. Reply to the last post in one short sentence,"
    " and begin it with the words: As far as I know,\n"
)


class Shell:
    """Runs ``twite`` as a moderator would, and keeps what was typed and printed."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = os.environ | environment | {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
        self._folder = folder
        self.parts: list[str] = []

    def tell(self, text: str) -> None:
        self.parts.append(text)

    @contextmanager
    def beside(self, *words: str) -> Iterator[None]:
        """A command that runs meanwhile, and is ended as Ctrl-C ends it."""
        command = [sys.executable, "-m", "bot.cli", *words]
        where = {"PYTHONPATH": str(DOCS.parent)}
        with subprocess.Popen(command, env=self._environment | where, cwd=self._folder) as running:
            try:
                yield
            finally:
                running.send_signal(signal.SIGINT)

    def type(self, *words: str, status: int = 0, quiet: bool = False) -> str:
        """One command, from its folder. Raises ``RuntimeError`` for another exit status."""
        found = subprocess.run(
            [sys.executable, "-m", "bot.cli", *words],
            env=self._environment | {"PYTHONPATH": str(DOCS.parent)},
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode != status:
            raise RuntimeError(f"twite {' '.join(words)}: {found.returncode}\n{found.stderr}")
        if not quiet:
            lines = [line.rstrip() for line in found.stdout.strip("\n").splitlines()]
            more = len(lines) - MOST_LINES
            shown = [*lines[:MOST_LINES], f"… ({more} more lines)"] if more > 0 else lines
            typed = "$ twite " + " ".join(map(_quoted, words))
            self.parts.append("\n".join(["```console", typed, *shown, "```"]))
        return found.stdout


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w./:@%=+-]+", word) else f"'{word}'"


async def main(docs: Path) -> None:
    """Writes the story and its picture."""
    with tempfile.TemporaryDirectory(prefix="twite-story-") as temporary:
        folder = Path(temporary)
        async with LocalBroker(progress=_say) as broker:
            settings = _settings(broker.bootstrap_servers, folder)
            await create_topics(broker.bootstrap_servers, partitions=4)
            worker = WorkerProcess(settings, folder / "worker.log", _say)
            await worker.start()
            shell = Shell(as_environment(settings), folder)
            try:
                with shell.beside("audit", "seal"):
                    await _happens(settings, shell)
            finally:
                await worker.stop()
        picture = _picture(folder / "report.html", docs / PICTURE)
    _write(docs / "audits.md", shell.parts, picture=picture)


def _settings(bootstrap_servers: str, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers, "group_id": "story"},
            "views": {"directory": str(folder / "views")},
            "http": {"port": 0},
        }
    )


async def _happens(settings: Settings, shell: Shell) -> None:
    """The thread, then the moderator."""
    root, decision = await _thread(settings, shell)
    await asyncio.to_thread(_asks_why, shell, decision)
    await _edit(settings, root, shell)
    await asyncio.to_thread(_acts, shell, decision, settings)


async def _thread(settings: Settings, shell: Shell) -> tuple[Post, str]:
    root = post(
        MARA,
        "The Eiffel Tower in Paris was finished in 1889, and we are going to see it in June!",
        conversation_id=THREAD,
    )
    text, facets = addressed(settings.bot, "When was the Eiffel Tower finished?")
    asking = post(JO, text, conversation_id=THREAD, facets=facets, above=root)
    created = Envelope(id="root", source="/platform", type=names.POST_CREATED, time=root.created_at)
    async with producer(settings.kafka) as writer:
        await publish(writer, to_output(Event(created, PostCreated(post=root))))
    outcome = await ask(settings.kafka, mention(settings.bot, asking), timeout_s=180)
    if outcome is None or not outcome.replies:
        raise RuntimeError("the bot did not answer")
    shell.tell(
        f"@mara writes: “{root.text}” Below it @jo asks the bot: “{text}” It answers:"
        f" “{outcome.replies[0].data.text}” A day later somebody complains. You moderate the place."
    )
    return root, outcome.decision.decision_id


def _asks_why(shell: Shell, decision: str) -> None:
    shell.tell("**Why did it say this?** The reply names its decision:")
    shell.type("explain", decision)


async def _edit(settings: Settings, root: Post, shell: Shell) -> None:
    """The post above is changed; the bot looks at its reply again by itself."""
    now = edited(root, "The Eiffel Tower in Paris was finished in 1887, and we go there in June!")
    async with producer(settings.kafka) as writer:
        await publish(writer, to_output(edit_of(root, now)))
    log = Path(settings.views.directory or ".").parent

    def decided_again() -> bool:
        return log.exists() and _count(shell) >= 2

    await wait_until(decided_again, 120)
    shell.tell(
        "**The thread has changed since.** @mara edits her post: 1887. The bot has looked at its"
        " reply again by itself, so there is a second decision. What it said first was made of what"
        " stood there then, and that can still be shown: a replay builds what the bot remembered up"
        " to exactly the offsets that the decision names."
    )


def _count(shell: Shell) -> int:
    told = shell.type(
        "replay", "--conversation", THREAD, "--json", "--no-publish", "--engine", "echo",
        "--any-model", "--nice", "0", quiet=True,
    )  # fmt: skip
    summary: dict[str, Any] = json.loads(told.splitlines()[-1])
    return sum(int(count) for count in summary["summary"]["changes"].values())


def _acts(shell: Shell, decision: str, settings: Settings) -> None:
    shell.type("replay", "--id", decision, "--mode", "rebuilt")
    shell.tell(
        "**Would another prompt have been better?** A colleague has written `next.txt`. The whole"
        " conversation is put to it; nothing of that is published:"
    )
    (shell._folder / "next.txt").write_text(NEXT)
    shell.type(
        "replay", "--conversation", THREAD, "--against", "next.txt", "--budget", "5%",
        "--html", "report.html", "--show", "1",
    )  # fmt: skip
    shell.tell(f"The page that it wrote:\n\n![The report of the replay]({PICTURE})")
    shell.tell(
        "Some words change, no outcome does, which is what the budget counts: another prompt is no"
        " cure. **The reply is taken back**, with a reason that stays on"
        " record:"
    )
    shell.type("moderate", "retract", decision, "--reason", "wrong year", "--as", "kim", "--wait")
    shell.type("moderate", "log")
    shell.tell("**The case goes to somebody else**, as one signed file:")
    shell.type("evidence", "keygen", "case.pem")
    shell.type("evidence", "export", decision, "--key", "case.pem", "--out", "case.zip")
    shell.type("evidence", "verify", "case.zip", "--key", "case.pub.pem")
    shell.tell("**And nobody has changed the log meanwhile:**")
    time.sleep(SEALED_S)
    shell.type("audit", "verify")


def _picture(page: Path, to: Path) -> bool:
    """Whether there is one; without a browser the old one stays."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        return to.exists()
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--window-size=1100,1000", f"--screenshot={to.absolute()}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return True


def _write(page: Path, parts: list[str], *, picture: bool) -> None:
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    if not picture:
        parts = [part for part in parts if PICTURE not in part]
    body = "\n\n".join(parts)
    page.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of audits.md")
    asyncio.run(main(parser.parse_args().docs))
