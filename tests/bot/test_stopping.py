"""Ctrl-C: said at once, gone when it says so, and once more ends everything."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bot.cli import run
from bot.cluster import Member
from bot.errors import Trouble
from bot.settings import KafkaSettings, ModelSettings, Settings

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
import typer
from bot.cli.stopping import until_stopped
from infra.guarded import GuardedProcess

async def main():
    process = GuardedProcess("twite-test-")
    process.start(["sleep", "600"], process.folder / "log")
    print(process.pid, process.folder, flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(float(sys.argv[1]))
        await asyncio.to_thread(process.close)

try:
    until_stopped(main())
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


@contextmanager
def running(cleaning_s: float) -> Iterator[tuple["subprocess.Popen[str]", int, Path]]:
    """The program, the process that it started, and that one's temporary folder."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(cleaning_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as program:
        assert program.stdout is not None
        pid, folder = program.stdout.readline().split()
        yield program, int(pid), Path(folder)


def said(program: "subprocess.Popen[str]") -> str:
    assert program.stderr is not None
    return program.stderr.readline()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_once_stops_and_says_so_when_everything_is_gone(how: signal.Signals) -> None:
    with running(0) as (program, pid, folder):
        program.send_signal(how)
        assert said(program).startswith("stopping…")
        assert said(program) == "stopped\n"
        assert not psutil.pid_exists(pid)
        assert not folder.exists()
        assert program.wait(30) == 128 + how


def test_twice_ends_everything_at_once() -> None:
    with running(600) as (program, pid, folder):
        guards = psutil.Process(program.pid).children()
        program.send_signal(signal.SIGINT)
        assert said(program).startswith("stopping…")
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 130
        psutil.wait_procs(guards, 30)
        assert not psutil.pid_exists(pid)
        assert not folder.exists()


def test_a_demo_on_a_broker_of_yours_asks_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="kafka-7:9092"))
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr("typer.confirm", no)
    monkeypatch.setattr(run, "at_terminal", lambda: True)
    with pytest.raises(Trouble, match="nothing was published"):
        run._confirm(settings, "twite.toml", others=0, yes=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "Kafka at kafka-7:9092 (named by twite.toml)" in said
    assert "A worker will be started in the group twite" in said
    assert "real people included" in said
    run._confirm(settings, "twite.toml", others=0, yes=True)
    assert asked == ["Go on?"]
    assert "kafka-7:9092" in capsys.readouterr().err


def test_a_demo_on_a_broker_of_yours_publishes_nothing_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "at_terminal", lambda: False)
    with pytest.raises(Trouble, match=r"nobody is there to be asked.*--yes") as told:
        run._confirm(Settings(), "twite.toml", others=0, yes=False)
    assert told.value.status == 2


def test_a_demo_on_a_broker_of_yours_does_not_answer_people_with_echoes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(model=ModelSettings(engine="echo"))
    monkeypatch.setattr("typer.confirm", lambda question: True)
    monkeypatch.setattr(run, "at_terminal", lambda: True)
    with pytest.raises(Trouble, match=r"nonsense.*--yes") as told:
        run._confirm(settings, "twite.toml", others=0, yes=False)
    assert told.value.status == 2
    run._confirm(settings, "twite.toml", others=0, yes=True)
    capsys.readouterr()
    run._confirm(settings, "twite.toml", others=2, yes=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "2 running workers of the group twite will answer; no other is started" in said


def test_an_engine_is_refused_where_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def members_of(kafka: KafkaSettings) -> tuple[Member, ...]:
        return (Member("worker-1", "/10.0.0.7", None),)

    monkeypatch.setattr("bot.cluster.members_of", members_of)
    assert run._workers_there(Settings(), named=False) == 1
    with pytest.raises(Trouble, match=r"1 running worker of the group twite.*--engine") as told:
        run._workers_there(Settings(), named=True)
    assert told.value.status == 2
