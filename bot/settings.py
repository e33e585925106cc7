"""Settings: everything that can be set, in groups, each field with its meaning.

Values come in through ``bot/config.py`` (a TOML file and ``TWITE_*`` variables). Types and
ranges hold from there on, and nothing changes them. ``bot/app.py`` wires a worker from them;
``twite config show`` prints them.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from bot.rates import LiveLimits

PREFIX = "TWITE_"
# Differ between workers of one fleet, so they are no part of the digest on decisions.
PER_PROCESS = frozenset({"kafka.group_instance_id", "views.directory"})
PROMPT_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s,:/@\[\]]+):([0-9]{1,5})")
_STORAGE = re.compile(
    r"memory://|redis\+unix:///[^?]+(?:\?.*)?"
    r"|rediss?://(?:[^@/]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s@/:\[\]]+):[0-9]{1,5}(?:/[0-9]*)?(?:\?.*)?"
)
_ENDPOINT = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|[^\s,:/@?#\[\]]+)(?::([0-9]{1,5}))?(?:/[^\s,?#@]*)?"
)
_DEVICE = re.compile(r"auto|cpu|mps|cuda(?::[0-9]{1,3})?")


class Group(BaseModel):
    """A group of settings: one table of the TOML file."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True
    )


class KafkaSettings(Group):
    """Where the platform's Kafka is, and how to get in."""

    bootstrap_servers: str = Field(default="localhost:9092", min_length=1)
    """Addresses of one or more brokers, ``host:port``, separated by commas; an IPv6 address
    stands in brackets: ``[::1]:9092``."""
    group_id: str = Field(default="twite", min_length=1)
    """Consumer group: workers of one group share the work."""
    group_instance_id: str | None = None
    """Fixed name of this worker in its group: a restart within the session timeout then
    moves no partitions. Unset: an ordinary member."""
    session_timeout_ms: int = Field(default=6000, ge=1000, le=300_000)
    """Milliseconds without a heartbeat after which a worker counts as dead."""
    partitions: int = Field(default=4, ge=1, le=10_000)
    """Partitions of the topics keyed by conversation, for ``twite topics create``."""
    replication: int = Field(default=1, ge=1, le=32)
    """Copies of each partition, for ``twite topics create``; production wants 3."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How to log in, where the protocol is a SASL one."""
    sasl_username: str | None = None
    """The user that logs in, where the protocol is a SASL one."""
    sasl_password: SecretStr | None = None
    """The password of that user."""
    ssl_cafile: Path | None = None
    """PEM file of the authorities to trust; unset: the system's own."""
    ssl_certfile: Path | None = None
    """PEM file of this client's certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """PEM file of the key to that certificate."""
    ssl_keyfile_password: SecretStr | None = None
    """Password of that key file, if it has one."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        addresses = [address.strip() for address in value.split(",")]
        for address in addresses:
            found = _ADDRESS.fullmatch(address)
            if not found or not 0 < int(found[1]) < 65_536:
                raise ValueError(
                    "must be host:port, with a port of 1 to 65535 and without http:// or the like"
                )
        return ",".join(addresses)

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (
            self.sasl_username and self.sasl_password
        ):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_username and sasl_password"
            )
        return self

    def client_options(self) -> dict[str, Any]:
        """Security options for an aiokafka client; files are read here (``OSError``)."""
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": _secret(self.sasl_password),
            }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        return options

    def _ssl_context(self) -> Any:
        from aiokafka.helpers import create_ssl_context

        return create_ssl_context(
            cafile=_path(self.ssl_cafile),
            certfile=_path(self.ssl_certfile),
            keyfile=_path(self.ssl_keyfile),
            password=_secret(self.ssl_keyfile_password),
        )


