"""`make setup`: what it says, what it skips, and that no index is named in what it reads."""

import json
import re
import sys
from pathlib import Path

import pytest

from infra.setup import (
    REQUIREMENTS,
    ROOT,
    SetupFailed,
    check_interpreter,
    human,
    is_done,
    main,
    make_environment,
    mark_done,
    progress_line,
    stages,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with nothing but what setup reads."""
    folder = tmp_path / REQUIREMENTS
    folder.mkdir(parents=True)
    for name in ("lock.txt", "model.txt"):
        (folder / name).write_text(f"# {name}\n")
    size = {"packages": 3, "download": 2_900_000_000, "installed": 4_700_000_000}
    (folder / "sizes.json").write_text(json.dumps({"lock": size, "model": size}))
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


@pytest.fixture
def environment(project: Path) -> Path:
    """A .venv in it whose Python works."""
    folder = project / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    return project


def test_stages_say_what_they_download_and_what_it_takes_on_the_disk(project: Path) -> None:
    titles = [stage.title for stage in stages(project)]
    assert titles[0] == "installing 3 packages: downloading about 2.9 GB (installed: 4.7 GB)"
    assert "the default model: downloading about 2.9 GB" in titles[1]
    assert "Twite itself" in titles[2]


@pytest.mark.parametrize(
    ("size", "said"), [(92_871_040, "93 MB"), (2_940_000_000, "2.9 GB"), (10, "1 MB")]
)
def test_sizes_are_for_people(size: int, said: str) -> None:
    assert human(size) == said


def test_a_changed_lock_is_installed_again_and_nothing_else(project: Path) -> None:
    for stage in stages(project):
        assert not is_done(stage, project)
        mark_done(stage, project)
    assert all(is_done(stage, project) for stage in stages(project))
    (project / REQUIREMENTS / "lock.txt").write_text("# another\n")
    assert [stage.name for stage in stages(project) if not is_done(stage, project)] == ["lock"]


def test_a_second_run_installs_nothing_and_says_so(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(
        "infra.setup.install", lambda python, stage, root, say: installed.append(stage.name)
    )
    first: list[str] = []
    main(environment, first.append)
    assert installed == ["lock", "model", "twite"]
    assert first[0].startswith("[1/3] installing 3 packages")
    assert "setup done" in first[-1]
    assert first[-1].endswith(".venv/bin/twite is ready (or: . .venv/bin/activate)")
    second: list[str] = []
    main(environment, second.append)
    assert installed == ["lock", "model", "twite"]
    assert second == ["already up to date: .venv/bin/twite"]


def test_a_failed_install_shows_pips_words_and_leaves_no_stamp(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / REQUIREMENTS / "lock.txt").write_text("no such requirement !\n")
    with pytest.raises(SetupFailed, match=r"(?s)no such requirement.*Check the network"):
        main(environment, lambda line: None)
    assert not (environment / ".venv" / ".made-from").exists()


def test_a_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    with pytest.raises(SetupFailed, match=rf"3\.11 or newer; {sys.executable} is 3\.10"):
        check_interpreter()


def test_a_python_without_venv_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SetupFailed, match=r"has no ensurepip.*apt-get install python3\.\d+-venv"):
        make_environment(project, lambda line: None)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "  Downloading torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl (888.1 MB)\n",
            "      downloading torch (888.1 MB)",
        ),
        ("Downloading big-1.0-py3-none-any.whl (1.2 GB)", "      downloading big (1.2 GB)"),
        ("Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)", None),
        ("Requirement already satisfied: six", None),
        ("Installing collected packages: six, torch", "      unpacking"),
    ],
)
def test_of_pips_output_only_the_big_things_are_told(line: str, told: str | None) -> None:
    assert progress_line(line) == told


def test_every_requirement_has_digests_and_no_address() -> None:
    for name in ("lock.txt", "model.txt"):
        text = (ROOT / REQUIREMENTS / name).read_text()
        requirements = re.findall(r"^[a-z0-9][^\s=]*==", text, re.MULTILINE)
        assert requirements
        assert len(re.findall(r"\\\n(?: {4}#[^\n]*\n)* {4}--hash=sha256:", text)) >= len(
            requirements
        )
        assert "://" not in text
        assert "--index" not in text
    assert "://" not in (ROOT / REQUIREMENTS / "sizes.json").read_text()
