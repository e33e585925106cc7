"""A broker that is away is told of, not shouted about."""

import logging

import pytest

from consumers import quiet
from consumers.quiet import Damper


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(
    text: str, *args: object, level: int = logging.ERROR, name: str = "aiokafka.client"
) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, text, args, None)


def test_the_same_message_comes_through_once_in_a_while_with_a_count() -> None:
    damper = Damper(10.0, clock := Clock())
    passed = []
    for second in range(25):
        clock.now = 100.0 + second
        line = record("Unable connect to node with id %s: %s", 0, OSError("refused"))
        if damper.filter(line):
            passed.append((second, line.getMessage()))
    text = "Unable connect to node with id 0: refused"
    more = f"{text} (and 9 times more in the 10 s before)"
    assert passed == [(0, text), (10, more), (20, more)]


def test_other_messages_and_loggers_are_not_held_back_by_it() -> None:
    damper = Damper(10.0, Clock())
    assert damper.filter(record("node %s", 1))
    assert damper.filter(record("node %s", 2))
    assert damper.filter(record("node %s", 1, name="aiokafka.conn"))
    assert not damper.filter(record("node %s", 1))
    assert not damper.filter(record("node 1"))


def test_what_is_less_than_a_warning_passes_always() -> None:
    damper = Damper(10.0, Clock())
    assert all(damper.filter(record("same", level=logging.INFO)) for _ in range(3))


def test_arguments_that_do_not_fit_cannot_raise_into_the_library() -> None:
    damper = Damper(10.0, Clock())
    assert damper.filter(record("%d", "text"))
    assert not damper.filter(record("%d", "text"))


def test_what_it_remembers_is_bounded_and_the_oldest_is_forgotten() -> None:
    damper = Damper(10.0, Clock())
    for number in range(1000):
        assert damper.filter(record("node %s", number))
    assert not damper.filter(record("node %s", 999))
    assert damper.filter(record("node %s", 0))
    assert len(damper._seen) <= 256


def test_installed_it_damps_the_library_and_nobody_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "_DAMPER", damper := Damper(10.0, Clock()))
    names = ("aiokafka", "aiokafka.producer.sender", "aiokafka.consumer.group_coordinator")
    for name in ("aiokafka", "aiokafkaish"):
        caplog.set_level(logging.ERROR, name)  # whatever it was before
    try:
        quiet.install()
        quiet.install()
        for name in (*names, "aiokafkaish"):
            for _ in range(3):
                logging.getLogger(name).error("away")
    finally:
        for name in logging.root.manager.loggerDict:
            logging.getLogger(name).removeFilter(damper)
    seen = [name for name, _, text in caplog.record_tuples if text == "away"]
    assert seen == [*names, *["aiokafkaish"] * 3]
