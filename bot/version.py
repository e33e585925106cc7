"""Which code this is: goes on every decision record."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def code_version(root: Path = ROOT) -> str:
    """The package's version, and the commit where the code runs from a git checkout."""
    try:
        number = version("twite")
    except PackageNotFoundError:
        number = "0+uninstalled"
    commit = _commit(root / ".git")
    return f"{number}+g{commit[:12]}" if commit else number


def _commit(git: Path) -> str:
    """The commit of HEAD, read from the files of git: no program is run. Empty: unknown."""
    try:
        if git.is_file():  # a worktree: the file says where its real folder is
            git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        if common.is_file():
            git = (git / common.read_text().strip()).resolve()
        return _ref(git, name)
    except OSError:
        return ""


def _ref(git: Path, name: str) -> str:
    loose = git / name
    if loose.is_file():
        return loose.read_text().strip()
    packed = git / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return ""
