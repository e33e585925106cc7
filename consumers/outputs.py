"""What a handler hands in, looked at before it may reach a transaction.

Garbage would fail its transaction again and again, and its neighbours' with it; nothing at all
would leave an input without an outcome. In come the outputs of one record, out comes the same
or an error that names the handler's fault. What the broker alone can tell (a limit of a topic)
is treated in ``consumers.partition``.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from consumers.batches import raw_header_name, record_size
from consumers.config import WorkerConfig
from consumers.errors import FaultyOutputs
from consumers.handler import GiveUp
from schemas.record import Output

_BYTES = (bytes, NoneType)  # a tuple: "bytes | None" is made anew at every look


class Checker:
    """The checks of one worker. ``partitions``: how many the output topics have, once known."""

    def __init__(self, config: WorkerConfig) -> None:
        self.partitions: Mapping[str, int] = {}
        self._topics = frozenset(config.output_topics)
        self._silent = config.silent_topics
        self._largest = config.max_request_bytes

    def check(self, topic: str, outputs: Sequence[Output]) -> None:
        """Is it a sequence of outputs, each for a place that exists? ``topic``: the input's.

        Raises ``FaultyOutputs``.
        """
        if not isinstance(outputs, Sequence) or not (outputs or topic in self._silent):
            raise FaultyOutputs("the handler returned no sequence of outputs")
        for output in outputs:
            if not _is_output(output):
                raise FaultyOutputs("the handler returned something that is no proper output")
            if self._topics and output.topic not in self._topics:
                raise FaultyOutputs("the handler returned an output for a topic not its own")
            if output.partition is not None:
                self._check_partition(output.topic, output.partition)

    def _check_partition(self, topic: str, partition: int) -> None:
        if not 0 <= partition < self.partitions.get(topic, partition + 1):
            raise FaultyOutputs(f"the handler returned an output for {topic}/{partition}")

    def check_sizes(self, outputs: Sequence[Output]) -> None:
        """Raises ``GiveUp`` where one is larger than a request may be.

        Not for dead letters: they carry what came, which was compressed and will be again.
        """
        largest = max(map(record_size, outputs), default=0)
        if largest > self._largest:
            detail = f"an output of {largest} bytes, allowed are {self._largest}"
            raise GiveUp("output-too-large", detail)


def _is_output(output: object) -> bool:
    """Also inside: one text where bytes belong fails its transaction again and again."""
    return (
        isinstance(output, Output)
        and isinstance(output.topic, str)
        and isinstance(output.key, _BYTES)
        and isinstance(output.value, _BYTES)
        and (output.partition is None or isinstance(output.partition, int))
        and isinstance(output.headers, (tuple, list))
        and all(map(_is_header, output.headers))
    )


def _is_header(header: Any) -> bool:
    """Of surrogates in a name, some stand for bytes, the others for nothing that can be sent."""
    try:
        name, value = header
        raw_header_name(name)
    except (AttributeError, TypeError, ValueError):
        return False
    return isinstance(name, str) and isinstance(value, _BYTES)
