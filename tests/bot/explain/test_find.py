"""``bot.explain.find``: the decision that a word means, and a clear word where there is none."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Trouble
from bot.explain import find as finding
from bot.explain.case import Decided
from bot.explain.find import Subject, find, stretches
from bot.observe import Position
from schemas import names
from schemas.codes import Outcome
from schemas.feed import Ref
from tests.bot.explain.log import PARTITION, Log, decision_in, topics_read
from tests.bot.make import direct, mention, record
from tests.bot.outcomes import decision

ASKING = "at://p/asking"


async def answered(count: int = 3, **fields: Any) -> tuple[Log, list[Any]]:
    """A log with so many answered mentions, and the decisions on them."""
    log, decisions = Log(), []
    for number in range(count):
        asked = mention(f"@twite question {number}", **fields)
        asked = asked.model_copy(
            update={"post": asked.post.model_copy(update={"uri": f"{ASKING}/{number}"})}
        )
        outputs = await log.answer(record(asked, event_id=f"event-{number}"))
        decisions.append(decision_in(outputs))
    return log, decisions


async def ask(log: Log, word: str, **options: Any) -> Decided:
    return await find(log, Subject.of(word), **options)


async def test_a_decision_is_found_by_everything_that_names_it() -> None:
    log, decisions = await answered()
    wanted = decisions[1]
    assert wanted.outcome is Outcome.REPLIED
    for word in (
        wanted.decision_id,
        wanted.reply_ids[0],
        f"{ASKING}/1",
        f"feed.mentions/{PARTITION}/1",
        f"bot.audit/{PARTITION}/1",
        f"bot.replies/{PARTITION}/1",
    ):
        found = await ask(log, word)
        assert found.data == wanted, word
        assert found.at == Position(names.BOT_AUDIT, PARTITION, 1)


async def test_the_newest_is_read_first_and_no_more_than_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "FIRST_STRETCH", 1)
    log, decisions = await answered(4)
    told: list[tuple[str, int, int]] = []
    found = await find(
        log,
        Subject.of(decisions[2].decision_id),
        tell=lambda topic, progress: told.append((topic, progress.done, progress.total)),
    )
    assert found.data == decisions[2]
    # One offset, then four of which three are left: the one wanted is the last of them.
    assert [span.start.offsets for span in log.reads] == [{PARTITION: 3}, {PARTITION: 0}]
    assert told == [(names.BOT_AUDIT, n, 4) for n in (1, 2, 3, 4)]


def test_stretches_cover_everything_once() -> None:
    bounds = {0: (5, 9_000), 1: (0, 10), 3: (100, 100_000)}
    seen: dict[int, list[tuple[int, int]]] = {p: [] for p in bounds}
    for stretch in stretches(bounds):
        for partition, piece in stretch.items():
            seen[partition].insert(0, piece)
    for partition, (start, end) in bounds.items():
        pieces = seen[partition]
        assert (pieces[0][0], pieces[-1][1]) == (start, end)
        assert all(one[1] == other[0] for one, other in itertools.pairwise(pieces))
        assert all(first < last for first, last in pieces)


async def test_of_a_post_the_answer_is_told_not_the_repeat_behind_it() -> None:
    log, decisions = await answered(1)
    first = decisions[0]
    again = first.model_copy(
        update={"decision_id": "later", "outcome": Outcome.SKIPPED, "reason": "duplicate"}
    )
    _copy_of_decision(log, again)
    assert (await ask(log, f"{ASKING}/0")).data == first
    assert (await ask(log, "later")).data == again


async def test_what_was_never_answered_is_found_as_well() -> None:
    log = Log()
    outputs = await log.answer(record(mention("hello", facets=())))
    decision = decision_in(outputs)
    assert decision.outcome is Outcome.SKIPPED
    assert (await ask(log, ASKING)).data == decision


async def test_private_topics_are_not_touched_unless_asked_for() -> None:
    log = Log()
    decision = decision_in(await log.answer(record(direct("secret"))))
    for word in (decision.decision_id, decision.reply_ids[0], "at://m/1"):
        with pytest.raises(Trouble, match="--private looks there"):
            await ask(log, word)
    with pytest.raises(Trouble, match="stands on a private topic"):
        await ask(log, f"bot.audit-private/{PARTITION}/0")
    assert topics_read(log) <= {names.BOT_AUDIT}
    assert (await ask(log, decision.decision_id, private=True)).data == decision


@pytest.mark.parametrize("word", ["", "  ", "a\nb", "\x1b[2J", "x" * 513, "\udcff"])
def test_what_can_be_no_name_is_refused(word: str) -> None:
    with pytest.raises(Trouble, match="no id and no URI"):
        Subject.of(word)


@given(st.text(min_size=1, max_size=20))
def test_whatever_an_id_is_made_of_it_is_found_in_the_bytes(word: str) -> None:
    try:
        subject = Subject.of(word)
    except Trouble:
        return
    ref = Ref(uri=word)
    data = decision(Outcome.SKIPPED).model_copy(update={"source_ref": ref})
    assert subject.needle in data.__pydantic_serializer__.to_json(data)


async def test_an_unknown_word_is_told_with_how_far_the_log_goes_back() -> None:
    log, _ = await answered(2)
    with pytest.raises(Trouble, match=r"no decision on bot\.audit names it") as caught:
        await ask(log, "nobody-knows-it")
    assert "since 2026-11-24T12:00:03Z: older ones are past retention" in str(caught.value)
    assert "Is it still waiting" in str(caught.value)
    with pytest.raises(Trouble) as caught:
        await ask(log, "nobody-knows-it", since_ms=log.now_ms)
    assert "An earlier --since" in str(caught.value)


async def test_past_retention_is_told() -> None:
    log, decisions = await answered(3)
    log.first[names.BOT_AUDIT, PARTITION] = 2
    with pytest.raises(Trouble, match="older ones are past retention"):
        await ask(log, decisions[0].decision_id)
    with pytest.raises(Trouble, match="no record stands there"):
        await ask(log, f"bot.audit/{PARTITION}/0")
    assert (await ask(log, decisions[2].decision_id)).data == decisions[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": b'{"decision_id": "cut o'}, "not-json"),
        ({"value": None}, "no-value"),
        ({"headers": {"ce_type": b"twite.bot.decision.recorded.v2"}}, "does not know"),
        ({"key": b"another"}, "key-mismatch"),
    ],
)
async def test_a_torn_edited_or_strange_record_is_told_with_its_place(
    changes: dict[str, Any], said: str
) -> None:
    log, decisions = await answered(1)
    at = Position(names.BOT_AUDIT, PARTITION, 0)
    if "headers" in changes:
        old = log.records[names.BOT_AUDIT, PARTITION][0].headers
        changes = {"headers": _with(old, changes["headers"])}
    log.change(at, **changes)
    with pytest.raises(Trouble, match=said) as caught:
        await ask(log, decisions[0].decision_id)
    assert str(at) in str(caught.value)


async def test_an_audit_record_of_an_older_twite_is_read() -> None:
    """Fields that were added later are missing: none of them is required."""
    log = Log()
    made = await log.answer(record(mention()))
    old = decision_in(made)
    bare = {"decision_id", "outcome", "input", "code_version", "settings_digest", "recorded_at"}
    value = old.model_dump_json(include=bare | {"reply_ids", "conversation_id"}).encode()
    log.change(Position(names.BOT_AUDIT, PARTITION, 0), value=value)
    assert (await ask(log, old.decision_id)).data.prompt is None


def _copy_of_decision(log: Log, data: Any) -> None:
    (last,) = log.records[names.BOT_AUDIT, PARTITION]
    value = data.model_dump_json().encode()
    log.put(replace(last, value=value, headers=_with(last.headers, {"ce_id": b"later"})))


def _with(
    old: Sequence[tuple[str, bytes | None]], new: dict[str, bytes]
) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, new.get(name, value)) for name, value in old)
