"""The jars of Apache Kafka: which ones, downloaded once, checked at every start.

``kafka-jars.json`` pins each jar with its size and sha256. ``jgo`` resolves that list
when it is made (``python -m infra.jars pin``) and fetches the jars of it later, one Maven
coordinate at a time, so what runs never depends on what a repository says today.
The folder of checked jars goes to ``infra.broker``.
"""

import contextlib
import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.cache import cache_root, filled_once
from infra.errors import DigestMismatch, JarsUnavailable

KAFKA_VERSION = "4.4.0"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"  # without it Kafka logs nothing
PINS = Path(__file__).with_name("kafka-jars.json")

Progress = Callable[[str], object]  # one line for people per stage
_ATTEMPTS = 3
_AT_ONCE = 6
_TIMEOUT = 60  # seconds without an answer
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar: its Maven coordinate ``group:artifact:version``, bytes and sha256 in hex."""

    coordinate: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def pinned(pins: Path = PINS) -> tuple[Jar, ...]:
    """The committed list of jars."""
    return tuple(Jar(**entry) for entry in json.loads(pins.read_text()))


def kafka_jars(
    progress: Progress = lambda line: None,
    *,
    jars: tuple[Jar, ...] | None = None,
    cancelled: threading.Event | None = None,
) -> Path:
    """The folder of Kafka's jars, every digest checked.

    Raises ``JarsUnavailable`` or ``DigestMismatch``. ``cancelled`` ends a download early.
    """
    wanted = pinned() if jars is None else jars
    stop = cancelled or threading.Event()
    folder = filled_once(_folder(wanted), lambda into: _download(wanted, into, progress, stop))
    for jar in wanted:
        check(folder / jar.filename, jar)
    return folder


def check(path: Path, jar: Jar) -> None:
    """Raises ``DigestMismatch`` unless ``path`` is that very jar."""
    found = _sha256(path) if path.is_file() else "no file at all"
    if found != jar.sha256:
        raise DigestMismatch(
            f"{path.name} is not the jar that is pinned here: expected sha256 {jar.sha256}, "
            f"found {found}, at {path}. If the cache is damaged, remove {path.parent} and start "
            "again; if a fresh download says this too, do not use that repository."
        )


def _folder(jars: tuple[Jar, ...]) -> Path:
    """Named by what is in it, so checkouts with other pins do not disturb each other."""
    digest = hashlib.sha256("".join(jar.sha256 for jar in jars).encode()).hexdigest()
    return cache_root() / "kafka" / f"{KAFKA_VERSION}-{digest[:12]}"


def _download(
    jars: tuple[Jar, ...], into: Path, progress: Progress, cancelled: threading.Event
) -> None:
    size = sum(jar.size for jar in jars) / _MEGABYTE
    progress(f"downloading Apache Kafka {KAFKA_VERSION}: {len(jars)} jars, {size:.0f} MB")
    fetch = _Fetch(into / "repository", cancelled)
    try:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="kafka-jars") as pool:
            for jar, path in zip(jars, pool.map(fetch, jars), strict=True):
                check(path, jar)
                path.rename(into / jar.filename)
    except BaseException:
        cancelled.set()
        raise
    shutil.rmtree(into / "repository")
    progress(f"downloaded Apache Kafka {KAFKA_VERSION}, digests checked")


class _Fetch:
    """Downloads one jar into a Maven repository of our own; three tries."""

    def __init__(self, repository: Path, cancelled: threading.Event) -> None:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext, PythonResolver

        self.cancelled = cancelled
        mirrors = GlobalSettings.load().repositories  # a user behind a mirror sets it there
        self.context = MavenContext(
            resolver=PythonResolver(progress_callback=self._counted),
            repo_cache=repository,
            remote_repos={**mirrors, "central": MAVEN_CENTRAL_URL},
            timeout=_TIMEOUT,
        )

    def __call__(self, jar: Jar) -> Path:
        group, artifact, version = jar.coordinate.split(":")
        wanted = self.context.project(group, artifact).at_version(version).artifact()
        trouble: Exception | None = None
        for _ in range(_ATTEMPTS):
            if self.cancelled.is_set():
                break
            try:
                return Path(wanted.resolve())
            except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                trouble = error
                if wanted.cached_path is not None:
                    wanted.cached_path.unlink(missing_ok=True)
        raise JarsUnavailable(
            f"could not download {jar.coordinate}: {trouble or 'cancelled'}. Apache Kafka comes "
            "from Maven Central; check the network (behind a mirror: [repositories] in "
            "~/.config/jgo.conf), or give the address of a Kafka that already runs."
        )

    @contextlib.contextmanager
    def _counted(self, filename: str, size: int) -> Iterator[Callable[[int], None]]:
        """jgo tells us of every chunk: the place where a cancelled download ends."""

        def chunk(count: int) -> None:
            if self.cancelled.is_set():
                raise RuntimeError("cancelled")

        yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pin() -> None:
    """Resolves anew and writes the list; for maintainers, after a change of version."""
    import jgo

    # Apart: together, log4j's own version table would pull other versions of Kafka's jars.
    artifacts = [*jgo.resolve(KAFKA), jgo.resolve(LOGGING)[0]]
    jars = [
        Jar(f"{a.groupId}:{a.artifactId}:{a.version}", path.stat().st_size, _sha256(path))
        for a in artifacts
        for path in [a.resolve()]
    ]
    lines = ",\n".join(json.dumps(asdict(jar)) for jar in sorted(jars, key=lambda j: j.coordinate))
    PINS.write_text(f"[\n{lines}\n]\n")


def _main(arguments: list[str]) -> None:
    if arguments == ["pin"]:
        _pin()
    elif arguments == ["folder"]:
        folder = kafka_jars(lambda line: sys.stderr.write(line + "\n"))
        sys.stdout.write(f"{folder}\n")
    else:
        sys.exit("usage: python -m infra.jars folder|pin")


if __name__ == "__main__":
    _main(sys.argv[1:])
