import gc
import sys
import weakref

import pytest

from bot.interpreter import THRESHOLDS, TURN_S, tuned


class Node:
    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_before_is_left_alone_until_the_end() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    with tuned():
        assert gc.get_freeze_count() > 1_000
        assert gc.get_threshold() == THRESHOLDS
        assert sys.getswitchinterval() == pytest.approx(TURN_S)
    assert gc.get_freeze_count() == 0
    assert (gc.get_threshold(), sys.getswitchinterval()) == before


def test_what_comes_later_is_still_collected() -> None:
    with tuned():
        node = weakref.ref(Node())
        assert node() is not None
        gc.collect()
        assert node() is None
