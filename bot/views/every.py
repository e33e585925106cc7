"""All views of the bot, and how a worker opens them.

In: the settings and the cluster. Out: ``Views``, not started; None where they are switched off.
"""

from pathlib import Path

from bot.clients import options
from bot.settings import Settings
from bot.views.accounts import AccountsView
from bot.views.conversation import ConversationView
from bot.views.moderation import ModerationView
from bot.views.references import ReferencesView
from bot.views.replies import RepliesView
from consumers.metrics import Metrics
from consumers.views.follow import FollowConfig
from consumers.views.view import View
from consumers.views.views import Views
from infra.cache import cache_root
from schemas import names

DAY_MS = 86_400_000
MIB = 1024 * 1024

VIEWS: tuple[View, ...] = (
    ConversationView(),
    RepliesView(),
    ReferencesView(),
    AccountsView(),
    ModerationView(),
)
OWN_TOPICS = frozenset(
    {
        names.BOT_REPLIES,
        names.BOT_DIRECT_REPLIES,
        names.BOT_AUDIT,
        names.BOT_AUDIT_PRIVATE,
        names.BOT_REFERENCES,
        names.BOT_REVIEWS,
    }
)
"""What workers write in transactions and views read."""


def directory_of(settings: Settings) -> Path:
    """Where the files are."""
    return settings.views.directory or cache_root() / "views"


def follow_config(settings: Settings) -> FollowConfig:
    """How views are followed."""
    views = settings.views
    return FollowConfig(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client=options(settings.kafka),
        own_topics=OWN_TOPICS,
        max_age_ms=round(views.max_age_days * DAY_MS),
        max_bytes=views.max_mib * MIB,
    )


def views_of(settings: Settings, cluster: str, metrics: Metrics | None = None) -> Views | None:
    """The views of a worker on that cluster."""
    if not settings.views.enabled:
        return None
    return Views(follow_config(settings), directory_of(settings), cluster, VIEWS, metrics)
