"""Which commands of moderators about replies were obeyed, so that none is obeyed twice.

In: the event that asks for a review, and the id of the decision on it. Out: the decision on an
earlier record of the same event, if there is one: made here a moment ago, or as the views know it.
What became a dead letter was not obeyed and may be tried again. Next: ``bot/review_handler.py``.
"""

from collections import OrderedDict

from bot.knowledge import Knowledge
from schemas.envelope import Envelope

KEPT = 10_000  # decisions that the views may not have shown yet


class Obeyed:
    """For one assignment of one partition."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._here: OrderedDict[tuple[str, str], str] = OrderedDict()

    def first(self, event: Envelope, decision_id: str) -> str | None:
        """The decision other than ``decision_id``. Raises ``KnowledgeUnavailable``."""
        here = self._here.get((event.source, event.id))
        if here is not None:
            return here if here != decision_id else None
        return self._knowledge.reviewed(event.source, event.id, decision_id)

    def add(self, event: Envelope, decision_id: str) -> None:
        """It was obeyed with that decision."""
        self._here[event.source, event.id] = decision_id
        if len(self._here) > KEPT:
            self._here.popitem(last=False)
