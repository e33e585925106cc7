"""Who is next: priority, then the shorter one, and nobody waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from model.waiting import Waiting


def queue(*entries: tuple[str, int, int], patience: int = 16, need: int = 1) -> Waiting[str]:
    """Of (name, priority, tokens to read)."""
    made: Waiting[str] = Waiting(patience)
    for name, priority, size in entries:
        made.add(name, priority=priority, size=size, need=need)
    return made


def all_of(waiting: Waiting[str], room: int = 100) -> list[str]:
    taken = []
    while (item := waiting.take(room)) is not None:
        taken.append(item)
    return taken


def test_direct_messages_go_before_mentions() -> None:
    waiting = queue(("mention", 0, 10), ("direct", 1, 900), ("other mention", 0, 10))
    assert all_of(waiting) == ["direct", "mention", "other mention"]


def test_the_short_go_before_the_long_and_those_of_about_one_length_in_order() -> None:
    waiting = queue(("long", 0, 1500), ("one", 0, 250), ("two", 0, 200), ("three", 0, 240))
    assert all_of(waiting) == ["one", "two", "three", "long"]


def test_who_was_overtaken_often_enough_is_next_whatever_comes() -> None:
    waiting = queue(("patient", 0, 1500), patience=3)
    taken = []
    for n in range(5):
        waiting.add(f"direct {n}", priority=1, size=1, need=1)
        taken.append(waiting.take(100))
    assert taken == ["direct 0", "direct 1", "direct 2", "patient", "direct 3"]


def test_a_smaller_one_passes_one_that_does_not_fit_but_not_for_ever() -> None:
    waiting: Waiting[str] = Waiting(patience=2)
    waiting.add("big", priority=1, size=9, need=50)
    for n in range(3):
        waiting.add(f"small {n}", priority=0, size=9, need=5)
    assert [waiting.take(10) for _ in range(3)] == ["small 0", "small 1", None]
    assert all_of(waiting, room=50) == ["big", "small 2"]


def test_where_only_short_ones_are_asked_the_long_hold_nobody_up_and_are_next_after() -> None:
    waiting = queue(("long", 0, 1500), *((f"short {n}", 0, 9) for n in range(4)), patience=2)
    assert [waiting.take(100, at_most=10) for _ in range(3)] == ["short 0", "short 1", "short 2"]
    assert waiting.take(100) == "long", "overtaken often enough"
    assert waiting.take(100, at_most=10) == "short 3"
    assert waiting.take(100, at_most=10) is None


def test_those_who_went_away_are_forgotten() -> None:
    waiting = queue(("a", 0, 1), ("b", 0, 1), ("c", 0, 1))
    waiting.drop(["b"])
    assert waiting.all() == all_of(waiting) == ["a", "c"]
    assert len(waiting) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4000)), max_size=60), st.data())
def test_all_are_served_once_and_none_is_overtaken_too_often(
    arrivals: list[tuple[int, int]], data: st.DataObject
) -> None:
    patience = 4
    waiting: Waiting[int] = Waiting(patience)
    there: dict[int, int] = {}  # who waits, and by how many it was overtaken
    served = []

    def serve() -> None:
        taken = waiting.take(1)
        assert taken is not None
        del there[taken]
        for other in there:
            there[other] += other < taken
        served.append(taken)

    for number, (priority, size) in enumerate(arrivals):
        waiting.add(number, priority=priority, size=size, need=1)
        there[number] = 0
        if data.draw(st.booleans()):
            serve()
        assert max(there.values(), default=0) <= patience
    while there:
        serve()
        assert max(there.values(), default=0) <= patience
    assert sorted(served) == list(range(len(arrivals)))
