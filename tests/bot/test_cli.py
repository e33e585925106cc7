"""The command line without a broker: help, errors, statuses, what is printed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from aiokafka.errors import KafkaConnectionError
from typer.testing import CliRunner

from bot import cli
from bot.cli import app, console, moderate, topics
from bot.errors import Trouble
from bot.moderation import Given
from bot.observe import Outcome
from bot.settings import known_fields
from schemas.audit import RuleVerdict
from schemas.codes import Outcome as Kind
from schemas.control import ModerationCommanded
from tests.bot.outcomes import INPUT, decision

NOBODY = "localhost:1"  # no broker listens there


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TWITE_CONFIG", raising=False)
    for known in known_fields():
        monkeypatch.delenv(known.variable, raising=False)
    monkeypatch.setattr(console.out, "_width", 200)
    monkeypatch.chdir(tmp_path)


def run(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """As the shell would: the exit status of ``twite``."""
    monkeypatch.setattr(sys, "argv", ["twite", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "command",
    [
        "worker",
        "demo",
        "broker",
        "mention",
        "dm",
        "topics create",
        "topics describe",
        "schemas export",
        "config show",
        "config check",
        "explain",
        "evidence keygen",
        "evidence export",
        "evidence verify",
        "dead-letters list",
        "dead-letters show",
        "dead-letters redrive",
        "views show",
        "views verify",
        "views rebuild",
        "prompts list",
        "prompts show",
        "prompts diff",
        "prompts render",
    ],
)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_names_every_command_and_what_to_try_first() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for word in ("demo", "worker", "broker", "mention", "dm", "topics", "schemas", "config"):
        assert f" {word} " in output
    assert "twite demo" in output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['twite', '--help']\n"
        "from bot.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'aiokafka', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "sys.stderr.write(','.join(sorted(heavy)))\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=root, check=True)
    assert ended.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["redrive"], "nothing says which dead letters"),
        (["redrive", "--all", "--code", "schema"], "--all goes alone"),
        (["redrive", "here"], "is no place"),
        (["list", "--topic", "mine"], "Say public, private or all"),
        (["list", "--since", "tomorrow"], "is no time"),
    ],
)
def test_a_wrong_call_of_dead_letters_is_told(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["dead-letters", *arguments], monkeypatch) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_visibility_is_told_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["mention", "hi", "--visibility", "nobody"], monkeypatch) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "'nobody' is none of public, unlisted, followers, direct." in said
    assert "Value error" not in said


def test_log_lines_stay_out_of_what_a_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> int:
        structlog.get_logger("consumers.views").info("view built anew")
        structlog.get_logger("consumers.views").warning("the broker is away")
        return 7

    assert console.run(work()) == 7
    said = capsys.readouterr()
    assert said.out == ""
    assert "the broker is away" in said.err
    assert "view built anew" not in said.err
    assert not structlog.is_configured()


@pytest.mark.parametrize(
    ("created", "there", "said"),
    [
        (16, 0, "16 created"),
        (2, 14, "2 created, 14 were there"),
        (0, 16, "nothing to create: all 16 are there"),
    ],
)
def test_what_was_created_is_told(created: int, there: int, said: str) -> None:
    assert topics._told(created, there) == said


def test_config_show_tells_value_and_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "twite.toml").write_text('[kafka]\ngroup_id = "birds"\nsasl_password = "hunter2"\n')
    monkeypatch.setenv("TWITE_MODEL__ENGINE", "echo")
    result = CliRunner().invoke(app, ["config", "show", "--json"])
    rows = json.loads(result.output)
    assert rows["kafka.group_id"]["value"] == "birds"
    assert rows["kafka.group_id"]["origin"] == "twite.toml"
    assert rows["model.engine"]["origin"] == "TWITE_MODEL__ENGINE"
    assert rows["bot.handle"]["origin"] == "default"
    assert rows["kafka.sasl_password"]["value"] == "(set)"
    assert all(row["meaning"] for row in rows.values())


def test_the_table_of_settings_hides_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITE_KAFKA__SASL_PASSWORD", "hunter2")
    assert run(["config", "show"], monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "kafka.sasl_password" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "command",
    [
        ["mention", "hello"],
        ["dm", "hello"],
        ["topics", "create"],
        ["topics", "describe"],
        ["dead-letters", "list"],
        ["dead-letters", "show", "feed.mentions/0/1"],
        ["dead-letters", "redrive", "--all", "--yes"],
    ],
)
def test_without_a_broker_one_line_says_what_to_do(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    assert run(command, monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"No Kafka broker answers at {NOBODY}. " in said
    assert "twite broker" in said
    assert "TWITE_KAFKA__BOOTSTRAP_SERVERS" in said


def test_both_rooms_tell_a_missing_broker_in_the_same_words() -> None:
    from consumers.errors import BrokerUnreachable
    from infra.errors import BrokerUnreachable as ForTopics

    assert str(BrokerUnreachable(NOBODY)) == str(ForTopics(NOBODY))
    cause = ValueError("why")
    assert str(BrokerUnreachable(NOBODY, cause)) == str(ForTopics(NOBODY, cause))
    refused = KafkaConnectionError("Unable to bootstrap from [('localhost', 1)]")
    for error in (BrokerUnreachable, ForTopics):
        assert str(error(NOBODY, refused)) == str(error(NOBODY))
        assert "(ValueError: why)" in str(error(NOBODY, cause))


def test_a_host_that_is_not_known_is_told_beside_the_missing_broker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bot.hosts.unresolved", lambda address: ["kafak"])
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    assert run(["dead-letters", "list"], monkeypatch) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "error: kafak is no host name that can be resolved here."


def test_config_check_shows_red_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    monkeypatch.setenv("TWITE_MODEL__NAME", "/nowhere/to/be/found")
    assert run(["config", "check"], monkeypatch) == 1
    shown = capsys.readouterr().out
    assert f"{NOBODY} does not answer" in shown
    assert "/nowhere/to/be/found is not there" in shown


def test_a_model_that_is_not_there_ends_the_worker_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model.engine import ModelNotFound

    async def not_found(settings: object) -> None:
        raise ModelNotFound("There is no model folder 'x' here. Set the model's name to …")

    monkeypatch.setattr("bot.app.run_worker", not_found)
    assert run(["worker"], monkeypatch) == 1
    assert capsys.readouterr().err.startswith("error: There is no model folder 'x' here.")


def test_settings_problems_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "twite.toml").write_text("[kafka]\ngroup_idd = 1\nfoo = 2\n")
    assert run(["config", "show"], monkeypatch) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "Did you mean kafka.group_id?" in lines[0]


def test_unknown_variables_warn_and_do_not_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITE_BOT__HANDEL", "x")
    monkeypatch.setenv("TWITE_HTTP__PORT", "8000")
    assert run(["config", "show"], monkeypatch) == 0
    said = capsys.readouterr().err
    assert "Did you mean TWITE_BOT__HANDLE?" in said
    assert "HTTP" not in said


def test_a_bug_is_one_line_unless_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("bot.config.load", broken)
    assert run(["config", "show"], monkeypatch) == 1
    assert "unexpected ZeroDivisionError: oh (run `twite --debug" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["twite", "--debug", "config", "show"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["worker", "--config", "f"], ["--config", "f", "worker"]),
        (["worker", "-c", "f", "--debug"], ["-c", "f", "--debug", "worker"]),
        (["config", "show", "--config=f"], ["--config=f", "config", "show"]),
        (["mention", "--", "--debug"], ["mention", "--", "--debug"]),
        (["worker", "--config"], ["--config", "worker"]),
    ],
)
def test_general_options_may_stand_anywhere(typed: list[str], meant: list[str]) -> None:
    assert cli.general_first(typed) == meant


def test_a_file_named_behind_the_command_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.toml").write_text('[bot]\nhandle = "owl"\n')
    assert run(["config", "show", "--json", "--config", "other.toml"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["bot.handle"]["value"] == "owl"


def test_wrong_usage_is_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["topics", "creat"], monkeypatch) == 2
    assert run(["mention"], monkeypatch) == 2


def test_trouble_reads_as_where_what_and_todo() -> None:
    trouble = Trouble("broken.", where="here", todo="Mend it.", status=7)
    assert str(trouble) == "here: broken. Mend it."
    assert trouble.status == 7


def test_schemas_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["schemas", "export", str(tmp_path / "contract")], monkeypatch) == 0
    assert list((tmp_path / "contract").rglob("*.json"))


@pytest.mark.parametrize("place", ["some.file", "some.file/below", "/proc/x"])
def test_schemas_cannot_go_where_no_folder_can_be(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.file").touch()
    assert run(["schemas", "export", place], monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {place}: cannot be written: ")
    assert "Name a folder" in said


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["mention", "hi", "--author", ""], "--author"),
        (["mention", "hi", "--author", "a\nb"], "--author"),
        (["mention", "hi", "--handle", " "], "--handle"),
        (["mention", "hi", "--conversation", ""], "--conversation"),
        (["mention", "hi", "--conversation", "x" * 513], "--conversation"),
        (["mention", "hi", "--visibility", "bogus"], "--visibility"),
        (["mention", "hi", "--timeout", "nan"], "--timeout"),
        (["mention", " "], "TEXT"),
        (["dm", ""], "TEXT"),
        (["dm", "a\udcffb"], "TEXT"),
        (["dm", "hi", "--author", ""], "--author"),
        (["dm", "hi", "--handle", ""], "--handle"),
        (["dm", "hi", "--conversation", " "], "--conversation"),
    ],
)
def test_what_cannot_be_in_an_event_is_wrong_usage_that_names_the_option(
    arguments: list[str],
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments, monkeypatch) == 2
    said = capsys.readouterr().err
    assert option in said
    assert "unexpected" not in said


@pytest.mark.parametrize("command", ["mention", "demo", "schemas export", "topics create"])
def test_help_names_no_types_that_say_nothing(command: str) -> None:
    output = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert "<bool>" not in output
    assert "{" not in output


@pytest.mark.parametrize(("reason", "hints"), [("not-addressed", 1), ("loop", 0)])
@pytest.mark.parametrize("command", ["mention", "dm"])
def test_who_is_not_addressed_may_have_another_account_id(
    command: str,
    reason: str,
    hints: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def ask(*_: object, **__: object) -> Outcome:
        return Outcome(INPUT, decision(Kind.SKIPPED, reason=reason), INPUT)

    monkeypatch.setattr("bot.ask.ask", ask)
    monkeypatch.setenv("TWITE_BOT__ACCOUNT_ID", "our-bot-7")
    assert run([command, "hello"], monkeypatch) == 0
    told = capsys.readouterr()
    assert f"skipped, {reason}" in told.out
    assert told.err.count("hint: this was written to the account our-bot-7") == hints
    assert told.err.count("bot.account_id") == hints


@pytest.mark.parametrize("missing", ["--as", "--reason"])
def test_a_command_of_a_moderator_says_who_and_why(missing: str) -> None:
    said = {"--as": "anna", "--reason": "rude"} | {missing: " "}
    words = [word for pair in said.items() for word in pair]
    result = CliRunner().invoke(app, ["moderate", "block", "account:a", *words])
    assert isinstance(result.exception, Trouble)
    assert missing in str(result.exception)


def test_an_empty_correction_is_called_empty() -> None:
    words = ["correct", "at://p/1", "--text", "", "--as", "anna", "--reason", "rude"]
    result = CliRunner().invoke(app, ["moderate", *words])
    assert "the text is empty" in str(result.exception)


def test_who_stops_waiting_for_a_worker_is_told_that_the_command_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = Given("command-1", ModerationCommanded(
        command="retract", subject="reply:r", reason="rude", moderator="anna"
    ))  # fmt: skip

    async def found(*_: object) -> Given:
        return given

    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moderate, "_on_reply", found)
    monkeypatch.setattr(moderate, "_obeyed", interrupted)
    words = ["retract", "at://p/1", "--as", "anna", "--reason", "rude", "--wait"]
    result = CliRunner().invoke(app, ["moderate", *words])
    assert "retract reply:r, by anna: command command-1" in result.output
    assert "no worker has obeyed yet" in str(result.exception)


def test_what_the_checks_made_of_a_correction_is_told() -> None:
    rule = RuleVerdict(name="links-and-handles", verdict="changed")
    data = decision(Kind.SKIPPED, reason="no-answer").model_copy(update={"rules": (rule,)})
    told = "\n".join(moderate._of_checks(data))
    assert "links-and-handles" in told
    assert "the old reply stands" in told
