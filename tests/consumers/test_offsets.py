"""The committed offset and its map: whatever finishes, exactly the rest runs again."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.offsets import (
    MAX_SPAN,
    METADATA_LIMIT,
    Committed,
    OffsetTracker,
    decode_map,
    encode_map,
)


def test_golden_maps() -> None:
    """Written down byte by byte: maps on the brokers outlive the worker that wrote them."""
    assert encode_map([10, 13], 15) == "1bFg=="  # 0b00010110: 11, 12 and 14
    assert decode_map(10, "1bFg==") == Committed(10, frozenset({11, 12, 14}))
    assert encode_map([0], 1001) == "1rAegH"  # one unfinished, a thousand finished
    assert decode_map(0, "1rAegH") == Committed(0, frozenset(range(1, 1001)))


def test_nothing_ahead_needs_no_map() -> None:
    assert encode_map([5, 6, 7], 8) == ""


@pytest.mark.parametrize(
    "metadata", ["", "x", "1", "2bFg==", "1zFg==", "1b***", "1rgICAgIA=", "1r/////w==", "note"]
)
def test_unknown_or_damaged_metadata_falls_back_to_the_plain_offset(metadata: str) -> None:
    assert decode_map(7, metadata) == Committed(7)


@given(st.text(max_size=60))
def test_decode_never_raises(metadata: str) -> None:
    assert decode_map(3, metadata).offset == 3


@given(st.sets(st.integers(0, 3000), min_size=1), st.integers(0, 50), st.integers(0, 10**12))
def test_encode_then_decode(unfinished: set[int], tail: int, base: int) -> None:
    shifted = sorted(offset + base for offset in unfinished)
    end = shifted[-1] + 1 + tail
    metadata = encode_map(shifted, end)
    assert len(metadata) <= METADATA_LIMIT
    expected = set(range(shifted[0], end)) - set(shifted)
    assert decode_map(shifted[0], metadata) == Committed(shifted[0], frozenset(expected))


def test_a_map_that_does_not_fit_is_left_out() -> None:
    assert encode_map(list(range(0, 40_000, 2)), 40_000) == ""


def test_intake_stops_while_the_worst_map_still_fits() -> None:
    tracker = OffsetTracker(Committed(0))
    offset = 0
    while tracker.has_room:
        assert tracker.take(offset)
        offset += 1
    for finished in (range(1, offset, 2), range(1, offset, 3), range(1, offset)):
        position, metadata = tracker.commit_with(set(finished))
        assert position == 0
        assert 0 < len(metadata) <= METADATA_LIMIT * 0.75


def test_one_slow_record_does_not_let_the_span_grow_for_ever() -> None:
    tracker = OffsetTracker(Committed(0))
    for offset in range(MAX_SPAN):
        assert tracker.take(offset)
        if offset:
            tracker.finish([offset])
    assert not tracker.has_room
    tracker.finish([0])
    assert tracker.has_room


class TrackerMachine(RuleBasedStateMachine):
    """Take in, finish in any order, commit, crash, resume: each record is finished once."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker(Committed(0))
        self.committed = (0, "")
        self.log: list[int] = []  # offsets of the records that there are
        self.at = 0  # index into the log: the next record to be read
        self.flying: set[int] = set()
        self.finished: set[int] = set()

    @rule(gap=st.integers(0, 3))
    def take(self, gap: int) -> None:
        if self.at == len(self.log):
            # A gap: a transaction marker, or a compacted record.
            self.log.append(self.log[-1] + 1 + gap if self.log else gap)
        offset = self.log[self.at]
        self.at += 1
        new = self.tracker.take(offset)
        assert new == (offset not in self.finished)
        if new:
            self.flying.add(offset)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        batch = data.draw(st.sets(st.sampled_from(sorted(self.flying)), min_size=1))
        self.committed = self.tracker.commit_with(batch)
        self.tracker.finish(batch)
        self.flying -= batch
        self.finished |= batch

    @rule()
    def crash(self) -> None:
        committed = decode_map(*self.committed)
        self.tracker = OffsetTracker(committed)
        self.flying.clear()
        self.at = bisect_left(self.log, committed.offset)

    @invariant()
    def the_commit_covers_exactly_what_is_finished(self) -> None:
        committed = decode_map(*self.committed)
        assert all(committed.covers(offset) for offset in self.finished)
        assert not any(committed.covers(offset) for offset in self.flying)


TestTrackerMachine = TrackerMachine.TestCase
