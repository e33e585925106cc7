"""Where values come from, and how mistakes are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bot.config import SettingsError, as_environment, load
from bot.settings import known_fields

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "twite.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TWITE_CONFIG", raising=False)
    for known in known_fields():
        monkeypatch.delenv(known.variable, raising=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)


def problems(path: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path)
    return [str(problem) for problem in caught.value.problems]


def test_defaults_need_nothing() -> None:
    loaded = load()
    assert loaded.settings.kafka.bootstrap_servers == "localhost:9092"
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.file is None


def test_environment_wins_over_the_file_and_the_command_line_over_both(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('[kafka]\ngroup_id = "file"\npartitions = 2\n[bot]\nhandle = "bird"\n')
    monkeypatch.setenv("TWITE_KAFKA__GROUP_ID", "variable")
    monkeypatch.setenv("TWITE_KAFKA__PARTITIONS", "3")
    loaded = load(path, {"kafka": {"partitions": 5}})
    assert loaded.settings.kafka.group_id == "variable"
    assert loaded.settings.kafka.partitions == 5
    assert loaded.settings.bot.handle == "bird"
    assert loaded.origins["kafka.group_id"] == "TWITE_KAFKA__GROUP_ID"
    assert loaded.origins["kafka.partitions"] == "command line"
    assert loaded.origins["bot.handle"] == str(path)
    assert loaded.origins["bot.hop_limit"] == "default"


def test_deep_variables_reach_their_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_MODEL__ECHO__LATENCY_MS", "250")
    assert load().settings.model.echo.latency_ms == 250


def test_the_file_is_found_in_the_folder_or_by_its_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('[bot]\nhandle = "named"\n')
    monkeypatch.setenv("TWITE_CONFIG", str(path))
    assert load().settings.bot.handle == "named"
    monkeypatch.delenv("TWITE_CONFIG")
    monkeypatch.chdir(path.parent)
    assert load().settings.bot.handle == "named"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[kafka]\ngroup_idd = "a"', "Did you mean kafka.group_id?"),
        ("[echo]\nlatency_ms = 5", "Did you mean model.echo.latency_ms?"),
        ("nonsense = 1", "`twite config show` lists what can be set."),
        ("model = 3", "Write it as a table: [model]."),
    ],
)
def test_an_unknown_key_is_an_error_with_a_hint(write: Write, text: str, expected: str) -> None:
    (problem,) = problems(write(text))
    assert expected in problem


def test_every_problem_is_told_at_once_with_its_place(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[bot]\nhandle = 3\n[worker]\nmax_in_flight = 0\n")
    monkeypatch.setenv("TWITE_KAFKA__PARTITIONS", "many")
    found = problems(path)
    assert len(found) == 3
    assert found[0].startswith("TWITE_KAFKA__PARTITIONS: kafka.partitions: ")
    assert found[1].startswith(f"{path}: bot.handle: ")
    assert "Most records being answered at once" in found[2]


def test_unknown_keys_and_wrong_values_are_told_together(write: Write) -> None:
    path = write("nonsense = 1\nmodel = 3\n[kafka]\npartitions = 0\n[bot]\nhandle = '@owl'\n")
    found = problems(path)
    assert len(found) == 4
    assert "unknown setting nonsense" in found[0]
    assert "Write it as a table: [model]." in found[1]
    assert "kafka.partitions" in found[2]
    assert "bot.handle: must be written without the @" in found[3]


def test_a_variable_for_a_group_that_is_no_json_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_MODEL", "echo")
    (problem,) = problems()
    assert problem.startswith("TWITE_MODEL: stands for a whole group and is not a JSON object.")


def test_messages_have_no_marks_of_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", "localhost")
    (problem,) = problems()
    assert "``" not in problem
    assert "host:port" in problem


def test_a_problem_never_repeats_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_KAFKA__PARTITIONS", "hunter2")
    assert "hunter2" not in " ".join(problems())


def test_a_broken_or_missing_file_is_named(write: Write, tmp_path: Path) -> None:
    assert "not valid TOML" in problems(write("[kafka"))[0]
    assert "nowhere.toml: No such file" in problems(tmp_path / "nowhere.toml")[0]


def test_unknown_variables_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_KAFKA__GROUPID", "x")
    (warning,) = load().warnings
    assert "TWITE_KAFKA__GROUPID" in warning
    assert "Did you mean TWITE_KAFKA__GROUP_ID?" in warning


def test_variables_of_other_programs_are_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP__PORT", "VIEWS__DIRECTORY", "LIMITS__ENABLED", "CACHE"):
        monkeypatch.setenv(f"TWITE_{name}", "1")
    assert load().warnings == ()


def test_as_environment_gives_another_process_the_same_settings(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        '[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_username = "u"\nsasl_password = "secret"\n'
        '[model.echo]\nlatency_ms = 12.5\n[model.adapters]\npolite = "/srv/polite"\n'
    )
    first = load(path).settings
    for name, value in as_environment(first).items():
        monkeypatch.setenv(name, value)
    second = load().settings
    assert second.model_dump() == first.model_dump()
    assert second.kafka.sasl_password == first.kafka.sasl_password