class BotSettings(Group):
    """Who the bot is on the platform, and what it may write there."""

    account_id: str = Field(default="twite-bot", min_length=1, max_length=512)
    """The bot's stable account id: what a mention's facet must name."""
    handle: str = Field(default="twite", min_length=1, max_length=256)
    """The bot's handle, without ``@``."""
    display_name: str = Field(default="Twite", max_length=256)
    """The name shown beside its posts."""
    hop_limit: int = Field(default=2, ge=0, le=254)
    """How many bot-to-bot hops a thread may have had for another bot to get an answer."""
    max_graphemes: int = Field(default=300, ge=1, le=1_000_000)
    """Longest post of a reply, in graphemes (what people see as one character)."""
    max_bytes: int = Field(default=3000, ge=4, le=1_000_000)
    """Longest post of a reply, in UTF-8 bytes."""
    max_parts: int = Field(default=3, ge=1, le=9)
    """Most posts of one long reply, a numbered thread; 1: it is cut at a sentence, and so it is
    where a post has fewer than 46 graphemes or 166 bytes."""
    markdown: bool = False
    """Whether the platform shows markdown as it is meant; else replies are made plain text."""
    activity: Literal["text", "typing", "off"] = "text"
    """What a private talk is shown on ``bot.direct-activity`` while its answer is made: the text
    so far, only that the bot is typing, or nothing."""
    prompt_tokens: int = Field(default=1536, ge=64, le=10_000_000)
    """Longest prompt, in the model's tokens; less where the model's context is shorter."""
    post_tokens: int = Field(default=384, ge=16, le=1_000_000)
    """Most of one post that the model sees, in its tokens."""
    talk_turns: int = Field(default=20, ge=0, le=1000)
    """Most turns of a private talk that the model sees, besides the message; 0: it knows only
    the message. What it answered to a turn is a turn as well."""
    talk_hours: float = Field(default=72.0, ge=0, le=87_600)
    """How long a private talk is remembered, in hours before the message."""
    approval_hours: float = Field(default=24.0, gt=0, le=144)
    """How long a reply waits for a moderator where replies are to be approved first (``twite
    moderate approve-first``), in hours since it was made; then it is skipped, ``not-approved``."""

    @field_validator("account_id", "handle")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator("handle")
    @classmethod
    def _bare(cls, value: str) -> str:
        if value.lstrip().startswith("@"):
            raise ValueError("must be written without the @ before it")
        return value


class PromptsSettings(Group):
    """Which prompt files the model is given, by their names without ``.txt``."""

    directory: Path | None = None
    """A folder with prompt files of your own; a name that is not there is one that comes with
    Twite."""
    mention: str = Field(default="mention", pattern=PROMPT_NAME)
    """The prompt for mentions."""
    direct: str = Field(default="direct", pattern=PROMPT_NAME)
    """The prompt for private talks."""
    canary_mention: str | None = Field(default=None, pattern=PROMPT_NAME)
    """Another prompt, tried out on some of the conversations with mentions."""
    canary_mention_share: float = Field(default=0.0, ge=0, le=1)
    """The share of conversations that get it, 0 to 1; one that has it keeps it."""
    canary_direct: str | None = Field(default=None, pattern=PROMPT_NAME)
    """Another prompt, tried out on some of the private talks."""
    canary_direct_share: float = Field(default=0.0, ge=0, le=1)
    """The share of private talks that get it, 0 to 1; one that has it keeps it."""
    language: str = Field(default="en", pattern=r"^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*$")
    """The language in which the prompts have the bot write; an asker with another one adds the
    hint below."""
    language_hint: str = Field(default="Answer in {language}.", max_length=200)
    """What is added to the prompt for an asker who writes another language, ``{language}`` being
    its English name; empty: nothing."""


class EchoSettings(Group):
    """The ``echo`` engine, which ships for tests and benches."""

    latency_ms: float = Field(default=0.0, ge=0, le=3_600_000)
    """Milliseconds it takes over an answer."""


