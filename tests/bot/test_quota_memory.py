"""``bot.quota_memory``: sliding windows as the library's Redis counts them, and a bound."""

from hypothesis import given
from hypothesis import strategies as st

from bot.quota_memory import BoundedMemory


class Clock:
    """Seconds as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_the_window_before_counts_for_as_much_as_still_lies_in_sight() -> None:
    clock = Clock()
    memory = BoundedMemory(10, clock)
    assert [await memory.acquire_sliding_window_entry("k", 4, 60) for _ in range(5)] == [
        *[True] * 4,
        False,
    ]
    assert await memory.get_sliding_window("k", 60) == (0, 0.0, 4, 120.0)
    clock.now += 60
    assert await memory.get_sliding_window("k", 60) == (4, 60.0, 0, 120.0)
    assert not await memory.acquire_sliding_window_entry("k", 4, 60)
    clock.now += 30  # half of the window before is out of sight: two of its four count
    assert [await memory.acquire_sliding_window_entry("k", 4, 60) for _ in range(3)] == [
        True,
        True,
        False,
    ]
    clock.now += 120
    assert await memory.get_sliding_window("k", 60) == (0, 0.0, 0, 90.0)


@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=60),
)
async def test_no_more_than_allowed_and_nobody_for_ever(limit: int, steps: list[float]) -> None:
    """Never more than the limit in one window, and one at least in three of them."""
    clock, length = Clock(), 30
    memory = BoundedMemory(10, clock)
    granted: list[float] = []
    for step in steps:
        clock.now += step
        if await memory.acquire_sliding_window_entry("k", limit, length):
            granted.append(clock.now)
        else:
            assert clock.now - granted[-limit] < 2 * length
    start = granted[0]
    windows = [int((at - start) // length) for at in granted]
    # Windows begin with the first; rounding of floats may put an edge on either side.
    assert all(windows.count(window) <= limit + 1 for window in windows)
    while not await memory.acquire_sliding_window_entry("k", limit, length):
        clock.now += 1.0
        assert clock.now - granted[-1] <= 2 * length + 1


async def test_a_counter_starts_anew_after_its_time() -> None:
    clock = Clock()
    memory = BoundedMemory(10, clock)
    assert [await memory.incr("m", 10) for _ in range(2)] == [1, 2]
    clock.now += 9
    assert (await memory.incr("m", 10), await memory.get("m")) == (3, 3)
    assert await memory.get_expiry("m") == 1010.0
    clock.now += 1
    assert await memory.get("m") == 0
    assert await memory.incr("m", 10) == 1
    await memory.clear("m")
    assert await memory.get("m") == 0


async def test_what_was_unused_for_the_longest_goes_first() -> None:
    memory = BoundedMemory(3, Clock())
    for key in "abc":
        assert await memory.acquire_sliding_window_entry(key, 1, 60)
    # Whoever is refused stays refused, however many others come.
    for key in "defghij":
        assert not await memory.acquire_sliding_window_entry("a", 1, 60)
        assert await memory.acquire_sliding_window_entry(key, 1, 60)
    assert await memory.acquire_sliding_window_entry("b", 1, 60)
    for n in range(50):
        await memory.incr(f"m{n}", 60)
    assert await memory.reset() == 6


async def test_lengths_of_one_key_are_kept_apart() -> None:
    memory = BoundedMemory(10, Clock())
    assert await memory.acquire_sliding_window_entry("k", 1, 60)
    assert await memory.acquire_sliding_window_entry("k", 1, 3600)
    await memory.clear_sliding_window("k", 60)
    assert await memory.acquire_sliding_window_entry("k", 1, 60)
    assert not await memory.acquire_sliding_window_entry("k", 1, 3600)
    assert await memory.check()
