"""Lanes keep order inside, and nobody waits for a stranger."""

from collections import defaultdict

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.lanes import Lanes


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
    lanes.put_back(*taken)
    assert lanes.take() == ("a", 1)


def test_drop_forgets_what_waits_and_keeps_the_busy_lane_usable() -> None:
    lanes: Lanes[str, int] = Lanes()
    for item in (1, 2):
        lanes.put("a", item)
    lanes.put("b", 3)
    assert lanes.take() == ("a", 1)
    assert lanes.drop(lambda lane: lane == "a") == 1
    assert lanes.waiting == 1
    lanes.done("a")
    assert lanes.take() == ("b", 3)
    lanes.put("a", 4)
    assert lanes.take() == ("a", 4)


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
            self.lanes.put_back(lane, item)
            self.model[lane].insert(0, item)
        else:
            self.lanes.done(lane)

    @rule(lane=st.integers(0, 4))
    def drop(self, lane: int) -> None:
        assert self.lanes.drop(lambda other: other == lane) == len(self.model.pop(lane, []))

    @invariant()
    def counts_agree(self) -> None:
        assert self.lanes.waiting == sum(map(len, self.model.values()))
        assert self.lanes.busy == len(self.busy)


TestLanesMachine = LanesMachine.TestCase
