"""Real model servers as processes that end with the test."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from infra.ports import free_port
from model.threads import ENVIRONMENT
from model.weights import find_gguf, resolve
from tests.model.openai.servers.install import HERE, server_python

_START_S = 120.0


class ServerProcess:
    """``address`` is where it answers. Its own output goes to ``log``."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log.open("wb")
        environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            if pipe:
                pipe.close()

    def wait_for_port_line(self) -> None:
        """It prints ``port N`` when it is ready."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"port "):
                self.port = int(line.split()[1])
                return
        raise AssertionError(f"the server ended; see {self._log.name}")

    def wait_for_health(self) -> None:
        """Until ``/health`` answers 200."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()  # noqa: S310
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"the server does not come up; see {self._log.name}")


def llama(folder: Path, slots: int = 2) -> ServerProcess:
    """llama.cpp with the default model's GGUF. Raises ``ServerMissing``."""
    python = server_python("llama")
    command = [str(python), str(HERE / "llama.py"), str(find_gguf()), str(slots)]
    server = ServerProcess(command, folder / "llama.log")
    server.wait_for_port_line()
    return server


def transformers_serve(folder: Path) -> ServerProcess:
    """``transformers serve`` with the default model. Raises ``ServerMissing``."""
    python, model, port = server_python("serve", with_ours=True), resolve().path, free_port()
    command = [str(python), str(HERE / "serve.py"), str(model), str(port)]
    server = ServerProcess(command, folder / "serve.log")
    server.port = port
    server.wait_for_health()
    return server
