"""The transaction that a command of a moderator is written in."""

import pytest

from bot.moderation import SEND_TIMEOUT_S, TRANSACTION_TIMEOUT_S, _producer
from bot.settings import KafkaSettings


async def test_a_moderator_that_was_killed_holds_nothing_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers wait for an open transaction until the broker gives it up."""
    asked: dict[str, object] = {}

    class Client:
        def __init__(self, **options: object) -> None:
            asked.update(options)

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

    monkeypatch.setattr("bot.moderation.AIOKafkaProducer", Client)
    async with _producer(KafkaSettings()):
        assert asked["transaction_timeout_ms"] == 3_000
    assert SEND_TIMEOUT_S < TRANSACTION_TIMEOUT_S
