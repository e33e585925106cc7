"""A worker as people run it, with a model in a process of its own: Ctrl-C reaches both."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.libraries import quiet_libraries
from tests.model.tiny import save_tiny_model

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet_libraries():
        return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def worker(tiny: Path, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker whose broker is away, the leader of a group as in a terminal."""
    settings = {
        "TWITE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "TWITE_MODEL__NAME": str(tiny),
        "TWITE_VIEWS__DIRECTORY": str(tmp_path),
        "TWITE_LOGGING__FORMAT": "json",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bot.cli", "worker"],
        cwd=ROOT,
        env={**os.environ, **settings},
        stderr=subprocess.PIPE,
        process_group=0,
    )
    yield process
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def lines_until(worker: "subprocess.Popen[bytes]", event: str) -> list[dict[str, Any]]:
    """What it logs up to that line; the test's own timeout ends a wait."""
    assert worker.stderr is not None
    lines = []
    for line in worker.stderr:
        if line.startswith(b"{"):
            lines.append(json.loads(line))
            if lines[-1]["event"] == event:
                break
    return lines


def test_ctrl_c_stops_the_worker_and_the_worker_its_engine(
    worker: "subprocess.Popen[bytes]",
) -> None:
    events = {line["event"] for line in lines_until(worker, "engine ready")}
    assert {"loading the engine", "model progress", "engine ready"} <= events
    (engine,) = psutil.Process(worker.pid).children()
    assert "model.host" in engine.cmdline()
    assert not any("torch" in mapped.path for mapped in psutil.Process(worker.pid).memory_maps())
    os.killpg(worker.pid, signal.SIGINT)
    events = {line["event"] for line in lines_until(worker, "worker stopped")}
    assert "worker stopped" in events
    assert "engine_process_ended" not in events
    assert worker.wait() == 0
    assert not engine.is_running()


def test_a_worker_that_is_killed_takes_its_engine_along(
    worker: "subprocess.Popen[bytes]",
) -> None:
    lines_until(worker, "engine ready")
    (engine,) = psutil.Process(worker.pid).children()
    worker.kill()
    engine.wait(timeout=60)
    assert not engine.is_running()
