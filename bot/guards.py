"""The guards: is this cluster fit for exactly-once answers, and if not, what to do.

In: ``Cluster`` and the worker's configuration. Out: one ``Check`` per guard. Red: the worker
would lose, double or refuse something, or stand still; ``hard`` ones stop a worker at its start.
Yellow: worth knowing, above all on one broker, or not to be found out by this user. Each guard
is one small pure function; ``GUARDS`` is their order. Next: ``bot/checks.py``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from bot.cluster import CannotAsk, Cluster, TopicFacts, look
from bot.errors import Trouble
from bot.settings import KafkaSettings
from bot.views import VIEWS
from consumers.config import WorkerConfig
from consumers.offsets import METADATA_LIMIT
from schemas import names
from schemas.publish import is_read
from schemas.topics import MEETING, TOPICS

log = structlog.get_logger(__name__)

WEEKEND_MINUTES = 3 * 24 * 60
ASSIGNOR = "range"
PRODUCTION_COPIES = 3
# What the bot remembers is made of them; from the audit a worker also resumes where the group's
# offsets are gone.
READ_TOPICS = tuple(dict.fromkeys(topic for view in VIEWS for topic in view.topics))


class Level(StrEnum):
    """How a check ended: in order, worth knowing, wrong."""

    GREEN = "ok"
    YELLOW = "advice"
    RED = "no"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``todo`` is empty where it is in order. ``hard``: a worker
    does not start while it is red."""

    name: str
    level: Level
    found: str
    todo: str = ""
    hard: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; advice is not wrong."""
        return self.level is not Level.RED


def green(name: str, found: str) -> Check:
    return Check(name, Level.GREEN, found)


def red(name: str, found: str, todo: str, *, hard: bool = False) -> Check:
    return Check(name, Level.RED, found, todo, hard)


def yellow(name: str, found: str, todo: str = "") -> Check:
    return Check(name, Level.YELLOW, found, todo)


def judge(cluster: Cluster, config: WorkerConfig) -> list[Check]:
    """Every guard's answer, in the order of ``GUARDS``."""
    return [guard(cluster, config) for guard in GUARDS]


async def require_fit(config: WorkerConfig, kafka: KafkaSettings) -> None:
    """For a worker that starts: raises ``Trouble`` where it could not work, and
    ``BrokerUnreachable`` where nobody answers."""
    try:
        cluster = await look(config, kafka)
    except CannotAsk as error:
        log.warning("starting without the guards", error=error)
        return
    wrong = [c for c in (guard(cluster, config) for guard in START_GUARDS) if c.hard]
    if wrong:
        told = " ".join(f"{check.name}: {check.found}. {check.todo}" for check in wrong)
        raise Trouble(
            f"this cluster is not fit for a worker. {told}",
            where=kafka.bootstrap_servers,
            todo="`twite config check` shows everything.",
        )


def topics_there(cluster: Cluster, config: WorkerConfig) -> Check:
    hidden = [name for name, topic in cluster.topics.items() if not topic.visible]
    if missing := [name for name in TOPICS if name not in cluster.topics]:
        hard = not {*config.topics, *config.output_topics}.isdisjoint(missing)
        todo = "Create them with `twite topics create`."
        return red("topics", f"missing: {', '.join(missing)}", todo, hard=hard)
    if hidden:
        todo = "Give this user the right to describe them."
        return yellow("topics", f"not to be seen by this user: {', '.join(hidden)}", todo)
    return green("topics", f"all {len(TOPICS)} are there")


def partitions_equal(cluster: Cluster, config: WorkerConfig) -> Check:
    counts = {name: t.partitions for name, t in _seen(cluster).items() if name in MEETING}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        todo = (
            "Topics that meet in a conversation need the same number of partitions: add"
            " partitions to the smaller ones while they are empty, or recreate them with"
            " `twite topics create`."
        )
        return red("partitions", listed, todo, hard=True)
    if not counts:
        return yellow("partitions", "no topic to look at")
    return green("partitions", f"{max(counts.values())} for every topic of a conversation")


