"""``bot.memory``: repeats are told from firsts, within bounds."""

from datetime import timedelta
from typing import Any

from bot.memory import Memory, Recent
from bot.values import Seen
from schemas.feed import MessageDeleted, MessageEdited, Ref
from tests.bot.make import ALICE, BOB, BOT, NOW, direct, envelope, mention, mention_facet, message


def test_the_same_event_or_revision_names_the_first_decision() -> None:
    memory = Memory()
    assert memory.meet(envelope(id="e1"), mention(), "d1") == Seen()
    assert memory.meet(envelope(id="e1"), mention(), "d2") == Seen("d1", "d1")
    assert memory.meet(envelope(id="e3"), mention(), "d3") == Seen("d1", "d1")
    assert memory.meet(envelope(id="e1", source="/other"), direct(), "d4") == Seen()


def test_a_new_revision_names_the_earlier_decision() -> None:
    memory = Memory()
    memory.meet(envelope(id="e1"), mention(), "d1")
    assert memory.meet(envelope(id="e2"), mention(revision="r2"), "d2") == Seen(None, "d1")
    edited = MessageEdited(message=message(revision="r2"), previous_revision="r1")
    memory.meet(envelope(id="e3"), direct(), "d3")
    assert memory.meet(envelope(id="e4"), edited, "d4") == Seen(None, "d3")


def test_a_repeated_forget_forgets_nothing_more() -> None:
    memory = Memory()
    first, later = (
        direct("/forget", uri=f"at://m/{i}", created_at=NOW + timedelta(minutes=i)) for i in (1, 2)
    )
    asking = message(created_at=NOW + timedelta(minutes=3))
    memory.meet(envelope(id="e1"), first, "d1")
    assert memory.forgotten_until(asking) == first.message.created_at
    memory.meet(envelope(id="e2"), later, "d2")
    for event in ("e1", "e3"):
        memory.meet(envelope(id=event), first, f"again-{event}")
    assert memory.forgotten_until(asking) == later.message.created_at


def test_in_a_group_only_what_is_said_to_the_bot_forgets() -> None:
    memory = Memory(bot_id=BOT.id)
    group: dict[str, Any] = {"participants": (ALICE.id, BOB.id, BOT.id)}
    for name, who, forgets in (("@bob", BOB.id, False), ("@twite", BOT.id, True)):
        text = f"{name} /forget"
        facets = (mention_facet(text, name, who),)
        told = direct(text, uri=f"at://m/{name}", facets=facets, **group)
        memory.meet(envelope(id=name), told, name)
        assert (memory.forgotten_until(message(**group)) is not None) is forgets


def test_a_deletion_is_an_event_only() -> None:
    gone = MessageDeleted(
        ref=Ref(uri="at://m/1"), conversation_id="conv-1", deleted_by="author", deleted_at=NOW
    )
    memory = Memory()
    memory.meet(envelope(id="e1"), direct(), "d1")
    assert memory.meet(envelope(id="e2"), gone, "d2") == Seen()
    assert memory.meet(envelope(id="e2"), gone, "d3") == Seen("d2")


def test_the_same_record_again_is_no_repeat_of_itself() -> None:
    memory = Memory()
    memory.meet(envelope(), mention(), "d1")
    assert memory.meet(envelope(), mention(), "d1") == Seen()


def test_a_redriven_record_takes_the_place_of_its_dead_letter_once() -> None:
    memory = Memory()
    memory.meet(envelope(), mention(), "d1")
    memory.failed("d1")
    assert memory.meet(envelope(), mention(), "copy") == Seen("d1", "d1")
    assert memory.meet(envelope(), mention(), "d2", redriven=True) == Seen()
    assert memory.meet(envelope(), mention(), "d2", redriven=True) == Seen()  # opened again
    assert memory.meet(envelope(), mention(), "d3", redriven=True) == Seen("d2", "d2")
    memory.failed("d2")
    assert memory.meet(envelope(), mention(), "d4", redriven=True) == Seen()


def test_a_redriven_record_stays_a_repeat_of_what_was_answered() -> None:
    memory = Memory()
    memory.meet(envelope(), mention(), "d1")
    assert memory.meet(envelope(), mention(), "d2", redriven=True) == Seen("d1", "d1")
    memory.meet(envelope(id="e2"), direct(), "d3")
    memory.failed("d3")
    assert memory.meet(envelope(id="e3"), direct(), "d4", redriven=True) == Seen()
    assert memory.meet(envelope(id="e2"), direct(), "d5") == Seen("d3", "d4")


def test_failures_are_bounded_too() -> None:
    memory = Memory(entries=2)
    memory.meet(envelope(), mention(), "d1")
    for decision in ("d1", "x", "y"):
        memory.failed(decision)
    assert memory.meet(envelope(), mention(), "d2", redriven=True) == Seen("d1", "d1")


def test_keys_are_not_mixed_up() -> None:
    recent = Recent(10)
    recent.first("d1", "ab", "c")
    assert recent.first("d2", "a", "bc") is None
    assert recent.first("d3", "ab", "c") == "d1"


def test_it_is_bounded_and_the_longest_unasked_goes_first() -> None:
    recent = Recent(3)
    for name in "abc":
        recent.first(f"d-{name}", name)
    recent.first("again", "a")
    recent.first("d-d", "d")
    assert len(recent) == 3
    assert recent.first("later", "a") == "d-a"
    assert recent.first("later", "b") is None  # forgotten


def test_the_usual_bound_holds_a_hundred_thousand() -> None:
    recent = Recent(100_000)
    for i in range(100_001):
        recent.first(f"d{i}", str(i))
    assert len(recent) == 100_000
    assert recent.first("later", "1") == "d1"
