"""Servers for the tests of the ``openai`` engine."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tests

ROOT = Path(tests.__file__ or "").parent.parent

Start = Callable[..., "EchoProcess"]


class EchoProcess:
    """The echo server as a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.model.openai.echo_server", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port: int = json.loads(self.process.stdout.readline())["port"]
        self.address = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def start_echo() -> Iterator[Start]:
    """Starts echo servers, which end with the test."""
    started: list[EchoProcess] = []

    def start(*arguments: str) -> EchoProcess:
        started.append(EchoProcess(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


def running(*arguments: str) -> Iterator[EchoProcess]:
    """A server while its module's tests run."""
    process = EchoProcess(*arguments)
    yield process
    process.close()


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoProcess]:
    """One that answers at once."""
    yield from running("--slots", "32")


@pytest.fixture(scope="module")
def second_echo() -> Iterator[EchoProcess]:
    """Another one."""
    yield from running("--slots", "32")


@pytest.fixture(scope="module")
def slow_echo() -> Iterator[EchoProcess]:
    """One that takes an hour."""
    yield from running("--latency-ms", "3600000", "--slots", "1000")


@pytest.fixture(scope="module")
def second_slow_echo() -> Iterator[EchoProcess]:
    """Another one."""
    yield from running("--latency-ms", "3600000", "--slots", "1000")
