"""Replies after they were made: nothing wrong in a correct chain, and every break of one found."""

from dataclasses import replace

import pytest

from tests.chaos.facts import Amended, Fact, Raw, Reply, Told, output_fact, told_facts
from tests.chaos.feed import Feed
from tests.chaos.revisions import check

TOPIC = "bot.replies"
ASKED = Told(("feed.mentions", 0, 0), "post:1", 1, "@twite what now?")
EDITED = Told(("feed.posts", 0, 0), "post:1", 2, "@twite what then?")
DELETED = Told(("feed.posts", 0, 1), "post:1", 0, "", deleted=True)
PARENT_GONE = replace(DELETED, uri="parent:1")
MADE = Reply(
    at=(TOPIC, 0, 0),
    id="reply:1",
    header_id="reply:1",
    cause="event",
    decision="decision:1",
    source=("post:1", "r1"),
    part=1,
    text="echo 0: what now?",
    built_on=("post:1", "parent:1"),
)
CORRECTED = Amended(
    at=(TOPIC, 0, 1),
    id="reply:1",
    header_id="reply:1/decision:2",
    cause="review",
    decision="decision:2",
    revision="decision:2",
    text="echo 1: what then?",
    built_on=("post:1",),
)
TAKEN_BACK = replace(
    CORRECTED, at=(TOPIC, 0, 2), decision="decision:3", revision=None, text="", built_on=()
)
AGAIN = replace(TAKEN_BACK, at=(TOPIC, 0, 3), decision="decision:4")


def kinds(outputs: list[Fact], told: list[Told], *, drained: bool = True) -> set[str]:
    return {kind for kind, _, _ in check(outputs, told, drained=drained)}


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([], [ASKED, DELETED]),
        ([MADE], [ASKED]),
        ([MADE, CORRECTED], [ASKED, EDITED]),
        ([MADE, CORRECTED], [ASKED, EDITED, PARENT_GONE]),
        ([MADE, TAKEN_BACK], [ASKED, DELETED]),
        ([MADE, CORRECTED, TAKEN_BACK], [ASKED, EDITED, DELETED]),
    ],
)
def test_a_correct_chain_is_correct(outputs: list[Fact], told: list[Told]) -> None:
    assert kinds(outputs, told) == set()


@pytest.mark.parametrize(
    ("outputs", "wrong"),
    [
        ([MADE, replace(MADE, at=(TOPIC, 0, 5))], "twice"),
        ([MADE, TAKEN_BACK, AGAIN], "twice"),
        ([MADE, TAKEN_BACK, replace(CORRECTED, at=(TOPIC, 0, 3))], "twice"),
        ([MADE, CORRECTED, replace(CORRECTED, at=(TOPIC, 0, 2))], "twice"),
        ([MADE, replace(MADE, id="reply:2", source=("post:1", "r2"))], "twice"),
        ([CORRECTED], "torn"),
        ([MADE, replace(CORRECTED, at=("bot.direct-replies", 0, 1))], "place"),
        ([replace(MADE, at=(TOPIC, 0, 9)), CORRECTED], "misordered"),
    ],
)
def test_a_broken_chain_is_found_at_any_time(outputs: list[Fact], wrong: str) -> None:
    assert wrong in kinds(outputs, [ASKED, EDITED], drained=False)


@pytest.mark.parametrize(
    ("outputs", "told", "wrong"),
    [
        ([MADE], [ASKED, DELETED], "stale"),
        ([MADE], [ASKED, PARENT_GONE], "stale"),
        ([MADE], [ASKED, EDITED], "stale"),
        ([MADE, TAKEN_BACK], [ASKED], "wrong"),
    ],
)
def test_what_was_left_undone_is_found_at_the_end(
    outputs: list[Fact], told: list[Told], wrong: str
) -> None:
    assert kinds(outputs, told) == {wrong}
    assert kinds(outputs, told, drained=False) == set()


def test_amendments_are_told_from_replies_by_their_type() -> None:
    headers = (("ce_type", b"twite.bot.direct-reply.retracted.v1"), ("ce_id", b"r/d"))
    raw = Raw("bot.direct-replies", 0, 1, b"k", b'{"reply_id":"r","decision_id":"d"}', headers)
    fact = output_fact(raw)
    assert isinstance(fact, Amended)
    assert (fact.id, fact.decision, fact.revision) == ("r", "d", None)


def test_the_feed_changes_posts_and_messages_and_what_mentions_are_built_on() -> None:
    told = [
        one
        for item in Feed(3, 2, changes=0.3).items(600)
        for one in told_facts(Raw(item.topic, 0, 0, item.key, item.value, item.headers))
    ]
    deleted = {one.uri.split(":")[1] for one in told if one.deleted}
    edited = {one.uri.split(":")[1] for one in told if one.version > 1}
    assert deleted == edited == {"post", "parent", "quoted"}
    assert all(one.text or one.deleted or "quoted" in one.uri for one in told)
