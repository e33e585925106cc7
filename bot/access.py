"""Who needs which rights on Kafka, and nothing more, as access lists.

In: a role (``worker``, ``sealer``, ``auditor``, ``moderator``, ``replay``) and a principal. Out:
the lines of ``kafka-acls.sh`` that give it exactly that. ``docs/operating.md`` says so to people.
Next: ``bot/cli/topics.py``.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bot.handlers import INPUT_TOPICS, OUTPUT_TOPICS
from bot.moderation import TRANSACTIONAL_ID as MODERATING
from bot.sealing.sealer import GROUP as SEALING
from bot.sealing.seals import SEALED
from schemas import names

Kind = Literal["topic", "group", "transactional-id"]
ROLES: Final = ("worker", "sealer", "auditor", "moderator", "replay")
_READ_BACK = (names.BOT_REPLIES, names.BOT_DIRECT_REPLIES, *SEALED)
_WHOLE = (names.FEED_ACCOUNTS, names.BOT_MODERATION)


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One right; ``prefixed``: on everything whose name begins so. Reading and writing include
    describing, as Kafka has it."""

    kind: Kind
    name: str
    operation: Literal["Read", "Write"]
    prefixed: bool = False

    def command(self, principal: str) -> str:
        """The line of ``kafka-acls.sh``, without the address of the brokers."""
        pattern = ["--resource-pattern-type", "prefixed"] if self.prefixed else []
        parts = ["kafka-acls.sh", "--add", "--allow-principal", principal]
        parts += ["--operation", self.operation, f"--{self.kind}", self.name, *pattern]
        return shlex.join(parts)


def rights_of(role: str, group_id: str) -> list[Right]:
    """What a role needs, in order. Raises ``KeyError`` for no role."""
    return sorted(set(_RIGHTS[role](group_id)))


def _worker(group_id: str) -> Iterator[Right]:
    yield from _topics("Read", (*INPUT_TOPICS, *_WHOLE, *_READ_BACK))
    yield from _topics("Write", (*OUTPUT_TOPICS, names.BOT_DIRECT_ACTIVITY, names.BOT_HELD))
    yield Right("group", group_id, "Read")
    yield Right("transactional-id", f"{group_id}.", "Write", prefixed=True)


def _sealer(_: str) -> Iterator[Right]:
    yield from _auditor(_)
    yield Right("topic", names.BOT_AUDIT_SEALS, "Write")
    yield Right("group", SEALING, "Read")
    yield Right("transactional-id", f"{SEALING}.", "Write", prefixed=True)


def _auditor(_: str) -> Iterator[Right]:
    yield from _topics("Read", (*SEALED, names.BOT_AUDIT_SEALS))


def _moderator(_: str) -> Iterator[Right]:
    """It finds replies on the audit, and sees those that are held; never what people wrote."""
    yield from _topics("Read", (*SEALED, names.BOT_HELD, names.BOT_MODERATION_LOG))
    commanded = (names.BOT_MODERATION, names.BOT_MODERATION_LOG, names.BOT_REVIEWS)
    yield from _topics("Write", commanded)
    yield Right("transactional-id", f"{MODERATING}.", "Write", prefixed=True)


def _replay(_: str) -> Iterator[Right]:
    """It joins no group; ``rebuilt`` reads everything that a worker remembers things from."""
    yield from _topics("Read", (*INPUT_TOPICS, *_WHOLE, *_READ_BACK, names.BOT_REPLAYS))
    yield Right("topic", names.BOT_REPLAYS, "Write")


def _topics(operation: Literal["Read", "Write"], topics: tuple[str, ...]) -> Iterator[Right]:
    for topic in topics:
        yield Right("topic", topic, operation)


_RIGHTS: Final[Mapping[str, Callable[[str], Iterator[Right]]]] = {
    "worker": _worker,
    "sealer": _sealer,
    "auditor": _auditor,
    "moderator": _moderator,
    "replay": _replay,
}
