"""Access lists say who may write what, and are in step with what the worker does."""

import pytest

from bot.access import ROLES, Right, rights_of
from bot.handlers import INPUT_TOPICS, OUTPUT_TOPICS
from schemas.topics import TOPICS


def writes(role: str) -> set[str]:
    rights = rights_of(role, "twite")
    return {one.name for one in rights if (one.kind, one.operation) == ("topic", "Write")}


def test_only_the_sealer_writes_seals_and_only_a_replay_its_results() -> None:
    assert writes("worker") == {*OUTPUT_TOPICS, "bot.direct-activity", "bot.held"}
    assert writes("sealer") == {"bot.audit-seals"}
    assert writes("replay") == {"bot.replays"}
    assert writes("auditor") == set()
    assert writes("moderator") == {"bot.moderation", "bot.moderation-log", "bot.reviews"}


def test_a_moderator_writes_as_moderators_do_and_reads_nothing_that_people_wrote() -> None:
    rights = rights_of("moderator", "mine")
    assert Right("transactional-id", "twite.moderate.", "Write", prefixed=True) in rights
    reads = {one.name for one in rights if one.operation == "Read"}
    assert reads == {"bot.audit", "bot.audit-private", "bot.held", "bot.moderation-log"}


def test_a_worker_reads_its_inputs_and_a_replay_joins_no_group() -> None:
    worker = rights_of("worker", "mine")
    assert {Right("topic", topic, "Read") for topic in INPUT_TOPICS} < set(worker)
    assert Right("group", "mine", "Read") in worker
    assert {one.kind for one in rights_of("replay", "mine")} == {"topic"}


@pytest.mark.parametrize("role", ROLES)
def test_only_topics_of_the_contract_are_named(role: str) -> None:
    assert {one.name for one in rights_of(role, "g") if one.kind == "topic"} <= set(TOPICS)


def test_a_right_is_a_line_for_a_shell() -> None:
    line = Right("transactional-id", "a b.", "Write", prefixed=True).command("User:it's")
    assert line == (
        "kafka-acls.sh --add --allow-principal 'User:it'\"'\"'s' --operation Write"
        " --transactional-id 'a b.' --resource-pattern-type prefixed"
    )
