"""Where and how a worker keeps its views, from the settings.

In: settings and the cluster's id. Out: the ``Views`` that ``bot/app.py`` opens beside its
partitions, or none where they are switched off, and what ``twite views`` needs to work on the
same files.
"""

from collections.abc import Sequence
from pathlib import Path

from bot.clients import options
from bot.settings import Settings
from bot.views import bot_views
from consumers.metrics import Metrics
from consumers.views.follow import FollowConfig
from consumers.views.view import View
from consumers.views.views import Views
from infra.cache import cache_root
from schemas.topics import TOPICS

_DAY_MS = 24 * 3600 * 1000
_MIB = 1024 * 1024
_OWN_PREFIX = "bot."  # what workers write in transactions


def views_of(
    settings: Settings, cluster: str, metrics: Metrics, views: Sequence[View] = ()
) -> Views | None:
    """Not started; all views of the bot where none are named. None: switched off."""
    if not settings.views.enabled:
        return None
    views = views or bot_views(settings.bot.account_id)
    return Views(follow_config(settings), views_directory(settings), cluster, views, metrics)


def views_directory(settings: Settings) -> Path:
    """The folder of all files."""
    return (settings.views.directory or cache_root() / "views").expanduser()


def follow_config(settings: Settings) -> FollowConfig:
    """How to read, and what a file may hold."""
    return FollowConfig(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client=options(settings.kafka),
        own_topics=frozenset(name for name in TOPICS if name.startswith(_OWN_PREFIX)),
        max_age_ms=round(settings.views.max_age_days * _DAY_MS),
        max_bytes=settings.views.max_mib * _MIB,
    )