def rights(cluster: Cluster, config: WorkerConfig) -> Check:
    lacking = [
        f"{operation} {name}"
        for name, operation in _needed_rights(config)
        if _lacks(cluster.topics.get(name), operation)
    ]
    if cluster.group is None or _misses(cluster.group.rights, "read"):
        lacking.append(f"read group {config.group_id}")
    if "AuthorizationFailed" in cluster.producer:
        lacking.append(f"write transactional ids {config.group_id}.*")
    if lacking:
        todo = "Add these rights to the access lists of the cluster for this worker's user."
        return red("rights", f"lacking: {', '.join(lacking)}", todo, hard=True)
    if untold := [n for n, _ in _needed_rights(config) if _untold(cluster.topics.get(n))]:
        return yellow("rights", f"the brokers do not tell them for {', '.join(untold)}")
    return green("rights", "read and write where the worker needs it, group, transactions")


def _needed_rights(config: WorkerConfig) -> Iterable[tuple[str, str]]:
    yield from ((name, "read") for name in config.topics)
    yield from ((name, "write") for name in config.output_topics)
    known = {*config.topics, *config.output_topics}
    if not known.isdisjoint(READ_TOPICS):
        yield from ((name, "read") for name in READ_TOPICS if name not in config.topics)


def _lacks(topic: TopicFacts | None, operation: str) -> bool:
    return topic is not None and (not topic.visible or _misses(topic.rights, operation))


def _misses(known: frozenset[str] | None, operation: str) -> bool:
    return known is not None and operation not in known


def _untold(topic: TopicFacts | None) -> bool:
    return topic is not None and topic.rights is None


def sizes(cluster: Cluster, config: WorkerConfig) -> Check:
    """What the bot writes must fit; what others write may be smaller than the contract allows,
    but must not be so large that its dead letter doesn't fit."""
    name = "record sizes"
    found = _numbers(cluster, "max.message.bytes")
    small = {t: n for t, n in found.items() if n < TOPICS[t].max_message_bytes}
    written = [topic for topic in small if not is_read(topic)]
    letters = [found[t] for t in found if t.startswith(names.BOT_DEAD_LETTERS)]
    room = min(letters, default=0) // 2
    huge = [t for t in config.topics if letters and found.get(t, 0) > room]
    if written:
        wanted = ", ".join(f"{t} {TOPICS[t].max_message_bytes}" for t in written)
        listed = ", ".join(f"{t}: {small[t]}" for t in written)
        return red(name, f"max.message.bytes of {listed}", f"Set max.message.bytes: {wanted}.")
    if huge:
        todo = f"Set max.message.bytes of {', '.join(huge)} to {room} or less."
        return red(name, "a record may be larger than its dead letter", todo)
    if small:
        listed = ", ".join(f"{t}: {n}" for t, n in small.items())
        todo = "Events of up to 1 MiB need 2097152; smaller is fine if the platform's are smaller."
        return yellow(name, f"max.message.bytes of {listed}", todo)
    return _told(cluster, name, "every topic takes the largest record of the contract")


def timestamps(cluster: Cluster, config: WorkerConfig) -> Check:
    """What is too old is told by Kafka's time, which nobody may set."""
    name, key = "timestamps", "message.timestamp.type"
    wrong = _different(cluster, key)
    inputs = [topic for topic in wrong if is_read(topic)]
    if inputs:
        todo = f"Set {key}=LogAppendTime on them: else a client's clock decides what is too old."
        return red(name, f"{key} of {_listed(wrong, inputs)}", todo)
    if wrong:
        todo = f"Set {key}=LogAppendTime, so that times tell when something was written."
        return yellow(name, f"{key} of {_listed(wrong, wrong)}", todo)
    return _told(cluster, name, "set by the brokers")


def cleanup(cluster: Cluster, config: WorkerConfig) -> Check:
    name, key = "cleanup", "cleanup.policy"
    if wrong := _different(cluster, key):
        wanted = ", ".join(f"{topic} {TOPICS[topic].cleanup}" for topic in wrong)
        todo = f"Set {key}: {wanted}. Compacting would lose records, deleting would lose views."
        return red(name, f"{key} of {_listed(wrong, wrong)}", todo)
    return _told(cluster, name, "as the contract has it")


def kept(cluster: Cluster, config: WorkerConfig) -> Check:
    name = "retention"
    found = _numbers(cluster, "retention.ms")
    short = {t: n for t, n in found.items() if 0 <= n < _for_ever(TOPICS[t].retention_ms)}
    if short:
        listed = ", ".join(f"{topic}: {ms / 86_400_000:.3g} days" for topic, ms in short.items())
        todo = "Shorter than the contract: replays, explanations and redrives end there."
        return yellow(name, listed, todo)
    return _told(cluster, name, "as long as the contract has it, or longer")


