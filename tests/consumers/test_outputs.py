"""What a handler may hand in: garbage must not reach a transaction, which it fails for ever."""

from typing import Any

import pytest

from consumers.config import WorkerConfig
from consumers.errors import FaultyOutputs
from consumers.handler import GiveUp
from consumers.outputs import Checker
from schemas.record import Output

CONFIG = WorkerConfig(
    bootstrap_servers="none:1",
    group_id="g",
    topics=("in",),
    output_topics=("out",),
    silent_topics=frozenset({"quiet"}),
    max_request_bytes=10_000,
)
GOOD = Output(topic="out", key=b"k", value=None, headers=(("name", None), ("other", b"v")))


def check(outputs: Any, config: WorkerConfig = CONFIG, topic: str = "in") -> None:
    checker = Checker(config)
    checker.partitions = {"out": 4}
    checker.check(topic, outputs)


def output(**fields: Any) -> Output:
    return Output(**{"topic": "out", "key": b"k", "value": b"v"} | fields)


def test_good_outputs_pass() -> None:
    check([GOOD, output(key=None)])
    check((output(partition=0), output(partition=3)))
    anything = WorkerConfig(bootstrap_servers="n:1", group_id="g", topics=())
    check([output(topic="any"), output(topic="any", partition=99)], anything)


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        [],
        "text",
        iter([GOOD]),
        {GOOD},
        [1, 2],
        [GOOD, None],
        [output(value="text")],
        [output(key="text")],
        [output(topic=b"out")],
        [output(headers=((b"name", b"value"),))],
        [output(headers=(("name", "value"),))],
        [output(headers=(("only a name",),))],
        [output(headers=(b"ab",))],
        [output(headers=(None,))],
        [output(headers=None)],
        [output(headers=iter([("name", b"value")]))],
        [GOOD, output(topic="nowhere")],
        [output(headers=(("\ud800", b"v"),))],
    ],
    ids=repr,
)
def test_garbage_counts_as_a_failed_attempt(outputs: Any) -> None:
    with pytest.raises(FaultyOutputs):
        check(outputs)


@pytest.mark.parametrize("partition", [-1, 4, "0", 0.0])
def test_a_partition_that_is_not_there_counts_as_a_failed_attempt(partition: Any) -> None:
    with pytest.raises(FaultyOutputs):
        check([GOOD, output(partition=partition)])


def test_a_silent_topic_may_have_no_outputs() -> None:
    check([], topic="quiet")
    check((), topic="quiet")
    check([GOOD], topic="quiet")
    with pytest.raises(FaultyOutputs):
        check(None, topic="quiet")
    with pytest.raises(FaultyOutputs):
        check([None], topic="quiet")


def test_an_output_that_the_broker_refuses_is_given_up() -> None:
    checker = Checker(CONFIG)
    checker.check_sizes([GOOD])
    checker.check_sizes([])
    with pytest.raises(GiveUp, match="output-too-large"):
        checker.check_sizes([GOOD, output(value=bytes(10_000))])
