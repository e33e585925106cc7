"""The values that the steps of the bot pass to each other, and small questions about them.

``bot/app.py`` builds ``Setup`` once from the settings; ``bot/handler.py`` makes one ``Asked``
per record; ``bot/conversation.py`` takes both. Everything here is frozen and knows no Kafka.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from model.engine import Sampling
from schemas.envelope import Envelope
from schemas.feed import (
    Account,
    MentionCreated,
    Message,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Post,
    Ref,
    Visibility,
)

Source = MentionCreated | MessageCreated | MessageEdited | MessageDeleted
"""The payloads that the bot takes in."""

Question = MentionCreated | MessageCreated
"""Those of them that can get an answer."""

GONE_MEANWHILE = "deleted meanwhile"
"""What the audit says of a post that was gone before it was answered."""

# Widest first: the narrower of two is the one further on.
_WIDTHS = tuple(Visibility)
_KNOWN = {visibility.value: visibility for visibility in Visibility}
_OPEN = frozenset({Visibility.PUBLIC, Visibility.UNLISTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class BotIdentity:
    """Who the bot is, and which Kafka cluster it reads (both go into every decision id)."""

    account: Account
    cluster_id: str

    @property
    def id(self) -> str:
        """The bot's stable account id."""
        return self.account.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far the bot goes. Tokens are the engine's own."""

    hop_limit: int = 2
    """Bot-to-bot hops a thread may have had for another bot to get an answer."""
    max_graphemes: int = 300
    """Longest reply in graphemes."""
    max_bytes: int = 3000
    """Longest reply in bytes of UTF-8."""
    max_parts: int = 3
    """Most posts that one long reply may take; 1: it is cut."""
    markdown: bool = False
    """Whether the platform shows markdown as it is meant."""
    prompt_tokens: int = 1536
    """Longest prompt; less where the model's context is shorter."""
    post_tokens: int = 384
    """Most of one post that the model sees."""
    talk_turns: int = 20
    """Most turns of a private talk that the model sees."""
    talk_hours: float = 72.0
    """Oldest turn of a private talk that the model sees, in hours before the message."""
    approval_hours: float = 24.0
    """How long a reply waits at most for a moderator who is to approve it."""


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt file: its name, its text, and the sha256 of its bytes in hex."""

    name: str
    text: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompt of each surface, and the canary that a share (0 to 1) of its conversations
    gets; ``bot.templates.load_prompts`` reads them.

    ``language``: in which the prompts have the bot write; ``language_hint``: what an asker with
    another one adds, ``{language}`` being its name.
    """

    mention: Template
    direct: Template
    canary_mention: Template | None = None
    canary_mention_share: float = 0.0
    canary_direct: Template | None = None
    canary_direct_share: float = 0.0
    language: str = "en"
    language_hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What does not change from one record to the next.

    ``sampling.seed`` is replaced for each reply by one derived from its id.
    """

    bot: BotIdentity
    prompts: Prompts
    code_version: str
    settings_digest: str
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    retry_temperature: float = 0.7
    """The least temperature of the second try."""
    adapter: str | None = None
    """Name of the LoRA weights that answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was met before: decision ids, of the same event or revision (``duplicate_of``), of
    another revision of the same post (``earlier``), and whether that one was ``answered``."""

    duplicate_of: str | None = None
    earlier: str | None = None
    answered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One decoded input and where it stands; ``timestamp_ms``: when Kafka took it in, in ms
    since 1970, which no user can set; ``redrive_of``: where it failed before
    (``topic/partition/offset``), if an operator had it published again."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    envelope: Envelope
    data: Source
    seen: Seen = Seen()
    redrive_of: str | None = None


def ms_of(time: datetime) -> int:
    """Milliseconds since 1970."""
    return round(time.timestamp() * 1000)


def post_of(data: MentionCreated | MessageCreated | MessageEdited) -> Post | Message:
    """The post or message that an input is about, where there is one."""
    return data.post if isinstance(data, MentionCreated) else data.message


def written(data: Source) -> Post | Message | None:
    """The post or message that an input is about; none where it tells of a deletion."""
    return None if isinstance(data, MessageDeleted) else post_of(data)


def source_ref(data: Source) -> Ref:
    """The revision that an input is about."""
    return data.ref if isinstance(data, MessageDeleted) else post_of(data).ref


def conversation_of(data: Source) -> str:
    """The conversation that an input belongs to: the key of everything that comes of it."""
    told = data if isinstance(data, MessageDeleted) else post_of(data)
    return told.conversation_id


def visibility_of(post: Post | Message) -> Visibility | None:
    """Who may see it; none where the word is unknown."""
    if isinstance(post, Message):
        return Visibility.DIRECT
    return _KNOWN.get(post.visibility)


def narrowest(*visibilities: Visibility) -> Visibility:
    """The narrowest of one or more."""
    return max(visibilities, key=_WIDTHS.index)


def is_open(visibility: Visibility | None) -> bool:
    """Whether it is public or unlisted."""
    return visibility in _OPEN


def is_private(data: Source) -> bool:
    """Whether an input holds anything that is not public or unlisted, ancestors included."""
    return not (
        isinstance(data, MentionCreated) and all(is_open(visibility_of(p)) for p in _posts(data))
    )


def _posts(data: MentionCreated) -> Iterator[Post]:
    yield data.post
    yield from data.ancestors
    if data.quoted is not None:
        yield data.quoted