def _for_ever(retention_ms: int) -> float:
    return float("inf") if retention_ms < 0 else retention_ms


def transactions(cluster: Cluster, config: WorkerConfig) -> Check:
    name, key = "transactions", "transaction.max.timeout.ms"
    ours = config.transaction_timeout_ms
    allowed = _broker_min(cluster, key)
    if cluster.producer == "InvalidTransactionTimeout" or (allowed is not None and allowed < ours):
        found = f"{key} is {allowed if allowed is not None else 'too small'}, ours are {ours}"
        todo = f"Set {key} of the brokers to {ours} or more (Kafka's default is 900000)."
        return red(name, found, todo, hard=True)
    if cluster.producer and "AuthorizationFailed" not in cluster.producer:
        todo = "Look at the brokers' logs: workers can't publish like this."
        return red(name, f"a producer can't start: {cluster.producer}", todo)
    if cluster.producer:
        return yellow(name, "not to be tried without the right to")
    return green(name, f"a producer starts with a timeout of {ours} ms")


def group_offsets(cluster: Cluster, config: WorkerConfig) -> Check:
    name, key = "group offsets", "offsets.retention.minutes"
    minutes = _broker_min(cluster, key)
    if minutes is None:
        return _unknown(name, key)
    if minutes < WEEKEND_MINUTES:
        todo = (
            f"Set {key} of the brokers to at least {WEEKEND_MINUTES} (Kafka's default: 10080):"
            " after a longer pause workers must read the whole audit to know where they were."
        )
        return red(name, f"forgotten after {minutes} minutes without a worker", todo)
    return green(name, f"kept for {minutes / 1440:.3g} days without a worker")


def commit_metadata(cluster: Cluster, config: WorkerConfig) -> Check:
    name, key = "commit metadata", "offset.metadata.max.bytes"
    room = _broker_min(cluster, key)
    if room is None:
        return _unknown(name, key)
    if room < METADATA_LIMIT:
        todo = f"Set {key} of the brokers to {METADATA_LIMIT} or more, Kafka's default."
        return red(name, f"{key} is {room}, the map of finished records may take more", todo)
    return green(name, f"{room} bytes for the map of finished records")


def session(cluster: Cluster, config: WorkerConfig) -> Check:
    name = "session"
    low = _broker_max(cluster, "group.min.session.timeout.ms")
    high = _broker_min(cluster, "group.max.session.timeout.ms")
    ours = config.session_timeout_ms
    if low is None or high is None:
        return _unknown(name, "group.min.session.timeout.ms")
    if not low <= ours <= high:
        todo = f"Set kafka.session_timeout_ms between {low} and {high}."
        return red(name, f"{ours} ms, the brokers allow {low} to {high}", todo, hard=True)
    return green(name, f"{ours} ms without a heartbeat, then a worker counts as dead")


def group(cluster: Cluster, config: WorkerConfig) -> Check:
    """Nobody else may take part: a member with other topics or another way to share them out
    breaks what keeps equal partitions together."""
    facts = cluster.group
    if facts is None:
        return yellow("group", "not to be described by this user")
    todo = "Give the worker a group of its own (kafka.group_id) or stop what else uses it."
    if facts.state == "Dead":
        if facts.listed:
            return red("group", "is a group of another kind (share, streams, new protocol)", todo)
        return green("group", "has no members yet")
    if facts.protocol_type not in ("", "consumer"):
        return red("group", f"is no consumer group but {facts.protocol_type}", todo)
    if facts.protocol not in ("", ASSIGNOR):
        found = f"shares partitions out by {facts.protocol}, not {ASSIGNOR}"
        return red("group", found, todo)
    wanted = frozenset(config.topics)
    if strangers := [m for m in facts.members if m.topics is not None and m.topics != wanted]:
        listed = ", ".join(f"{member.client_id} at {member.host}" for member in strangers)
        return red("group", f"members with other topics: {listed}", todo)
    members = f"{len(facts.members)} members" if facts.members else "no members now"
    return green("group", f"{members}, {facts.state.lower()}")


