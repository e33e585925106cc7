"""The guard with small programs in the JVM's place: whatever dies, nothing is left."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.errors import BrokerFailed
from infra.guarded import GuardedProcess
from tests.wait import wait_until

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]
DEAF = [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"]

OWNER = """
import os, signal, sys
from pathlib import Path
from infra.guarded import GuardedProcess

guarded = GuardedProcess("twite-test-")
guarded.start([sys.executable, "-c", "import signal; signal.pause()"], guarded.folder / "log")
fork = os.fork()  # a copy of us that holds every pipe we hold, and lives on
if fork == 0:
    signal.pause()
print(fork, guarded.pid, guarded.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def guarded() -> Iterator[GuardedProcess]:
    process = GuardedProcess("twite-test-")
    try:
        yield process
    finally:
        process.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_a_fork_of_a_killed_owner_keeps_nothing_alive() -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    fork, child, folder = (await owner.stdout.readline()).decode().split()
    try:
        await wait_until(lambda: _is_dead(owner.pid))
        assert psutil.pid_exists(int(fork))
        await wait_until(lambda: not psutil.pid_exists(int(child)) and not Path(folder).exists())
    finally:
        os.kill(int(fork), signal.SIGKILL)
    assert await owner.stdout.read() == b""  # to its end, or asyncio leaves the pipe open
    assert await owner.wait() == -signal.SIGKILL


def test_close_ends_the_process_and_removes_the_folder(log: Path) -> None:
    guarded = GuardedProcess("twite-test-")
    guarded.start(FOREVER, log)
    pid, folder = guarded.pid, guarded.folder
    assert pid is not None
    assert folder is not None
    assert psutil.pid_exists(pid)
    assert folder.is_dir()
    guarded.close()
    assert not psutil.pid_exists(pid)
    assert not folder.exists()
    with pytest.raises(BrokerFailed, match="closed"):
        guarded.start(FOREVER, log)


def test_killed_it_can_be_started_again(guarded: GuardedProcess, log: Path) -> None:
    guarded.start(FOREVER, log)
    first = guarded.pid
    guarded.kill()
    assert (guarded.status, guarded.running) == (-signal.SIGKILL, False)
    guarded.start(FOREVER, log)
    assert (guarded.status, guarded.running) == (None, True)
    assert guarded.pid != first


async def test_it_is_told_before_it_is_killed(guarded: GuardedProcess, log: Path) -> None:
    guarded.start(FOREVER, log)
    guarded.terminate(grace=20)
    assert guarded.status == -signal.SIGTERM
    guarded.start(DEAF, log)
    await wait_until(lambda: _ignores_sigterm(guarded.pid))
    guarded.terminate(grace=0.01)
    assert guarded.status == -signal.SIGKILL


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _ignores_sigterm(pid: int | None) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(line.split()[1] for line in lines if line.startswith("SigIgn"))
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def test_its_end_and_its_words_are_noticed(guarded: GuardedProcess, log: Path) -> None:
    guarded.start([sys.executable, "-c", "print('hello'); raise SystemExit(3)"], log)
    assert guarded.wait(20)
    assert guarded.status == 3
    assert log.read_text() == "hello\n"


def test_a_program_that_is_not_there_is_named(guarded: GuardedProcess, log: Path) -> None:
    with pytest.raises(BrokerFailed, match="no-such-program"):
        guarded.start(["/no-such-program"], log)


async def test_the_guard_may_die_too(log: Path) -> None:
    guarded = GuardedProcess("twite-test-")
    guarded.start(FOREVER, log)
    child = psutil.Process(guarded.pid)
    folder = guarded.folder
    guard = child.parent()
    assert guard is not None
    assert folder is not None
    guard.kill()
    await wait_until(lambda: not child.is_running() and not guarded.running)
    guarded.close()
    assert not folder.exists()
