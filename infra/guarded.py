"""The owner's end of the guard (see ``infra.guard``): start, kill and end one process.

Plain blocking calls and one reader thread, so that it belongs to no event loop: a broker
started in one loop (a fixture of the whole test session) is used and stopped in others.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from infra.errors import BrokerFailed

_GUARD = Path(__file__).with_name("guard.py")
_PATIENCE = 15.0  # seconds for the guard to do what it is told


class GuardedProcess:
    """A process that dies with us. ``prefix`` asks for a temporary folder that does, too."""

    def __init__(self, prefix: str = "") -> None:
        self.pid: int | None = None
        self.status: int | None = None
        self.folder: Path | None = None
        self._opened = False
        self._failed: str | None = None
        self._news = threading.Condition()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        news = self._guard.stdout
        threading.Thread(target=self._listen, args=(news,), name="guard-news", daemon=True).start()
        self._wait(lambda: self._opened, "open")

    @property
    def running(self) -> bool:
        return self.pid is not None and self.status is None

    def start(self, command: Sequence[str], log: Path) -> None:
        """Runs ``command``, its output appended to ``log``. Raises ``BrokerFailed``."""
        self.pid, self.status, self._failed = None, None, None
        self._order(do="start", command=list(command), log=str(log))
        self._wait(lambda: self.pid is not None, "start")

    def wait(self, seconds: float) -> bool:
        """Whether the process ended within that time."""
        with self._news:
            return self._news.wait_for(lambda: not self.running, seconds)

    def terminate(self, grace: float) -> None:
        """SIGTERM, and after ``grace`` seconds SIGKILL."""
        if self.running:
            self._order(do="terminate")
            if not self.wait(grace):
                self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if self.running:
            self._order(do="kill")
            self._wait(lambda: not self.running, "kill")

    def close(self) -> None:
        """Ends the process and the guard and removes the temporary folder."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
        try:
            self._guard.wait(_PATIENCE)
        except subprocess.TimeoutExpired:  # on Linux the process dies with it
            self._guard.kill()
            self._guard.wait()
        if self.folder is not None:  # in case somebody killed the guard
            shutil.rmtree(self.folder, ignore_errors=True)

    def _order(self, **order: Any) -> None:
        pipe = self._guard.stdin
        if pipe is None or pipe.closed:
            raise BrokerFailed("the broker's guard was closed; make a new broker")
        try:
            pipe.write(json.dumps(order).encode() + b"\n")
            pipe.flush()
        except OSError as error:
            raise BrokerFailed(f"the broker's guard is gone ({error}), and so is the broker") from (
                error
            )

    def _listen(self, news: IO[bytes]) -> None:
        with news:
            for line in news:
                with self._news:
                    self._note(json.loads(line))
                    self._news.notify_all()
        with self._news:
            self._failed = "the guard ended"
            self.status = -9 if self.status is None else self.status
            self._news.notify_all()

    def _note(self, news: dict[str, Any]) -> None:
        if "folder" in news:
            self._opened = True
            self.folder = Path(news["folder"]) if news["folder"] else None
        if "started" in news:
            self.pid = news["started"]
        if "ended" in news:
            self.status = news["ended"]
        if "failed" in news:
            self._failed = news["failed"]

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        with self._news:
            self._news.wait_for(lambda: reached() or self._failed is not None, _PATIENCE)
            if not reached():
                why = self._failed or f"no answer within {_PATIENCE:.0f} s"
                raise BrokerFailed(f"could not {what} the local Kafka: {why}")
