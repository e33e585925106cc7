"""Everything a worker can be told, in one value. Times in seconds unless the name says ms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """How a worker reads, how much it takes on, and when it gives up.

    ``topics`` are read by the group, ``output_topics`` are only checked at the start: they
    must exist and have at least the partitions of the inputs. Records of ``silent_topics`` may
    have no outputs: then their offset alone is committed. ``quick_topics`` hold quick records
    (see ``consumers.handler.Job``): they are read also while slow ones fill the room. ``client``
    holds the security options that every aiokafka client gets.
    """

    bootstrap_servers: str
    group_id: str
    topics: tuple[str, ...]
    output_topics: tuple[str, ...] = ()
    silent_topics: frozenset[str] = frozenset()
    quick_topics: frozenset[str] = frozenset()
    client: Mapping[str, Any] = field(default_factory=dict)
    client_id: str = "twite"
    group_instance_id: str | None = None

    max_in_flight: int = 16
    waiting_per_slot: int = 4
    max_waiting: int = 20_000
    max_waiting_bytes: int = 64 * 1024 * 1024  # of quick topics, and again of all others
    # What waits for its time, and behind it in its lane, takes no room from the others up to here;
    # of quick topics, and again of all others.
    max_held: int = 5_000
    max_held_bytes: int = 32 * 1024 * 1024
    weights: Mapping[str, float] = field(default_factory=dict)  # topics' shares, 1 if not named
    max_attempts: int = 5
    deadline_s: float = 120.0
    retry_base_s: float = 0.2
    retry_cap_s: float = 10.0

    grace_s: float = 10.0
    session_timeout_ms: int = 6_000
    heartbeat_interval_ms: int = 1_500
    # An open transaction hides other producers' records behind it, so it must be short,
    # but longer than we wait for our own commit.
    transaction_timeout_ms: int = 20_000
    commit_timeout_s: float = 10.0
    max_batch_records: int = 500
    max_batch_bytes: int = 64 * 1024 * 1024  # what one compressed batch may unpack to
    max_request_bytes: int = 8 * 1024 * 1024

    @property
    def rebalance_timeout_ms(self) -> int:
        """Long enough to drain: grace, one commit, and a second to say goodbye."""
        drain = self.grace_s + self.commit_timeout_s + 1.0
        return max(self.session_timeout_ms, round(drain * 1000))
