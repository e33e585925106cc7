"""Dead letters as an operator sees them, without a broker."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from bot.dead_letters import Found, Letter, Wanted, letter_of
from bot.errors import Trouble
from bot.letter_view import counts_text, hex_dump, record_text, record_value, table
from bot.moments import moment_ms
from bot.observe import Outcomes, Position
from bot.redrive import plan
from schemas import names
from schemas.dead_letters import RedriveMark, dead_letter, redrive_mark
from schemas.record import Output, Record
from tests.bot.make import direct, mention, record

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def stored(output: Output, offset: int, timestamp_ms: int = 1000) -> Record:
    """An output as it stands on its topic."""
    return Record(
        topic=output.topic,
        partition=2,
        offset=offset,
        timestamp_ms=timestamp_ms,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


def letter_record(
    one: Record, offset: int = 4, topic: str = names.BOT_DEAD_LETTERS, code: str = "schema"
) -> Record:
    return stored(dead_letter(one, topic, code, "data: missing", 1), offset)


def mark_of(letter: Record, origin: str, redriven_as: str) -> Record:
    at = str(Position.of(letter))
    mark = redrive_mark(letter.topic, letter.key, RedriveMark(origin, at, redriven_as))
    return stored(mark, letter.offset + 10)


def known(one: Record) -> Letter:
    letter = letter_of(one)
    assert letter is not None
    return letter


def printed(renderable: Any, width: int = 300) -> str:
    shown = io.StringIO()
    Console(width=width, file=shown).print(renderable, crop=False)
    return shown.getvalue()


def test_marks_belong_to_their_letters_and_strangers_are_counted() -> None:
    first, second = (letter_record(record(mention(), offset=n), n) for n in (7, 8))
    found = Found()
    for one in (first, second, mark_of(first, "feed.mentions/2/7", "feed.mentions/2/90")):
        found.add(one)
    found.add(record(mention()))
    found.add(mark_of(letter_record(record(mention()), 99), "feed.mentions/2/7", "a/0/1"))
    assert [letter.redriven for letter in found.chosen(Wanted())] == [("feed.mentions/2/90",), ()]
    assert found.strange == 1


def test_a_letter_is_found_by_either_place_by_code_time_and_partition() -> None:
    letter = known(letter_record(record(mention(), offset=7)))
    for place in ("feed.mentions/2/7", "bot.dead-letters/2/4"):
        assert Wanted(places=frozenset({Position.parse(place)})).fits(letter)
    for unwanted in (
        Wanted(places=frozenset({Position.parse("feed.mentions/2/8")})),
        Wanted(codes=frozenset({"deadline"})),
        Wanted(since_ms=1001),
        Wanted(until_ms=1000),
        Wanted(partition=1),
    ):
        assert not unwanted.fits(letter)
        assert not unwanted.everything
    both = Wanted(codes=frozenset({"schema"}), since_ms=1000, until_ms=1001, partition=2)
    assert both.fits(letter)
    assert Wanted().everything


def test_a_plan_leaves_out_what_was_done_and_what_can_not_be() -> None:
    letter = known(letter_record(record(mention())))
    done = replace(letter, redriven=("feed.mentions/2/90",))
    elsewhere = replace(letter, origin=Position(names.BOT_REPLIES, 0, 1))
    counts = {names.FEED_MENTIONS: 3, names.BOT_REPLIES: 3}
    planned = plan([letter, done, elsewhere], counts, again=False)
    assert planned.letters == (letter,)
    assert [refusal.settled for refusal in planned.refused] == [True, False]
    assert plan([done], counts, again=True).letters == (done,)
    assert (
        "has no partition 2" in plan([letter], {names.FEED_MENTIONS: 2}, again=True).refused[0].why
    )


def test_private_letters_are_shown_as_lengths_and_digests() -> None:
    secret = record(
        direct("secret-canary"),
        event_id="id-canary",
        twite_redrive_of="header-canary",
    )
    secret = replace(secret, headers=(*secret.headers, ("name-canary", b"v")))
    one = letter_record(secret, topic=names.BOT_DEAD_LETTERS_PRIVATE)
    letter = known(one)
    for shown in (
        printed(record_text(letter, one, reveal=False)),
        json.dumps(record_value(letter, one, reveal=False)),
    ):
        assert "canary" not in shown
        assert "conv-1" not in shown
        assert "sha256" in shown
        assert names.MESSAGE_CREATED in shown  # a word of the contract
        assert "data: missing" in shown
    for shown in (
        printed(record_text(letter, one, reveal=True)),
        json.dumps(record_value(letter, one, reveal=True)),
    ):
        assert all(f"{word}-canary" in shown for word in ("secret", "id", "name", "header"))


def test_a_public_letter_is_shown_as_pretty_json_text_or_bytes() -> None:
    one = letter_record(record(mention()))
    assert '    "mentioned_account_id": "bot-1"' in printed(
        record_text(known(one), one, reveal=False)
    )
    for value, expected in (
        (b"steer \x1b[2J me", "steer �[2J me"),
        (b'{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),  # nothing is lost by making it pretty
        (b"\xff\x00abc", "00000000  ff 00 61 62 63"),
        (b"[" * 100_000, "34464 characters more"),
        (None, "null"),
        (b"", "empty"),
    ):
        odd = replace(one, value=value)
        assert expected in printed(record_text(known(odd), odd, reveal=False))
    assert record_value(known(one), replace(one, value=b"\xff"), reveal=False)["value"] == {
        "base64": "/w=="
    }


def test_a_hex_dump_is_bounded() -> None:
    assert hex_dump(b"A" * 17).splitlines()[1].startswith("00000010  41")
    assert hex_dump(bytes(5000)).endswith("… and 904 bytes more (--json shows all)")


def test_the_table_tells_places_and_counts() -> None:
    letters = [
        known(letter_record(record(mention(), offset=n), n, code="deadline" if n else "schema"))
        for n in range(3)
    ]
    letters[0] = replace(letters[0], redriven=("feed.mentions/2/90",))
    shown = printed(table(letters))
    assert "feed.mentions/2/90" in shown
    assert "1970-01-01T00:00:01Z" in shown
    assert counts_text(letters) == "3 dead letters (deadline: 2, schema: 1), 1 of them re-driven"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", "2026-11-24T10:00:00+00:00"),
        ("90s", "2026-11-24T11:58:30+00:00"),
        ("7d", "2026-11-17T12:00:00+00:00"),
        ("2026-11-24T06:00:00Z", "2026-11-24T06:00:00+00:00"),
        ("2026-11-24T06:00:00.5+02:00", "2026-11-24T04:00:00.500000+00:00"),
    ],
)
def test_times_are_ages_or_rfc_3339(text: str, expected: str) -> None:
    assert datetime.fromtimestamp(moment_ms(text, NOW) / 1000, UTC).isoformat() == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "2026-11-24T06:00:00", "-1h"])
def test_other_times_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(Trouble, match="with its zone") as caught:
        moment_ms(text, NOW)
    assert caught.value.status == 2


def test_a_mark_is_no_outcome() -> None:
    outcomes = Outcomes()
    letter = letter_record(record(mention()))
    assert not outcomes.add(mark_of(letter, "feed.mentions/2/7", "feed.mentions/2/90"))
    assert not outcomes.unreadable
    assert not outcomes.dead_letters


@pytest.mark.parametrize("width", [20, 80, 120, 300])
def test_places_and_codes_are_whole_at_every_width(width: int) -> None:
    origin = replace(record(mention(), offset=1_234_567_890), partition=12)
    one = letter_record(origin, 2_234_567_890, code="unsupported-content-type")
    letter = replace(known(one), redriven=("feed.mentions/12/3234567890",))
    for shown in (
        printed(table([letter]), width),
        printed(record_text(letter, one, reveal=True), width),
    ):
        for word in (str(letter.origin), str(letter.at), letter.code, *letter.redriven):
            assert word in shown
    assert f"twite_origin: {letter.origin}" in printed(record_text(letter, one, reveal=True), 20)


def test_a_misspelled_code_is_told_with_what_was_meant() -> None:
    found = Found()
    found.add(letter_record(record(mention()), code="from-a-later-version"))
    found.require_codes(["deadline", "schema", "from-a-later-version"])
    with pytest.raises(Trouble, match="Did you mean deadline") as error:
        found.require_codes(["deadlin"])
    assert error.value.status == 2
    with pytest.raises(Trouble, match=r"Known are .*deadline.*from-a-later-version.*schema"):
        found.require_codes(["xyz"])
