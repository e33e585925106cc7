"""``bot.limits_file``: limits that change while a worker runs, and files that can't be used."""

import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.files import NO_FILE
from bot.limits_file import LOOK_EVERY_S, MAX_BYTES, BrokenFile, LimitsInForce, read
from bot.rates import LiveLimits

SETTINGS = LiveLimits(per_author="9 per hour", overall="99 per hour")


class Clock:
    """Seconds that go up when told."""

    def __init__(self) -> None:
        self.seconds = 5.0

    def __call__(self) -> float:
        return self.seconds


class Changing:
    """Limits in force with a file and a clock of the test."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.clock = Clock()
        self.in_force = LimitsInForce(SETTINGS, file, counter=self.clock)

    async def later(self) -> LiveLimits:
        """The limits when it is time to look again."""
        self.clock.seconds += LOOK_EVERY_S
        return await self.in_force.now()

    def write(self, text: str | bytes) -> None:
        """A new file in the place of the old one, as editors and Kubernetes do it."""
        new = self.file.with_suffix(".new")
        new.write_bytes(text.encode() if isinstance(text, str) else text)
        os.replace(new, self.file)  # noqa: PTH105


@pytest.fixture
def changing(tmp_path: Path) -> Changing:
    return Changing(tmp_path / "limits.toml")


async def test_without_a_file_the_settings_are_in_force() -> None:
    assert await LimitsInForce(SETTINGS).now() == SETTINGS


async def test_a_change_is_in_force_within_a_second_and_not_looked_for_more_often(
    changing: Changing,
) -> None:
    changing.write('per_author = "1 per hour"')
    first = await changing.in_force.now()
    assert (first.per_author, first.overall) == ("1 per hour", "99 per hour")
    changing.write('per_author = "2 per hour"\nmax_age_hours = 3')
    assert await changing.in_force.now() == first
    second = await changing.later()
    assert (second.per_author, second.max_age_hours) == ("2 per hour", 3.0)
    changing.write("[limits]\nenabled = false")
    third = await changing.later()
    assert (third.enabled, third.per_author) == (False, "9 per hour")


async def test_a_file_written_in_place_with_the_same_length_is_noticed(changing: Changing) -> None:
    changing.file.write_text('per_author = "1 per hour"')
    assert (await changing.in_force.now()).per_author == "1 per hour"
    before = changing.file.stat()
    changing.file.write_text('per_author = "2 per hour"')
    os.utime(changing.file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (await changing.later()).per_author == "2 per hour"


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "no TOML": ("per_author = ", "not valid TOML: Invalid value (at end of document)"),
    "a line": ("enabled = true\nper author = 1", "at line 2, column 5"),
    "no text": (b"\xff\xfe", "not valid TOML"),
    "a typo": ('per_autor = "1 per hour"', "'per_autor' can't be set in this file"),
    "not live": ('storage_uri = "redis://x:1"', "'storage_uri' can't be set in this file"),
    "another table": ("[kafka]\na = 1", "'kafka' can't be set in this file"),
    "no table": ("limits = 3", "limits must be a table, [limits]"),
    "no rate": ('per_author = "many"', "per_author: must be a number per a time"),
    "no number": ("max_age_hours = 0", "max_age_hours: Input should be greater than 0"),
    "a number": ("per_thread = 3", "per_thread: Input should be a valid string"),
    "too long": ("#" * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes"),
    "deep": ("a = " + "[" * 20_000, "not valid TOML"),
    "many digits": ("new_account_days = " + "9" * 5_000, "a number in it has too many digits"),
    "digits": ("new_account_days = " + "9" * 4_000, "new_account_days: Input should be"),
    "yes for hours": ("max_age_hours = true", "max_age_hours: must be a number"),
    "no for days": ("new_account_days = false", "new_account_days: must be a number"),
    "no time": ('per_author = "1 per 0 minute"', "per_author: must have times of 1 second"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_file_leaves_the_last_good_one_and_says_where(
    changing: Changing, name: str
) -> None:
    text, said = BROKEN[name]
    changing.write('per_author = "1 per hour"')
    good = await changing.in_force.now()
    changing.write(text)
    with capture_logs() as logs:
        for _ in range(3):
            assert await changing.later() == good
    (told,) = logs
    assert told["log_level"] == "error"
    assert str(changing.file) in told["error"]
    assert said in told["error"]
    changing.write('per_author = "3 per hour"')
    assert (await changing.later()).per_author == "3 per hour"


async def test_a_file_that_is_missing_or_goes_is_told_once(changing: Changing) -> None:
    with capture_logs() as logs:
        assert await changing.in_force.now() == SETTINGS
        assert await changing.later() == SETTINGS
    assert [entry["log_level"] for entry in logs] == ["error"]
    nowhere = Changing(Path("a\0b"))
    assert [await nowhere.later() for _ in range(2)] == [SETTINGS, SETTINGS]
    changing.write('per_author = "1 per hour"')
    good = await changing.later()
    changing.file.unlink()
    with capture_logs() as logs:
        assert [await changing.later() for _ in range(2)] == [good, good]
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenFile, match="directory"):
        read(tmp_path, SETTINGS)


async def test_a_pipe_or_a_device_is_no_file_and_keeps_nobody_waiting(changing: Changing) -> None:
    changing.write('per_author = "1 per hour"')
    good = await changing.in_force.now()
    for put in (os.mkfifo, lambda file: file.symlink_to("/dev/zero")):
        changing.file.unlink()
        put(changing.file)
        with capture_logs() as logs:
            assert await changing.later() == good
        (told,) = logs
        assert told["error"] == f"{changing.file}: {NO_FILE}"


@pytest.mark.parametrize("values", [{"per_author": "1/day"}, {"new_account_days": 2.5}])
def test_what_the_file_does_not_say_is_as_the_settings_have_it(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("\n".join(f"{name} = {value!r}" for name, value in values.items()))
    assert read(file, SETTINGS) == SETTINGS.model_copy(update=values)
