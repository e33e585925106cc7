"""`make lock`: writes lock.txt with a digest for every package, and the sizes beside it.

For maintainers, after a change of the dependencies in pyproject.toml. uv resolves for all
platforms and for every Python that we support; no index is named in what it writes. The
sizes are those of the machine on which this runs, and `make setup` says `about`.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "infra" / "requirements"
_TIMEOUT = 60  # seconds for one answer of the index
_COMPILE = (
    "--universal",
    "--generate-hashes",
    "--no-header",
    "--no-emit-index-url",
    "--extra=dev",
    "--python-version=3.11",
)
_DRY_RUN = ("--dry-run", "--ignore-installed", "--no-deps", "--require-hashes", "--quiet")


def main() -> None:
    lock()
    sizes = {name: size_of(REQUIREMENTS / f"{name}.txt") for name in ("lock", "model")}
    (REQUIREMENTS / "sizes.json").write_text(json.dumps(sizes, indent=2) + "\n")


def lock() -> None:
    """Resolves pyproject.toml with its dev extra into lock.txt."""
    files = ("--output-file", "infra/requirements/lock.txt", "pyproject.toml")
    _run("uv", "pip", "compile", *_COMPILE, *files)


def size_of(requirements: Path) -> dict[str, int]:
    """Packages, bytes to download and bytes installed, as pip would choose here."""
    chosen = _report(requirements)
    names = {_plain(item["metadata"]["name"]) for item in chosen}
    return {
        "packages": len(chosen),
        "download": sum(_length(item["download_info"]["url"]) for item in chosen),
        "installed": _installed(names),
    }


def _report(requirements: Path) -> list[dict[str, dict[str, str]]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        files = ("--report", str(report), "--requirement", str(requirements))
        _run("pip", "install", *_DRY_RUN, *files)
        found: list[dict[str, dict[str, str]]] = json.loads(report.read_text())["install"]
        return found


def _length(url: str) -> int:
    if url.startswith("file:"):
        return Path(urllib.request.url2pathname(url.removeprefix("file://"))).stat().st_size
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - pip chose it
    with contextlib.closing(urllib.request.urlopen(request, timeout=_TIMEOUT)) as answer:  # noqa: S310
        return int(answer.headers["Content-Length"])


def _installed(names: set[str]) -> int:
    files = (
        file.locate()
        for found in distributions()
        if _plain(found.metadata["Name"]) in names
        for file in found.files or ()
    )
    return sum(Path(str(path)).stat().st_size for path in files if Path(str(path)).is_file())


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _run(*arguments: str) -> None:
    command = [sys.executable, "-m", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
