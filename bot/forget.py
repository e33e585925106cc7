"""``/forget``: how somebody empties the bot's memory of a private talk.

In: a private message. Out: whether it is that command. The view of conversations drops what was
said before; ``bot/conversation.py`` confirms with ``FORGOTTEN``, without asking the model.
"""

import regex

from schemas.feed import FacetType, Message, Post

COMMAND = "/forget"
MAX_BYTES = 2048  # of a message that is looked at: a command is short
FORGOTTEN = "Done. I no longer know what was said in this talk before now."
_SPACE = regex.compile(r"[\s\u200B]+")


def is_forget(message: Message | Post) -> bool:
    """Whether it is private and says ``/forget`` and nothing else, but for accounts that it
    names first."""
    text = message.text.encode()
    if not isinstance(message, Message) or len(text) > MAX_BYTES:
        return False
    start = 0
    mentions = (f for f in message.facets if f.type == FacetType.MENTION)
    for facet in sorted(mentions, key=lambda facet: facet.byte_start):
        if text[start : facet.byte_start].strip():
            break
        start = max(start, facet.byte_end)
    return _SPACE.sub("", text[start:].decode()).casefold() == COMMAND
