"""Venvs of the peers, in the user's cache: made once per set of pinned requirements.

A peer that can't be had raises ``PeerMissing`` with the reason, and P2 says so in its table.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.cache import cache_root, filled_once

HERE = Path(__file__).parent
RESTATE_SERVER = "1.7.12"
_INSTALL_S = 300.0


class PeerMissing(Exception):
    """A framework that could not be installed here, and why."""


def peer_python(name: str) -> Path:
    """The Python of the venv with ``requirements-<name>.txt``. Raises ``PeerMissing``."""
    wanted = HERE / f"requirements-{name}.txt"
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]

    def fill(folder: Path) -> None:
        python = folder / "bin" / "python"
        _run(sys.executable, "-m", "venv", "--copies", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted))

    return filled_once(cache_root() / "peers" / f"{name}-{digest}", fill) / "bin" / "python"


def restate_server() -> Path:
    """Restate's server, whose binary an npm package carries. Raises ``PeerMissing``."""
    machine = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system())
    if machine is None or system is None:
        raise PeerMissing(f"no server for {platform.system()} on {platform.machine()}")
    if shutil.which("npm") is None:
        raise PeerMissing("its server comes through npm, which is not installed here")
    package = f"@restatedev/restate-server-{system}-{machine}@{RESTATE_SERVER}"

    def fill(folder: Path) -> None:
        _run("npm", "pack", "--silent", "--pack-destination", str(folder), package)
        (packed,) = folder.glob("*.tgz")
        _run("tar", "xzf", str(packed), "-C", str(folder))
        packed.unlink()

    folder = filled_once(cache_root() / "peers" / f"restate-server-{RESTATE_SERVER}", fill)
    return folder / "package" / "bin" / "restate-server"


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.CalledProcessError as error:
        raise PeerMissing(_last_line(command, error.stderr)) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{command[0]}: {error}") from error


def _last_line(command: Sequence[str], text: str) -> str:
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return f"{Path(command[0]).name} failed: {lines[-1] if lines else 'it did not say why'}"
