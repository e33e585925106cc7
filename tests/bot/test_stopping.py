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
from bot.errors import Trouble
from bot.settings import KafkaSettings, Settings

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
        run._confirm(settings, "twite.toml", yes=False)
    assert "Kafka at kafka-7:9092 (named by twite.toml)" in capsys.readouterr().err
    run._confirm(settings, "twite.toml", yes=True)
    monkeypatch.setattr(run, "at_terminal", lambda: False)
    run._confirm(settings, "twite.toml", yes=False)
    assert asked == ["Go on?"]
    assert capsys.readouterr().err.count("kafka-7:9092") == 2