class OpenAISettings(Group):
    """The ``openai`` engine: servers that speak OpenAI's protocol (vLLM, SGLang, llama.cpp,
    ``transformers serve``)."""

    endpoints: str = Field(default="http://localhost:8000", min_length=1)
    """Addresses of one or more servers of the same model, ``http://host:port`` or ``https://…``,
    separated by commas; with or without ``/v1``."""
    api_key: SecretStr | None = None
    """The key that they want, if any."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust for ``https``; unset: the system's own."""
    model: str | None = Field(default=None, min_length=1)
    """The model's name there; unset: the only one that they serve."""
    tokenizer: str | None = Field(default=None, min_length=1)
    """Folder or Hugging Face name of the served model, of which only the tokenizer is read: prompts
    then go out as token ids, where the server takes them. Unset: as chat messages, and tokens are
    estimated."""
    tokenizer_revision: str | None = None
    """Commit of that Hugging Face repository to pin."""
    way: Literal["auto", "tokens", "chat"] = "auto"
    """``tokens``: prompts go out as token ids or not at all. ``chat``: as messages, in which
    control tokens that people wrote are broken up. ``auto``: ids where tokenizer and server allow
    it."""
    kind: Literal["auto", "vllm", "sglang", "llama.cpp", "transformers", "other"] = "auto"
    """Which server it is, as each has its own names for sampling; ``auto``: it is asked."""
    context_length: int | None = Field(default=None, ge=16, le=10_000_000)
    """Longest prompt with its reply, in tokens, where the server does not tell or takes less."""
    start_s: float = Field(default=60.0, ge=0, le=86_400)
    """Seconds that a worker waits at its start for the first server that answers."""
    connect_s: float = Field(default=5.0, gt=0, le=600)
    """Seconds for a connection."""
    first_token_s: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds until the first token of a reply, the server's own queue included."""
    between_tokens_s: float = Field(default=30.0, gt=0, le=86_400)
    """Seconds from one token to the next."""
    total_s: float = Field(default=110.0, gt=0, le=86_400)
    """Seconds for a whole reply, tries and waiting included; less than ``worker.deadline_s``."""
    retry_share: float = Field(default=0.1, ge=0, le=1)
    """Most requests that are made again, as a share of all: only those of whose reply nobody has
    seen a part."""
    poll_s: float = Field(default=1.0, gt=0, le=3600)
    """Seconds between two looks at a server's own queue, and at whether it is back."""

    @field_validator("endpoints")
    @classmethod
    def _web_addresses(cls, value: str) -> str:
        addresses = [address.strip() for address in value.split(",")]
        found = [_ENDPOINT.fullmatch(address) for address in addresses]
        ports = [int(match[1] or 1) for match in found if match]
        if not all(found) or not all(0 < port < 65_536 for port in ports) or _twice(addresses):
            raise ValueError(
                "must be http://host:port or https://host:port, each once, without a user or a key"
            )
        return ",".join(addresses)


