"""Jars are what their digests say, and two starts at once fill the cache once."""

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.cache import cache_root, filled_once
from infra.errors import DigestMismatch, JarsUnavailable
from infra.jars import KAFKA, PINS, Jar, check, kafka_jars, pinned

GOOD = b"a jar"
JAR = Jar("org.example:thing:1.0", len(GOOD), hashlib.sha256(GOOD).hexdigest())


def test_every_pin_is_whole_and_kafka_is_among_them() -> None:
    jars = pinned(PINS)
    assert KAFKA in {jar.coordinate for jar in jars}
    assert len({jar.filename for jar in jars}) == len(jars) > 40
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)


def test_another_digest_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / JAR.filename
    path.write_bytes(GOOD)
    check(path, JAR)
    path.write_bytes(b"another jar")
    with pytest.raises(
        DigestMismatch, match=rf"thing-1\.0\.jar.*expected.*found.*remove {tmp_path}"
    ):
        check(path, JAR)
    with pytest.raises(DigestMismatch, match="no file at all"):
        check(tmp_path / "missing.jar", JAR)


def test_a_jar_changed_in_the_cache_is_noticed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path))
    monkeypatch.setattr("infra.jars._download", _put_good_jar)
    folder = kafka_jars(jars=(JAR,))
    assert kafka_jars(jars=(JAR,)) == folder
    (folder / JAR.filename).write_bytes(b"changed")
    with pytest.raises(DigestMismatch):
        kafka_jars(jars=(JAR,))


def test_a_wrong_download_never_reaches_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path))
    monkeypatch.setattr("infra.jars._Fetch.__call__", _fetch_wrong)
    lines: list[str] = []
    with pytest.raises(DigestMismatch):
        kafka_jars(lines.append, jars=(JAR,))
    assert "1 jars, 0 MB" in lines[0]
    assert [p for p in (tmp_path / "kafka").iterdir() if p.is_dir()] == []


def test_a_cancelled_download_ends_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path))
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(JarsUnavailable, match="cancelled"):
        kafka_jars(jars=(JAR,), cancelled=cancelled)
    assert [p for p in (tmp_path / "kafka").iterdir() if p.is_dir()] == []


def test_the_cache_can_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("TWITE_CACHE")
    assert cache_root().name == "twite"


FILLER = """
import sys, pathlib
from infra.cache import filled_once

def fill(into):
    with open(sys.argv[2], "a") as log:
        log.write("filled\\n")
    print("filling", flush=True)
    sys.stdin.readline()
    (into / "one").write_text("1")
    (into / "two").write_text("2")

print(sorted(p.name for p in filled_once(pathlib.Path(sys.argv[1]), fill).iterdir()), flush=True)
"""


def _filler(target: Path, log: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FILLER, str(target), str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_starts_at_once_fill_a_folder_once(tmp_path: Path) -> None:
    target, log = tmp_path / "cache" / "jars", tmp_path / "log"
    with _filler(target, log) as first, _filler(target, log) as second:
        said = _release(first, second)
    assert said == ["['one', 'two']", "['one', 'two']"]
    assert log.read_text() == "filled\n"


def _release(*fillers: "subprocess.Popen[str]") -> list[str]:
    """Whichever fills waits for a line; the other waits for the lock and needs none."""
    for filler in fillers:
        assert filler.stdin is not None
        filler.stdin.write("go\n")
        filler.stdin.flush()
    said = [filler.communicate(timeout=60)[0].splitlines()[-1] for filler in fillers]
    assert [filler.returncode for filler in fillers] == [0, 0]
    return said


def test_a_killed_start_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    target, log = tmp_path / "cache" / "jars", tmp_path / "log"
    with _filler(target, log) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "filling\n"
        killed.kill()
        killed.communicate()
    assert not target.exists()
    assert any(path.is_dir() for path in target.parent.iterdir())
    filled_once(target, lambda into: None)
    assert [path for path in target.parent.iterdir() if path.is_dir()] == [target]


def test_a_failed_fill_leaves_no_folder(tmp_path: Path) -> None:
    def fail(into: Path) -> None:
        (into / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        filled_once(tmp_path / "jars", fail)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def _put_good_jar(jars: object, into: Path, progress: object, cancelled: object) -> None:
    (into / JAR.filename).write_bytes(GOOD)


def _fetch_wrong(fetch: object, jar: Jar) -> Path:
    repository: Path = fetch.context.repo_cache  # type: ignore[attr-defined]
    repository.mkdir(parents=True)
    path = repository / jar.filename
    path.write_bytes(b"not what was pinned")
    return path
