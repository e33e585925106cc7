"""The guard: a small process between us and the JVM that never lets the JVM outlive us.

Run as a script with the standard library only, in a session of its own, so that Ctrl-C
reaches only the owner. Orders come in as JSON lines on stdin, news goes out as JSON lines
on stdout. When stdin ends or the owner is gone, however it died, the guard ends the JVM,
removes the temporary folder and itself. On Linux the JVM in turn dies with the guard.

    orders   {"do": "start", "command": [...], "log": "path"}  {"do": "terminate"}  {"do": "kill"}
    news     {"folder": "path"}  {"started": pid}  {"ended": status}  {"failed": "why"}
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_GRACE = 5.0  # seconds a JVM gets between SIGTERM and SIGKILL once the owner is gone
_PR_SET_PDEATHSIG = 1
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Guard:
    """Owns at most one child process and at most one temporary folder."""

    def __init__(self, owner: int, prefix: str) -> None:
        self.owner = owner
        self.child: subprocess.Popen[bytes] | None = None
        self.folder = tempfile.mkdtemp(prefix=prefix) if prefix else None
        self.signals, self._woken = socket.socketpair()
        self.buffer = b""
        self.done = False

    def run(self) -> None:
        """Until stdin ends, the owner is gone, or a signal asks us to stop."""
        self._listen_to_signals()
        try:
            self._tell(folder=self.folder)
            sources: list[Any] = [0, self.signals, *self._owner_gone()]
            while not self.done:
                self._turn(select.select(sources, [], [])[0])
        finally:
            self._clean_up()

    def _turn(self, ready: list[Any]) -> None:
        if self.signals in ready:
            caught = self.signals.recv(64)
            self.done = any(number in _STOPS for number in caught)
            self._reap()
        if 0 in ready:
            self._read_orders()
        if any(source not in (0, self.signals) for source in ready):
            self.done = True

    def _read_orders(self) -> None:
        read = os.read(0, 65536)
        self.done = self.done or not read
        *lines, self.buffer = (self.buffer + read).split(b"\n")
        for line in lines:
            try:
                self._obey(json.loads(line))
            except (OSError, ValueError) as error:
                self._tell(failed=str(error))

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "start":
            self._start(order["command"], order["log"])
        elif self.child is not None:
            stop = signal.SIGKILL if order["do"] == "kill" else signal.SIGTERM
            self.child.send_signal(stop)

    def _start(self, command: list[str], log: str) -> None:
        with Path(log).open("ab") as out:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with(os.getpid()),
            )
        self._tell(started=self.child.pid)

    def _reap(self) -> None:
        if self.child is not None and self.child.poll() is not None:
            status, self.child = self.child.returncode, None
            self._tell(ended=status)

    def _clean_up(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self._end(self.child)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        """At once where its data goes anyway, else with time to close its files."""
        if self.folder is None:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE)
        child.kill()
        child.wait()

    def _listen_to_signals(self) -> None:
        self.signals.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno())
        for number in (signal.SIGCHLD, *_STOPS):
            signal.signal(number, lambda number, frame: None)

    def _owner_gone(self) -> list[int]:
        """A pidfd of the owner, where there is such a thing: a fork of the owner may still
        hold the other end of our stdin when the owner itself is long dead."""
        watched = []
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an old kernel, or a sandbox
                watched = [os.pidfd_open(self.owner)]
        self.done = os.getppid() != self.owner
        return watched

    def _tell(self, **news: object) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more: stdin tells us the same
            os.write(1, json.dumps(news).encode() + b"\n")


def _die_with(guard: int) -> Any:
    """What the child does before it becomes the JVM; asks Linux to kill it when we die."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    return ask


if __name__ == "__main__":
    Guard(owner=int(sys.argv[1]), prefix=sys.argv[2]).run()