class ModelSettings(Group):
    """Which model answers, and how."""

    engine: Literal["transformers", "openai", "echo"] = "transformers"
    """``transformers``: a real model on this machine. ``openai``: servers that speak OpenAI's
    protocol. ``echo``: a text that depends only on its prompt."""
    name: str = Field(default="SmolLM2-135M-Instruct", min_length=1)
    """A folder with safetensors, a GGUF file (converted once), a Hugging Face name
    (``org/model``), or the default model's own name."""
    revision: str | None = None
    """Commit of the Hugging Face repository to pin."""
    weights_digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the weights must be, as ``twite model verify`` tells it; others are refused."""
    adapters: dict[str, str] = {}
    """Folders of LoRA adapters by name, as ``peft`` saves them: ``{"polite": "/srv/polite"}``."""
    adapter: str | None = None
    """Which of them answers (``openai``: its name on the servers); unset: the model as it is."""
    offload: str | None = None
    """Folder for the layers of a model that is larger than memory, which is slow; unset: such a
    model is refused."""
    context_length: int | None = Field(default=None, ge=64)
    """Most tokens of prompt and reply; unset: 8192, or less where the model was made for less."""
    device: str = "auto"
    """``auto``, ``cpu``, ``mps``, ``cuda``, or one GPU by its number: ``cuda:0``."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights in memory."""
    quantization: Literal["none", "int4"] = "none"
    """``int4``: weights of 4 bits, on a CPU and for Llama-shaped models; faster where few replies
    are made at once, and rounded (the default model comes from 4 bits and loses next to
    nothing)."""
    slots: int = Field(default=8, ge=1, le=4096)
    """Most replies that the engine makes at once."""
    kept_prompts: int = Field(default=8, ge=0, le=4096)
    """Prompts that stay in memory when they have been answered, so that the next turn of a talk,
    and whatever else begins alike, is not read from its start; 0: none. Each takes as much as a
    slot does."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """Processor threads of the model; unset: one less than there are cores, at least 1."""
    own_process: bool = True
    """The ``transformers`` engine runs in a process of its own, which is started again when it
    dies; false: in the worker's."""
    hang_s: float = Field(default=60.0, ge=1, le=3600)
    """Seconds without a sign of life, or with work and without a step of the model, after which
    the engine's process is killed and started again; twenty times its slowest step, if that is
    longer."""
    max_new_tokens: int = Field(default=96, ge=1, le=100_000)
    """Longest reply, in the model's tokens."""
    temperature: float = Field(default=0.0, ge=0, le=10)
    """0: always the likeliest token; higher: more variety."""
    top_k: int = Field(default=0, ge=0)
    """Draw from the k likeliest tokens; 0: off."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability; 1: off."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Leave out tokens less likely than this share of the likeliest; 0: off."""
    repetition_penalty: float = Field(default=1.05, gt=0, le=10)
    """Above 1: tokens that were there before become less likely."""
    retry_temperature: float = Field(default=0.7, gt=0, le=10)
    """The least temperature of the second try, where the first gave nothing of use: at 0 it would
    give the same again."""
    echo: EchoSettings = EchoSettings()
    openai: OpenAISettings = OpenAISettings()

    @property
    def tokenizer_source(self) -> tuple[str, str | None]:
        """Name and revision of what the tokenizer is read from; an empty name: from nothing."""
        if self.engine == "openai":
            return self.openai.tokenizer or "", self.openai.tokenizer_revision
        return self.name, self.revision

    @model_validator(mode="after")
    def _known_adapter(self) -> Self:
        if self.engine == "transformers" and self.adapter not in (None, *self.adapters):
            raise ValueError(f"adapter: {self.adapter!r} is not among the adapters")
        return self

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("must be auto, cpu, mps, cuda, or cuda: and a number (cuda:0)")
        return value


class WorkerSettings(Group):
    """How a worker works."""

    max_in_flight: int = Field(default=16, ge=1, le=100_000)
    """Most records being answered at once, whatever partition they came from."""
    grace_s: float = Field(default=10.0, ge=0, le=3600)
    """Seconds that a stopping worker gives to what is in flight."""
    max_attempts: int = Field(default=5, ge=1, le=1000)
    """Tries per record, with a growing pause between them, before it is a dead letter."""
    deadline_s: float = Field(default=120.0, gt=0, le=86_400)
    """Seconds that one try may take before it is cancelled."""


