"""The version on every decision: package and commit, read without running git."""

from pathlib import Path

import pytest

from bot.version import code_version

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    code_version.cache_clear()


def git(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / ".git" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_without_git_it_is_the_package_alone(tmp_path: Path) -> None:
    assert "+g" not in code_version(tmp_path)


def test_a_branch_is_followed_to_its_commit(tmp_path: Path) -> None:
    root = git(tmp_path, HEAD="ref: refs/heads/main\n", refs__heads__main=f"{COMMIT}\n")
    assert code_version(root).endswith("+g0123456789ab")


def test_a_packed_branch_is_found(tmp_path: Path) -> None:
    root = git(tmp_path, HEAD="ref: refs/heads/main\n")
    (root / ".git" / "packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    assert code_version(root).endswith("+g0123456789ab")


def test_a_detached_head_is_the_commit_itself(tmp_path: Path) -> None:
    assert code_version(git(tmp_path, HEAD=COMMIT)).endswith("+g0123456789ab")


def test_a_worktree_points_to_its_repository(tmp_path: Path) -> None:
    main = git(tmp_path / "main", refs__heads__side=COMMIT)
    inner = main / ".git" / "worktrees" / "side"
    inner.mkdir(parents=True)
    (inner / "HEAD").write_text("ref: refs/heads/side\n")
    (inner / "commondir").write_text("../..\n")
    side = tmp_path / "side"
    side.mkdir()
    (side / ".git").write_text(f"gitdir: {inner}\n")
    assert code_version(side).endswith("+g0123456789ab")
