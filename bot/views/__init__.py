"""The bot's views: what it remembers, as tables made of topics."""

from bot.views.references import ReferencesView
from consumers.views.view import View

VIEWS: tuple[View, ...] = (ReferencesView(),)
