"""Joining decisions with their replies and dead letters, in whatever order they arrive."""

import itertools

import pytest
from pydantic import BaseModel

from bot.observe import Outcomes, Position
from bot.show import as_json_value, headline, places, texts
from schemas import names
from schemas.codec import encode
from schemas.codes import Outcome as Kind
from schemas.envelope import Envelope
from schemas.record import Header, Record
from schemas.replies import ReplyCorrected, ReplyRetracted
from tests.bot import outcomes
from tests.bot.outcomes import INPUT, NOW

_offsets = itertools.count()


def record(topic: str, kind: str, data: BaseModel) -> Record:
    envelope = Envelope(id=f"id-{next(_offsets)}", source="/test", type=kind, time=NOW)
    output = encode(topic, "c", envelope, data)
    return raw(topic, output.value, output.headers)


def raw(topic: str, value: bytes | None, headers: tuple[Header, ...] = ()) -> Record:
    return Record(
        topic=topic,
        partition=1,
        offset=next(_offsets),
        timestamp_ms=0,
        key=b"c",
        value=value,
        headers=headers,
    )


def decision(outcome: Kind, replies: tuple[str, ...] = (), reason: str | None = None) -> Record:
    data = outcomes.decision(outcome, replies, reason)
    return record(names.BOT_AUDIT, names.DECISION_RECORDED, data)


def reply(reply_id: str) -> Record:
    (made,) = outcomes.replied("Paris.", reply_id).replies
    return record(names.BOT_REPLIES, names.REPLY_CREATED, made.data)


def letter(origin: str = str(INPUT)) -> Record:
    headers = (
        ("twite_error_code", b"not-json"),
        ("twite_error_detail", b"at byte 0"),
        ("twite_attempts", b"1"),
        ("twite_origin", origin.encode()),
    )
    return raw(names.BOT_DEAD_LETTERS, b"\xff", headers)


def test_positions_read_back_as_they_are_written() -> None:
    assert Position.parse(str(INPUT)) == INPUT
    with pytest.raises(ValueError, match="not enough values"):
        Position.parse("feed.mentions")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_reply_of_two_parts_is_whole_in_any_order(order: tuple[int, ...]) -> None:
    records = [decision(Kind.REPLIED, ("r1", "r2")), reply("r1"), reply("r2")]
    found = Outcomes()
    landed = [found.add(records[index]) for index in order]
    assert [len(new) for new in landed] == [0, 0, 1]
    (outcome,) = landed[2]
    assert outcome.input == INPUT
    assert [part.data.reply_id for part in outcome.replies] == ["r1", "r2"]
    assert (found.torn, found.doubles, found.undecided_replies) == ([], [], [])


def corrected(reply_id: str) -> Record:
    data = ReplyCorrected(
        reply_id=reply_id,
        decision_id=f"decision-{INPUT}",
        reason="edited",
        revision="2",
        conversation_id="c",
        text="Rome.",
    )
    return record(names.BOT_REPLIES, names.REPLY_CORRECTED, data)


def retracted(reply_id: str) -> Record:
    data = ReplyRetracted(
        reply_id=reply_id,
        decision_id=f"decision-{INPUT}",
        reason="edited",
        conversation_id="c",
    )
    return record(names.BOT_REPLIES, names.REPLY_RETRACTED, data)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_correction_is_whole_with_what_it_takes_back_and_adds(order: tuple[int, ...]) -> None:
    told = decision(Kind.CORRECTED, ("r1", "r2", "r3"), reason="edited")
    records = [told, corrected("r1"), retracted("r2"), reply("r3")]
    found = Outcomes()
    landed = [found.add(records[index]) for index in order]
    assert [len(new) for new in landed] == [0, 0, 0, 1]
    (outcome,) = landed[3]
    assert [change.data.reply_id for change in outcome.changes] == ["r1", "r2"]
    assert [made.data.reply_id for made in outcome.replies] == ["r3"]
    assert texts(outcome) == ["Paris.", "Rome."]
    assert headline(outcome) == "corrected, edited (3 parts)"
    assert [change["text"] for change in as_json_value(outcome)["changes"]] == ["Rome.", None]
    assert (found.torn, found.doubles, found.undecided_replies) == ([], [], [])


def test_what_is_taken_back_twice_is_counted() -> None:
    found = Outcomes()
    for each in (retracted("r1"), corrected("r1")):
        found.add(each)
        found.add(each)
    assert found.doubles == [f"r1 in decision-{INPUT} (2 times)", "r1 (2 times)"]
    assert found.undecided_replies == [f"r1 in decision-{INPUT}"]


@pytest.mark.parametrize("letter_first", [True, False])
def test_a_dead_letter_waits_for_its_other_half(letter_first: bool) -> None:
    records = [decision(Kind.DEAD_LETTERED, reason="not-json"), letter()]
    found = Outcomes()
    first, second = reversed(records) if letter_first else records
    assert found.add(first) == []
    (outcome,) = found.add(second)
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.code == "not-json"
    assert headline(outcome) == "dead letter not-json: at byte 0"


def test_a_skip_is_whole_by_itself_and_says_why() -> None:
    (outcome,) = Outcomes().add(decision(Kind.SKIPPED, reason="own-post"))
    assert headline(outcome) == "skipped, own-post: The bot wrote it itself."
    assert places(outcome).startswith("feed.mentions/1/42 → bot.audit/1/")
    assert as_json_value(outcome)["reason"] == "own-post"


def test_what_comes_twice_is_counted() -> None:
    found = Outcomes()
    for each in (decision(Kind.REPLIED, ("r1",)), reply("r1")):
        found.add(each)
        found.add(each)
    found.add(letter())
    found.add(letter())
    assert found.doubles == [f"{INPUT} (2 times)", "r1 (2 times)", f"{INPUT} (2 times)"]


def test_a_decision_without_its_reply_is_torn() -> None:
    found = Outcomes()
    found.add(decision(Kind.REPLIED, ("r1",)))
    assert found.torn == [INPUT]


def test_a_reply_without_a_decision_is_told() -> None:
    found = Outcomes()
    found.add(reply("r1"))
    assert found.undecided_replies == ["r1"]


def test_unreadable_records_are_kept_by_place() -> None:
    found = Outcomes()
    found.add(raw(names.BOT_AUDIT, b"{"))
    found.add(letter(origin="nonsense"))
    assert [position.topic for position in found.unreadable] == [
        names.BOT_AUDIT,
        names.BOT_DEAD_LETTERS,
    ]
