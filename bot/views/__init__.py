"""The bot's views: what it remembers, as tables made of topics."""

from bot.views.accounts import AccountsView
from bot.views.conversation import ConversationView
from bot.views.moderation import ModerationView
from bot.views.references import ReferencesView
from bot.views.replies import RepliesView
from consumers.views.view import View

VIEWS: tuple[View, ...] = (
    ConversationView(),
    RepliesView(),
    ReferencesView(),
    AccountsView(),
    ModerationView(),
)
