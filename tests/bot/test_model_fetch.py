"""``twite model fetch`` from a hub that answers as Hugging Face does, on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.model.files import safetensors

pytestmark = pytest.mark.slow  # starts the command several times

COMMIT = "c" * 40
WEIGHTS = safetensors(w=[1000])


class Hub(ThreadingHTTPServer):
    """One repository; ``files`` by name, ``asked``: paths that were asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.asked: list[str] = []
        self.cut: str | None = None  # of this file only the first half arrives


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        name = path.rpartition("/")[2]
        if path.startswith("/org/chat/resolve/") and name in self.server.files:
            self._send(self.server.files[name], body, name)
        elif path.startswith("/api/models/org/chat/tree/"):
            tree = [self._entry(name) for name in self.server.files]
            self._send(json.dumps(tree).encode(), body)
        elif path.startswith("/api/models/org/chat"):
            told = {"id": "org/chat", "sha": COMMIT, "siblings": [
                {"rfilename": name} for name in self.server.files]}  # fmt: skip
            self._send(json.dumps(told).encode(), body)
        else:
            self.send_error(404)

    def _entry(self, name: str) -> dict[str, object]:
        content = self.server.files[name]
        entry: dict[str, object] = {
            "type": "file", "path": name, "size": len(content), "oid": _etag(name, content),
        }  # fmt: skip
        if name.endswith((".safetensors", ".bin")):
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 100}
        return entry

    def _send(self, content: bytes, body: bool, name: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        if name:
            self.send_header("ETag", f'"{_etag(name, content)}"')
        self.end_headers()
        if body:
            half = name and name == self.server.cut
            self.wfile.write(content[: len(content) // 2] if half else content)


def _etag(name: str, content: bytes) -> str:
    if name.endswith((".safetensors", ".bin")):
        return hashlib.sha256(content).hexdigest()
    git = b"blob %d\0" % len(content) + content
    return hashlib.sha1(git).hexdigest()  # noqa: S324 - git's own


@pytest.fixture
def hub() -> Iterator[Hub]:
    config = b'{"architectures": ["LlamaForCausalLM"]}'
    server = Hub({"config.json": config, "model.safetensors": WEIGHTS, "pytorch_model.bin": b"x"})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def twite(hub: Hub, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library reads its address when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TWITE_", "HF_"))}
    env = {
        **kept,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "TWITE_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "bot.cli", "model", *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_model_is_fetched_listed_and_verified(hub: Hub, tmp_path: Path) -> None:
    done = twite(hub, tmp_path, "fetch", "org/chat", "--revision", "main")
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    assert f"org/chat {COMMIT} is ready" in done.stdout.replace("\n", " ")
    assert hashlib.sha256(WEIGHTS).hexdigest() in done.stdout
    assert not any("pytorch_model" in path for path in hub.asked)  # pickles are not even fetched
    hub.asked.clear()
    assert twite(hub, tmp_path, "verify", "org/chat").returncode == 0
    assert "org/chat" in twite(hub, tmp_path, "list").stdout
    assert twite(hub, tmp_path, "fetch", "org/chat").returncode == 0
    assert hub.asked == []  # what is here stays as it is

    blob = tmp_path / "hub/models--org--chat/blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    blob.write_bytes(safetensors(w=[999]))
    told = twite(hub, tmp_path, "verify", "org/chat")
    assert told.returncode == 1
    assert "model.safetensors differs" in told.stderr


def test_a_repository_without_safetensors_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    done = twite(hub, tmp_path, "fetch", "org/chat")
    assert done.returncode == 1
    assert "comes without safetensors" in done.stderr
    assert not any("pytorch_model" in path for path in hub.asked)


def test_a_repository_that_is_not_there_says_so(hub: Hub, tmp_path: Path) -> None:
    done = twite(hub, tmp_path, "fetch", "org/other")
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "HF_TOKEN" in done.stderr


def test_a_download_that_breaks_off_leaves_nothing_that_looks_whole(
    hub: Hub, tmp_path: Path
) -> None:
    hub.cut = "model.safetensors"
    done = twite(hub, tmp_path, "fetch", "org/chat")
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert twite(hub, tmp_path, "verify", "org/chat").returncode == 1
    hub.cut = None
    assert twite(hub, tmp_path, "fetch", "org/chat").returncode == 0
    assert twite(hub, tmp_path, "verify", "org/chat").returncode == 0