class LimitsSettings(LiveLimits):
    """How much the bot answers, and to whom."""

    file: Path | None = None
    """TOML file with any of the settings above; it is read again when it changes, without a
    restart. A broken one leaves the last good ones in force."""
    storage_uri: SecretStr | None = None
    """Where answers are counted: ``redis://[user:password@]host:port/db`` (``rediss://`` with
    TLS, ``redis+unix:///path``) for a fleet that shares its quotas; unset or ``memory://``:
    each worker counts on its own."""
    storage_timeout_ms: int = Field(default=500, ge=1, le=60_000)
    """Milliseconds after which a storage that does not answer counts as away."""
    storage_away: Literal["memory", "retry"] = "memory"
    """What to do while the storage is away. ``memory``: count in this worker's memory.
    ``retry``: try the input again, and give it up after the tries of ``worker.max_attempts``."""
    memory_keys: int = Field(default=200_000, ge=100, le=100_000_000)
    """Most accounts, threads and inputs that a worker's memory counts; the longest unused go
    first."""

    @field_validator("storage_uri")
    @classmethod
    def _known_storage(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _STORAGE.fullmatch(value.get_secret_value()):
            raise ValueError(
                "must be memory://, redis://host:port/db, rediss://host:port/db or"
                " redis+unix:///path"
            )
        return value


class ViewsSettings(Group):
    """What a worker remembers, in files on this machine; Kafka has it all, so any of them may be
    deleted at any time."""

    enabled: bool = True
    """``false``: remember nothing beyond this run, and know of a thread only what its event
    carries."""
    directory: Path | None = None
    """The folder of the files, on a local disk; unset: ``views`` in the user's cache folder
    (``TWITE_CACHE``)."""
    max_age_days: float = Field(default=30.0, gt=0, le=36_500)
    """Days after which what was said and decided is forgotten, by Kafka's time; at most what the
    topics keep (their ``retention.ms``)."""
    max_mib: int = Field(default=4096, ge=1, le=1_048_576)
    """Most that the file of one view and partition may hold, in MiB; the oldest goes first."""
    wait_ms: int = Field(default=250, ge=0, le=60_000)
    """Milliseconds that an answer waits for the views to reach the post that it answers."""


class HttpSettings(Group):
    """Where a worker serves ``/livez``, ``/readyz`` and ``/metrics``."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for all, as containers need it."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """The port. Unset: the first free one from 9464 on, so several workers fit on a machine."""


class LoggingSettings(Group):
    """What a worker says about itself, on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """``auto``: pretty at a terminal, JSON lines elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important line that is printed."""


class Settings(BaseSettings):
    """Everything that can be set. ``bot.config.load`` builds it and knows the origins."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    bot: BotSettings = BotSettings()
    prompts: PromptsSettings = PromptsSettings()
    model: ModelSettings = ModelSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitsSettings = LimitsSettings()
    views: ViewsSettings = ViewsSettings()
    http: HttpSettings = HttpSettings()
    logging: LoggingSettings = LoggingSettings()

    @cached_property
    def digest(self) -> str:
        """sha256 of the settings without secrets and names of single workers, as hex."""
        values = {
            known.name: value
            for known in known_fields()
            if not known.secret and known.name not in PER_PROCESS
            for value in [json_value(known.read(self))]
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Known:
    """One field that can be set: its dotted name and what pydantic knows about it."""

    path: tuple[str, ...]
    info: FieldInfo

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        return PREFIX + "__".join(self.path).upper()

    @property
    def secret(self) -> bool:
        return "SecretStr" in str(self.info.annotation)

    @property
    def description(self) -> str:
        return " ".join((self.info.description or "").split())

    @property
    def plain(self) -> str:
        """The description without marks, for a terminal."""
        return self.description.replace("``", "")

    def read(self, settings: Settings) -> Any:
        value: Any = settings
        for step in self.path:
            value = getattr(value, step)
        return value


def known_fields(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[Known]:
    """Every field that can be set, in the order in which they are written above."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from known_fields(kind, (*path, name))
        else:
            yield Known((*path, name), info)


def json_value(value: Any) -> Any:
    """A setting as JSON would write it; a secret only says whether it is set."""
    if isinstance(value, SecretStr):
        return "(set)"
    return str(value) if isinstance(value, Path) else value


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _twice(values: list[str]) -> bool:
    return len(set(values)) < len(values)


def _path(value: Path | None) -> str | None:
    return str(value) if value else None
