"""The bot's views: what it remembers, as tables made of topics."""

from bot.views.accounts import AccountsView
from bot.views.conversation import ConversationView
from bot.views.moderation import ModerationView
from bot.views.references import ReferencesView
from bot.views.replies import RepliesView
from consumers.views.view import View


def bot_views(bot_id: str) -> tuple[View, ...]:
    """Those of the bot with that account id."""
    return (
        ConversationView(bot_id),
        RepliesView(),
        ReferencesView(),
        AccountsView(),
        ModerationView(),
    )


VIEWS = bot_views("")
"""Their names, topics and layouts; they are built with the bot's id."""
