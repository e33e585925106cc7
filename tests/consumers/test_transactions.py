"""What ``consumers.transactions`` relies on inside the client library, and its sizes."""

import inspect

from aiokafka.producer import sender

from consumers.batches import record_size
from schemas.record import Output


def test_the_pause_between_transactions_is_where_we_set_it() -> None:
    """A new version of the library may move it; then the worker is slow, not wrong."""
    assert isinstance(sender.BACKOFF_OVERRIDE, float)
    used = inspect.getsource(sender.AddPartitionsToTxnHandler.handle_response)
    assert "return BACKOFF_OVERRIDE" in used


def test_the_size_of_an_output_counts_everything() -> None:
    small = record_size(Output(topic="t", key=None, value=None))
    headers = (("name", b"12345"), ("null", None), ("n\udcff", b""))
    large = record_size(Output(topic="t", key=b"123", value=b"1234567", headers=headers))
    assert large - small == 3 + 7 + (4 + 5 + 10) + (4 + 10) + (2 + 10)