def copies(cluster: Cluster, config: WorkerConfig) -> Check:
    name = "copies"
    if cluster.brokers < 2:
        return yellow(name, "one broker, one copy", "Fine for development; production wants 3.")
    seen = {**_seen(cluster), **cluster.internal}
    wanted = min(PRODUCTION_COPIES, cluster.brokers)
    if few := {n: t.replication for n, t in seen.items() if 0 < t.replication < wanted}:
        listed = ", ".join(f"{topic}: {count}" for topic, count in few.items())
        todo = f"Keep {wanted} copies (kafka.replication; `kafka-reassign-partitions.sh`)."
        return red(name, listed, todo)
    if wanted < PRODUCTION_COPIES:
        return yellow(name, f"{wanted} copies on {cluster.brokers} brokers", "Production wants 3.")
    return green(name, f"at least {wanted} of every partition")


def in_sync(cluster: Cluster, config: WorkerConfig) -> Check:
    name, key = "in sync", "min.insync.replicas"
    found = _numbers(cluster, key)
    copies_of = {t: cluster.topics[t].replication for t in found}
    if stuck := [t for t, n in found.items() if n > 1 and n >= copies_of[t]]:
        todo = f"Set {key} below the number of copies: one broker down stops these topics."
        return red(name, f"{key} equals the copies of {', '.join(stuck)}", todo)
    if cluster.brokers < 2:
        return yellow(name, "one broker, one copy", "Production wants 2 of 3 copies in sync.")
    if weak := [topic for topic, count in found.items() if count < 2]:
        todo = f"Set {key}=2: else what is acknowledged can be lost with one broker."
        return red(name, f"{key} is 1 for {', '.join(weak)}", todo)
    return _told(cluster, name, "at least 2 copies before anything counts as written")


def no_surprises(cluster: Cluster, config: WorkerConfig) -> Check:
    name, key = "new topics", "auto.create.topics.enable"
    if cluster.broker_configs is None:
        return _unknown(name, key)
    if any(broker.get(key) == "true" for broker in cluster.broker_configs):
        return yellow(name, f"{key} is true", "A typo in a name makes a topic: set it to false.")
    return green(name, "are made on purpose only")


Guard = Callable[[Cluster, WorkerConfig], Check]
GUARDS: tuple[Guard, ...] = (
    topics_there,
    partitions_equal,
    rights,
    transactions,
    session,
    group,
    group_offsets,
    commit_metadata,
    sizes,
    timestamps,
    cleanup,
    kept,
    copies,
    in_sync,
    no_surprises,
)
# What can't pass by itself. Topics and their partitions the runtime looks at (check_topics):
# it has patience with new ones.
START_GUARDS: tuple[Guard, ...] = (rights, transactions, session)


def _seen(cluster: Cluster) -> dict[str, TopicFacts]:
    return {name: topic for name, topic in cluster.topics.items() if topic.visible}


def _values(cluster: Cluster, key: str) -> dict[str, str]:
    """A topic setting by topic, where it could be asked."""
    return {
        name: topic.config[key]
        for name, topic in cluster.topics.items()
        if topic.config is not None and key in topic.config
    }


def _numbers(cluster: Cluster, key: str) -> dict[str, int]:
    return {name: int(value) for name, value in _values(cluster, key).items()}


def _different(cluster: Cluster, key: str) -> dict[str, str]:
    """Topics whose setting is not that of the contract."""
    return {t: v for t, v in _values(cluster, key).items() if v != TOPICS[t].config()[key]}


def _listed(values: Mapping[str, str], topics: Iterable[str]) -> str:
    return ", ".join(f"{topic}: {values[topic]}" for topic in topics)


def _broker_numbers(cluster: Cluster, key: str) -> list[int]:
    return [int(broker[key]) for broker in cluster.broker_configs or () if key in broker]


def _broker_min(cluster: Cluster, key: str) -> int | None:
    return min(_broker_numbers(cluster, key), default=None)


def _broker_max(cluster: Cluster, key: str) -> int | None:
    return max(_broker_numbers(cluster, key), default=None)


def _told(cluster: Cluster, name: str, found: str) -> Check:
    """Green, unless some topics did not tell, or there are none."""
    if not cluster.topics:
        return yellow(name, "no topic to look at")
    silent = [topic for topic, facts in cluster.topics.items() if facts.config is None]
    if silent:
        todo = "Give this user the right to describe the configuration of topics."
        return yellow(name, f"not to be asked for {', '.join(silent)}", todo)
    return green(name, found)


def _unknown(name: str, key: str) -> Check:
    todo = "Give this user the right to describe the configuration of the cluster."
    return yellow(name, f"{key} of the brokers is not to be asked", todo)
