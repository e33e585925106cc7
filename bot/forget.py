"""``/forget``: how somebody empties the bot's memory of a private talk.

In: a private message. Out: whether it is that command. The view of conversations drops what was
said before; ``bot/conversation.py`` confirms with ``FORGOTTEN``, without asking the model.
"""

import unicodedata

import regex

from schemas.feed import FacetType, Message, Post

COMMAND = "/forget"
MAX_BYTES = 2048  # of a message that is looked at: a command is short
FORGOTTEN = "Done. I no longer know what was said in this talk before now."
_UNSEEN = regex.compile(r"[\s\p{Cc}\p{Cf}]+")  # also what has no width or turns the writing
_END = regex.compile(r"[.。]$")


def is_forget(message: Message | Post, bot_id: str) -> bool:
    """Whether it is private and says ``/forget`` and nothing else, but for accounts that it
    names first. In a group the bot must be one of them: it is not spoken to otherwise."""
    text = message.text.encode()
    if not isinstance(message, Message) or len(text) > MAX_BYTES:
        return False
    start, named = 0, set[str | None]()
    mentions = (f for f in message.facets if f.type == FacetType.MENTION)
    for facet in sorted(mentions, key=lambda facet: facet.byte_start):
        if _plain(text[start : facet.byte_start]):
            break
        start = max(start, facet.byte_end)
        named.add(facet.account_id)
    is_group = len({message.author.id, *message.participants}) > 2
    return _END.sub("", _plain(text[start:])) == COMMAND and (bot_id in named or not is_group)


def _plain(text: bytes) -> str:
    """As it reads: wide letters as narrow ones, nothing that can't be seen."""
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", text.decode())).casefold()
