"""The worker's process: how its log is read, and what happens when it ends."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot import worker_process
from bot.errors import Trouble
from bot.settings import BotSettings, Settings
from bot.worker_process import MAX_RESTARTS, WorkerProcess
from tests.wait import wait_until

READY = 'print(\'{"event": "worker ready"}\', flush=True); import time; time.sleep(60)'


@pytest.fixture
async def said() -> list[str]:
    return []


@pytest.fixture
async def worker(tmp_path: Path, said: list[str]) -> AsyncIterator[WorkerProcess]:
    settings = Settings(bot=BotSettings(handle="owl"))
    made = WorkerProcess(settings, tmp_path / "worker.log", said.append)
    yield made
    await made.stop()


def runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "COMMAND", (sys.executable, "-S", "-c", code))


async def test_start_waits_until_the_worker_says_that_it_is_ready(
    worker: WorkerProcess, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = '{"event": "loading the engine", "engine": "echo", "model": "none"}'
    runs(f"print('no json'); print({loading!r}); {READY}", monkeypatch)
    await worker.start(patience_s=30)
    assert worker.pid is not None
    assert said == ["loading the model none (engine echo)"]


async def test_it_gets_the_settings_and_leaves_our_environment_alone(
    worker: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(os.environ)
    runs(f"import os; print(os.environ['TWITE_BOT__HANDLE']); {READY}", monkeypatch)
    await worker.start(patience_s=30)
    assert (tmp_path / "worker.log").read_text().startswith("owl\n")
    assert dict(os.environ) == before


async def test_what_it_said_when_it_ended_is_told(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs("import sys; sys.exit('error: no such model. Set its name.')", monkeypatch)
    with pytest.raises(Trouble, match="ended while it started: no such model"):
        await worker.start(patience_s=30)


async def test_a_silent_end_is_told_with_its_status_and_log(
    worker: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs("raise SystemExit(7)", monkeypatch)
    with pytest.raises(Trouble) as caught:
        await worker.start(patience_s=30)
    assert "(status 7)" in str(caught.value)
    assert str(tmp_path / "worker.log") in str(caught.value)


async def test_a_worker_that_is_never_ready_is_given_up(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs("import time; time.sleep(60)", monkeypatch)
    with pytest.raises(Trouble, match="not ready within"):
        await worker.start(patience_s=0.1)


async def test_a_killed_worker_is_started_again_and_said(
    worker: WorkerProcess, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(READY, monkeypatch)
    await worker.start(patience_s=30)
    first = worker.pid
    await worker.keep_alive()
    assert worker.pid == first
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: worker.pid is None)
    await worker.keep_alive()
    assert worker.pid not in (None, first)
    assert said == ["the worker is gone (status -9); starting another one"]


async def test_restarts_are_bounded(worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(READY, monkeypatch)
    await worker.start(patience_s=30)
    worker.restarts = MAX_RESTARTS
    os.kill(worker.pid or 0, signal.SIGKILL)
    await wait_until(lambda: worker.pid is None)
    with pytest.raises(Trouble, match=f"ended {MAX_RESTARTS + 1} times"):
        await worker.keep_alive()


async def test_stop_ends_it(worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(READY, monkeypatch)
    await worker.start(patience_s=30)
    pid = worker.pid
    assert pid is not None
    await worker.stop()
    assert worker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
