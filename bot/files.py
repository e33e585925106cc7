"""Reading and writing files that somebody names, so that no such name stops a process.

In: a path. Out: its bytes, as many as are wanted. Only regular files are read: a pipe can keep
its reader waiting for ever, and a device never ends. What is written is there whole or not at
all. Next: ``bot/limits_file.py``, ``bot/templates.py``, ``bot/cli/prompts.py``,
``bot/cli/explain.py``.
"""

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

NO_FILE = "Is not a regular file"
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def read_regular(path: Path, most: int) -> bytes:
    """At most ``most`` bytes from the start of a file. Raises ``OSError``, also for what is no
    regular file."""
    with open_regular(path) as opened:
        return opened.read(most)


def open_regular(path: Path) -> BinaryIO:
    """A regular file to read. Raises ``OSError``."""
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL in the path
        raise OSError(errno.EINVAL, NO_FILE) from None
    _require_regular(mode)  # opening a device may already do something
    opened = os.fdopen(os.open(path, _FLAGS), "rb")
    try:
        _require_regular(os.fstat(opened.fileno()).st_mode)  # another one may be there by now
    except OSError:
        opened.close()
        raise
    return opened


def write_whole(path: Path, data: bytes, *, private: bool) -> None:
    """A file in place of the one before, if any. ``private``: for its owner's eyes alone, from
    the first byte on. Raises ``OSError``."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".twite-")
    written = Path(name)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
        written.chmod(0o600 if private else 0o644)
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, NO_FILE)
