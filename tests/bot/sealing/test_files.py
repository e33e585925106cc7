"""An export that somebody doctored is a fault, or an error that says where."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bot.cli import app
from bot.errors import Trouble
from bot.sealing.check import Fault, Wrong
from bot.sealing.export import Held, Writer
from bot.sealing.verify import verify_file
from tests.bot.sealing.made import chain_of, log_of

HELD = Held(topic="bot.audit", partition=1, begin=0, end=12)
LAST = 8  # the line of the last record: one of the header, two seals, six records


def lines_of(path: Path, parts: list[Held] | None = None) -> list[dict[str, Any]]:
    records = log_of(6)
    with path.open("w") as to:
        writer = Writer(to, [HELD] if parts is None else parts, erases=False)
        for seal in chain_of(records):
            writer.seal(seal)
        for record in records:
            writer.record(record)
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def test_a_record_at_an_offset_that_was_sealed_before_is_put_in(tmp_path: Path) -> None:
    path = tmp_path / "a"
    lines = lines_of(path)
    forged = {"record": {**lines[3]["record"], "value": '{"forged":1}'}}
    (found,) = await verify_file(write(path, [*lines, forged]), None)
    assert found.faults == [Fault(Wrong.ADDED, "bot.audit/1/0")]
    assert found.good == 6


async def test_what_was_not_touched_holds(tmp_path: Path) -> None:
    lines_of(tmp_path / "a")
    (found,) = await verify_file(tmp_path / "a", None)
    assert (found.good, found.faulty) == (6, 0)


@pytest.mark.parametrize(
    ("begin", "end", "place"), [(6, 12, "bot.audit/1 seal 0"), (0, 5, "bot.audit/1 seal 1")]
)
async def test_a_header_that_says_less_than_the_seals_is_a_fault(
    tmp_path: Path, begin: int, end: int, place: str
) -> None:
    path = tmp_path / "a"
    lines_of(path, [HELD.model_copy(update={"begin": begin, "end": end})])
    (found,) = await verify_file(path, None)
    assert Fault(Wrong.OUTSIDE, place) in found.faults


@pytest.mark.parametrize("parts", [[], [HELD, HELD], [HELD.model_copy(update={"begin": 13})]])
async def test_a_header_that_makes_no_sense_is_an_error(tmp_path: Path, parts: list[Held]) -> None:
    lines_of(tmp_path / "a", parts)
    with pytest.raises(Trouble, match="lists no partition"):
        await verify_file(tmp_path / "a", None)


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": 5.9},
        {"offset": float("inf")},
        {"offset": True},
        {"partition": 2},
        {"topic": "\ud800"},
        {"headers": [["\ud800", "x"]]},
        {"value": "\ud800"},
    ],
)
async def test_a_hostile_record_is_an_error_that_names_its_line(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    path = tmp_path / "a"
    lines = lines_of(path)
    lines[LAST]["record"].update(changed)
    with pytest.raises(Trouble) as caught:
        await verify_file(write(path, lines), None)
    assert caught.value.where == f"{path}:{LAST + 1}"


def test_without_any_seal_nothing_is_proven(tmp_path: Path) -> None:
    path = tmp_path / "a"
    lines = [line for line in lines_of(path) if "seal" not in line]
    told = CliRunner().invoke(
        app, ["audit", "verify", "--offline", "--file", str(write(path, lines))]
    )
    assert told.exit_code == 1
    assert "nothing is proven" in told.output


def test_names_are_no_markup_for_the_progress(tmp_path: Path) -> None:
    from bot.cli.audit import _telling
    from bot.sealing.check import Verdict

    shown: list[Any] = []
    tell = _telling(shown.append, every_s=0)
    tell(Verdict("[/bold]", 0, 0))
    assert shown[0].plain.startswith("[/bold]/0")
