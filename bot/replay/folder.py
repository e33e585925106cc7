"""What a replay keeps on disk, so that it can go on where it was interrupted.

In: the command as a plain value (``spec``), its plan, and results as they come. Out: a folder
named by the replay's id, for its owner alone, with ``replay.json`` (the spec, when it began),
``plan.jsonl`` and ``results.jsonl``, until its results were shown. Guaranteed: two replays never
share a folder, and one is worked on by one process at a time (a lock); a line that was torn by a
crash is taken back and made again; a plan is whole or not there. Next: ``bot/replay/report.py``
reads the results.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from bot.errors import Trouble
from bot.replay.plan import Plan, Planned
from schemas.replays import ReplayCompared

ABOUT, PLAN, RESULTS, LOCK = "replay.json", "plan.jsonl", "results.jsonl", "lock"


class Folder:
    """One replay's folder, locked. Made by ``begin`` and ``resume``; ``close`` it."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._done = _repaired(path / RESULTS)
        self._results = (path / RESULTS).open("ab")

    @classmethod
    def begin(cls, root: Path, spec: Mapping[str, Any], now: datetime) -> Self:
        """A new one. Raises ``Trouble`` where the folder can't be made."""
        name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        path = root / name
        try:
            root.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
            lock = _locked(path)
            about = {
                "id": name,
                "digest": digest_of(spec),
                "spec": dict(spec),
                "began_at": now.isoformat(),
            }
            _write(path / ABOUT, json.dumps(about, indent=1))
        except OSError as error:
            raise _trouble(path, error) from error
        return cls(path, lock)

    @classmethod
    def resume(cls, root: Path, spec: Mapping[str, Any]) -> Self:
        """The newest one of the same command that was not removed. Raises ``Trouble`` where there
        is none, and where another process works on it."""
        for path in sorted((p for p in root.glob("*-*-*") if p.is_dir()), reverse=True):
            if _about(path).get("digest") == digest_of(spec):
                return cls(path, _locked(path))
        raise Trouble(
            "no replay of this command was interrupted.",
            where=str(root),
            todo="Resume with the very same options, settings and prompts, or begin anew without"
            " --resume.",
        )

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def done(self) -> frozenset[str]:
        """Decisions that have a result."""
        return frozenset(self._done)

    def plan(self) -> Plan | None:
        """The plan, where it was kept."""
        file = self.path / PLAN
        if not file.is_file():
            return None
        lines = file.read_text().splitlines()
        unread = json.loads(lines[0])["unread"]
        return Plan([Planned.from_json(json.loads(line)) for line in lines[1:]], unread)

    def keep_plan(self, plan: Plan) -> None:
        """From now on this is what the replay is about."""
        lines = [json.dumps({"unread": plan.unread})]
        lines += [json.dumps(entry.to_json()) for entry in plan.entries]
        _write(self.path / PLAN, "\n".join(lines))

    def keep(self, results: Sequence[ReplayCompared]) -> None:
        """A line for each; they are on the disk when this returns."""
        for result in results:
            self._results.write(result.model_dump_json().encode() + b"\n")
            self._done.add(key_of(result.decision_id, result.decision))
        self._results.flush()
        os.fsync(self._results.fileno())

    def results(self) -> Iterator[ReplayCompared]:
        """All there are, in the order they came."""
        with (self.path / RESULTS).open("rb") as lines:
            for line in lines:
                yield ReplayCompared.model_validate_json(line)

    def close(self) -> None:
        """Lets others go on with it."""
        self._results.close()
        self._lock.release()

    def remove(self) -> None:
        """Nothing is left of it: its results were shown."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)


def key_of(decision_id: str, at: str | None) -> str:
    """What tells results apart: an id may stand on more than one record, where one was forged."""
    return f"{decision_id} {at}"


def digest_of(spec: Mapping[str, Any]) -> str:
    """Of the command: the same words, settings and prompts give the same."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def utc_now() -> datetime:
    return datetime.now(UTC)


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Trouble(
            "another process works on this replay.",
            where=str(path),
            todo="Let it end, or begin another one without --resume.",
        ) from None
    return lock


def _repaired(file: Path) -> set[str]:
    """The decisions that have a whole line; what was torn is cut off."""
    done: set[str] = set()
    if not file.is_file():
        return done
    whole = 0
    with file.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") or (key := _key(line)) is None:
                break
            done.add(key)
            whole += len(line)
    os.truncate(file, whole)
    return done


def _key(line: bytes) -> str | None:
    try:
        value = json.loads(line)
        return key_of(value["decision_id"], value["decision"])
    except (ValueError, KeyError, TypeError):
        return None


def _about(path: Path) -> dict[str, Any]:
    try:
        value = json.loads((path / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(file: Path, text: str) -> None:
    """All of it or nothing."""
    new = file.with_suffix(".new")
    with new.open("w") as opened:
        opened.write(text + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def _trouble(path: Path, error: OSError) -> Trouble:
    return Trouble(
        f"the folder of a replay can't be made: {error.strerror or error}.",
        where=str(path),
        todo="Name another one with --state.",
    )
