"""``bot.files``: only regular files are read."""

import os
from pathlib import Path

import pytest

from bot.files import NO_FILE, open_regular, read_regular


def test_a_file_is_read_as_far_as_is_wanted(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"abcdef")
    link.symlink_to(file)
    assert read_regular(file, 100) == b"abcdef"
    assert read_regular(link, 3) == b"abc"


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(OSError, match=NO_FILE):
            read_regular(path, 10)
    with pytest.raises(IsADirectoryError, match="directory"):
        read_regular(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nowhere", 10)


def test_a_pipe_that_comes_in_between_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_bytes(b"a")
    before = file.stat()
    monkeypatch.setattr(Path, "stat", lambda _: before)
    with pytest.raises(OSError, match=NO_FILE):
        open_regular(pipe)
