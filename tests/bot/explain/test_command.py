"""``twite explain`` and ``twite evidence`` without a broker: what is typed, what comes out."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot import cli
from bot.cli import console
from bot.evidence.keys import generate
from bot.settings import known_fields
from tests.bot.explain.log import Log
from tests.bot.make import direct, mention, record


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TWITE_CONFIG", raising=False)
    for known in known_fields():
        monkeypatch.delenv(known.variable, raising=False)
    monkeypatch.setattr(console.out, "_width", 200)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A mention and a message, both answered; the command reads them."""
    made = Log()

    async def answer() -> None:
        await made.answer(record(mention("@twite why?")))
        await made.answer(record(direct("purple-cow"), event_id="event-2"))

    @asynccontextmanager
    async def reader(*_: object) -> AsyncIterator[Log]:
        yield made

    asyncio.run(answer())
    monkeypatch.setattr("consumers.reader.range_reader", reader)
    return made


def twite(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status."""
    monkeypatch.setattr(sys, "argv", ["twite", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_it_is_told_as_text_and_as_json(
    log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert twite(monkeypatch, "explain", "at://p/asking") == 0
    told = capsys.readouterr().out
    assert told.startswith("The bot replied\n")
    assert "Alice: why?" in told
    assert "Tokens" not in told
    assert twite(monkeypatch, "explain", "at://p/asking", "--json", "--tokens") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["outcome"] == "replied"
    assert value["tokens"]["output"]


def test_private_texts_need_private_and_reveal(
    log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert twite(monkeypatch, "explain", "at://m/1") == 1
    assert "--private looks there" in capsys.readouterr().err
    page = Path("why.html")
    for words, is_shown in ((("--private",), False), (("--private", "--reveal"), True)):
        assert twite(monkeypatch, "explain", "at://m/1", *words) == 0
        assert ("purple-cow" in capsys.readouterr().out) is is_shown
        assert twite(monkeypatch, "explain", "at://m/1", *words, "--html", str(page)) == 0
        assert ("purple-cow" in page.read_text()) is is_shown
        assert page.stat().st_mode & 0o777 == (0o600 if is_shown else 0o644)
    assert [file.name for file in Path().iterdir()] == ["why.html"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["explain", " "], 2, "no id and no URI"),
        (["explain", "x", "--since", "tomorrow"], 2, "is no time"),
        (["explain"], 2, "Missing argument"),
        (["explain", "x", "--html", "no/such/folder"], 1, "names it"),
        (["explain", "at://p/asking", "--html", "no/such/folder"], 1, "cannot be written"),
        (["evidence", "export", "x", "--key", "none.pem", "--out", "f"], 1, "cannot be read"),
    ],
)
def test_a_wrong_call_is_told(
    log: Log,
    arguments: list[str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert twite(monkeypatch, *arguments) == status
    assert said in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_evidence_goes_to_its_owner_and_over_nothing_half(
    log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(Path("k.pem"))
    Path("case.zip").write_text("an older one")
    export = ["evidence", "export", "at://p/asking", "--key", "k.pem", "--out", "case.zip"]
    assert twite(monkeypatch, *export) == 0
    assert Path("case.zip").stat().st_mode & 0o777 == 0o600
    assert twite(monkeypatch, "evidence", "verify", "case.zip", "--key", "k.pub.pem") == 0
    assert "case.zip: good; 14 members" in capsys.readouterr().out
    log.first["feed.mentions", 2] = 1
    assert twite(monkeypatch, *export) == 0
    assert "warning: not in it: input (past retention)" in capsys.readouterr().err
    assert twite(monkeypatch, "evidence", "verify", "case.zip", "--key", "k.pub.pem") == 0
    assert "not in it: input (past retention)" in capsys.readouterr().out


def test_a_broker_that_is_away_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert twite(monkeypatch, "explain", "x") == 1
    assert "No Kafka broker answers at 127.0.0.1:1" in capsys.readouterr().err
