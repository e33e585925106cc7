"""Which decisions a replay is about."""

import pytest

from bot.errors import Trouble
from bot.replay.wanted import Stretch, Wanted, asker_of
from schemas.audit import DecisionRecorded
from schemas.record import Record
from tests.bot.make import ALICE, BOB, mention, record
from tests.bot.replay.world import World


async def one(text: str = "@twite hello") -> tuple[DecisionRecorded, Record]:
    world = await World().start()
    decision = await world.take(record(mention(text)))
    return decision, world.audit()[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("feed.mentions/2/5-9", Stretch("feed.mentions", 2, 5, 9)),
        ("feed.mentions/2/5", Stretch("feed.mentions", 2, 5, 5)),
        ("feed.mentions/2/5-", Stretch("feed.mentions", 2, 5, None)),
        ("bot.audit-private/0", Stretch("bot.audit-private", 0)),
    ],
)
def test_a_range_is_read(text: str, expected: Stretch) -> None:
    assert Stretch.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "feed.mentions", "feed.posts/2/5", "feed.mentions/2/9-5", "feed.mentions/x/1"]
)
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Trouble) as raised:
        Stretch.parse(text)
    assert raised.value.status == 2


async def test_conditions_of_one_kind_widen_those_of_several_narrow() -> None:
    decision, at = await one()
    kinds = {"conversations": "conv-1", "models": "echo", "outcomes": "replied"}
    for name, value in kinds.items():
        assert Wanted(**{name: frozenset({value, "other"})}).holds(decision, at)  # type: ignore[arg-type]
        assert not Wanted(**{name: frozenset({"other"})}).holds(decision, at)  # type: ignore[arg-type]
    both = Wanted(conversations=frozenset({"conv-1"}), outcomes=frozenset({"skipped"}))
    assert not both.holds(decision, at)


async def test_a_decision_is_known_by_its_id_its_uri_its_place_and_its_prompt() -> None:
    decision, at = await one()
    assert Wanted(ids=frozenset({decision.decision_id})).holds(decision, at)
    assert Wanted(ids=frozenset({"at://p/asking"})).holds(decision, at)
    assert not Wanted(ids=frozenset({"at://p/other"})).holds(decision, at)
    assert Wanted(stretches=(Stretch.parse("feed.mentions/2/0"),)).holds(decision, at)
    assert Wanted(stretches=(Stretch.parse("bot.audit/2/0"),)).holds(decision, at)
    assert not Wanted(stretches=(Stretch.parse("feed.mentions/2/1-5"),)).holds(decision, at)
    assert decision.prompt is not None
    assert Wanted(prompts=(decision.prompt.template_hash[:8],)).holds(decision, at)
    assert not Wanted(prompts=("zz",)).holds(decision, at)


async def test_who_asked_is_told_where_the_record_knows() -> None:
    decision, _ = await one()
    assert asker_of(decision) == ALICE.id
    assert Wanted(authors=frozenset({ALICE.id})).by_author(decision) is True
    assert Wanted(authors=frozenset({BOB.id})).by_author(decision) is False
    bare = decision.model_copy(update={"context": ()})
    assert Wanted(authors=frozenset({BOB.id})).by_author(bare) is None


async def test_another_conversation_is_not_even_decoded() -> None:
    _, at = await one()
    assert Wanted(conversations=frozenset({"conv-1"})).may_hold(at)
    assert not Wanted(conversations=frozenset({"conv-2"})).may_hold(at)
