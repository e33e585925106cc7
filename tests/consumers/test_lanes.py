"""Lanes keep order inside, and nobody waits for a stranger."""

from collections import defaultdict

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.lanes import Lanes, Share


def test_a_busy_lane_blocks_only_itself() -> None:
    lanes: Lanes[str, int] = Lanes()
    for lane, item in [("a", 1), ("a", 2), ("b", 3)]:
        lanes.put(lane, item)
    assert lanes.take() == ("a", 1)
    assert lanes.take() == ("b", 3)
    assert lanes.take() is None
    lanes.done("a")
    assert lanes.take() == ("a", 2)


def test_an_item_put_back_runs_before_the_rest_of_its_lane() -> None:
    lanes: Lanes[str, int] = Lanes()
    lanes.put("a", 1)
    lanes.put("a", 2)
    taken = lanes.take()
    assert taken == ("a", 1)
    lanes.put_back("a")
    assert lanes.take() == ("a", 1)


def test_drop_forgets_what_waits_and_keeps_the_busy_lane_usable() -> None:
    lanes: Lanes[str, int] = Lanes()
    for item in (1, 2):
        lanes.put("a", item)
    lanes.put("b", 3)
    assert lanes.take() == ("a", 1)
    assert lanes.drop(lambda lane: lane == "a") == [2]
    assert lanes.waiting == 1
    lanes.done("a")
    assert lanes.take() == ("b", 3)
    lanes.put("a", 4)
    assert lanes.take() == ("a", 4)


def author(name: str, thread: str = "t", priority: float = 0.0) -> Share:
    return Share(flows=((("author", name), 1.0), (("thread", thread), 0.25)), priority=priority)


def served(lanes: Lanes[tuple[str, int], str]) -> list[str]:
    """Everything that waits, in the order in which it is served."""
    order = []
    while taken := lanes.take():
        order.append(taken[1])
        lanes.done(taken[0])
    return order


def test_a_flood_of_one_author_delays_others_by_no_more_than_their_share() -> None:
    lanes: Lanes[tuple[str, int], str] = Lanes()
    for i in range(10_000):
        lanes.put(("flood", i), "flood", author("flood", thread=f"t{i}"))
    for i in range(50):
        assert lanes.take() is not None, i
    for i in range(20):
        lanes.put((f"quiet{i}", 0), f"quiet{i}", author(f"quiet{i}", thread=f"q{i}"))
    order = served(lanes)
    last_quiet = max(i for i, item in enumerate(order) if item != "flood")
    assert last_quiet <= 2 * 20


def test_a_viral_thread_does_not_hold_up_the_others() -> None:
    lanes: Lanes[tuple[str, int], str] = Lanes()
    for i in range(10_000):
        lanes.put((f"fan{i}", 0), "viral", author(f"fan{i}", thread="viral"))
    assert lanes.flows == 10_000
    for _ in range(100):
        lanes.take()
    for i in range(10):
        lanes.put((f"quiet{i}", 0), "quiet", author(f"quiet{i}", thread=f"q{i}"))
    assert [i for i, item in enumerate(served(lanes)) if item == "quiet"][-1] <= 50


def test_classes_share_by_weight_and_an_idle_one_saves_no_turns() -> None:
    lanes: Lanes[tuple[str, int], str] = Lanes(lambda lane: lane[0], {"dm": 3.0, "mention": 1.0})
    for i in range(400):
        lanes.put(("mention", i), "mention")
    for _ in range(100):
        lanes.take()
    for i in range(300):
        lanes.put(("dm", i), "dm")
    first = [taken[1] for taken in (lanes.take() for _ in range(100)) if taken]
    assert first.count("dm") == 75


def test_priority_overtakes_within_its_bound_and_starves_nobody() -> None:
    lanes: Lanes[tuple[str, int], str] = Lanes(priority_bound=8.0)
    lanes.put(("a", 0), "patient", author("a", "p"))
    for i in range(100):
        lanes.put((f"b{i}", 0), "urgent", author("b", f"t{i}", priority=1.0))
    order = served(lanes)
    assert order[0] == "urgent"
    assert order.index("patient") <= 9


def test_flow_memory_is_swept() -> None:
    lanes: Lanes[tuple[str, int], str] = Lanes()
    for i in range(20_000):
        lanes.put((f"a{i}", 0), "x", author(f"a{i}", f"t{i}"))
        taken = lanes.take()
        assert taken is not None
        lanes.done(taken[0])
    remembered = sum(len(group.finish) for group in lanes._classes.values())
    assert remembered < 20_000


class LanesMachine(RuleBasedStateMachine):
    """Against the obvious model: a list per lane and a set of busy lanes."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[int, int] = Lanes()
        self.model: dict[int, list[int]] = defaultdict(list)
        self.busy: dict[int, int] = {}
        self.counter = 0

    @rule(lane=st.integers(0, 4))
    def put(self, lane: int) -> None:
        self.counter += 1
        self.lanes.put(lane, self.counter)
        self.model[lane].append(self.counter)

    @rule()
    def take(self) -> None:
        taken = self.lanes.take()
        if taken is None:
            assert all(lane in self.busy for lane, queue in self.model.items() if queue)
            return
        lane, item = taken
        assert lane not in self.busy
        assert self.model[lane].pop(0) == item
        self.busy[lane] = item

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), again=st.booleans())
    def end(self, data: st.DataObject, again: bool) -> None:
        lane = data.draw(st.sampled_from(sorted(self.busy)))
        item = self.busy.pop(lane)
        if again:
            self.lanes.put_back(lane)
            self.model[lane].insert(0, item)
        else:
            self.lanes.done(lane)

    @rule(lane=st.integers(0, 4))
    def drop(self, lane: int) -> None:
        assert self.lanes.drop(lambda other: other == lane) == self.model.pop(lane, [])

    @invariant()
    def counts_agree(self) -> None:
        assert self.lanes.waiting == sum(map(len, self.model.values()))
        assert self.lanes.busy == len(self.busy)


TestLanesMachine = LanesMachine.TestCase
