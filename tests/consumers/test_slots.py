"""What a handler may hand in: garbage must not reach a transaction, which it fails for ever."""

from typing import Any

import pytest

from consumers.config import WorkerConfig
from consumers.handler import GiveUp
from consumers.metrics import Metrics
from consumers.slots import Slots
from schemas.record import Output

CONFIG = WorkerConfig(
    bootstrap_servers="none:1",
    group_id="g",
    topics=("in",),
    output_topics=("out",),
    max_request_bytes=10_000,
)
GOOD = Output(topic="out", key=b"k", value=None, headers=(("name", None), ("other", b"v")))


def check(outputs: Any, config: WorkerConfig = CONFIG) -> None:
    Slots(config, Metrics(), lambda: 1, lambda: None)._check(outputs)


def output(**fields: Any) -> Output:
    return Output(**{"topic": "out", "key": b"k", "value": b"v"} | fields)


def test_good_outputs_pass() -> None:
    check([GOOD, output(key=None)])
    check([output(topic="any")], WorkerConfig(bootstrap_servers="n:1", group_id="g", topics=()))


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        [],
        "text",
        [1, 2],
        [GOOD, None],
        [output(value="text")],
        [output(key="text")],
        [output(topic=b"out")],
        [output(headers=((b"name", b"value"),))],
        [output(headers=(("name", "value"),))],
        [output(headers=(("only a name",),))],
        [GOOD, output(topic="nowhere")],
        [output(headers=(("\ud800", b"v"),))],
    ],
    ids=repr,
)
def test_garbage_counts_as_a_failed_attempt(outputs: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        check(outputs)


def test_an_output_that_the_broker_refuses_is_given_up() -> None:
    with pytest.raises(GiveUp, match="output-too-large"):
        check([GOOD, output(value=bytes(10_000))])
