"""A record to be played, and how to show it: what is going on, and who writes what.

In: records, also such that hold no event. Out: ``Scene`` values, told from the bytes as far as
any bytes can tell. Next: ``bot/play.py`` plays them, ``bot/demo.py`` shows them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.names import ACCOUNT_CHANGED
from schemas.record import Output

SHOWN_ABOVE = 3  # posts of a thread that are shown above the one that asks
WISHES = {
    "opted_out": "wants no answers of the bot",
    "blocked_bot": "blocks the bot",
    "deleted": "is gone",
}
NO_WISH = "is as everybody is"


@dataclass(frozen=True, slots=True)
class Scene:
    """One record to play. ``above`` holds the last posts that the event carries beside it, each
    as who and what; ``number`` is its place in the feed, from 1, where somebody counts.
    """

    title: str
    record: Output
    who: str
    text: str
    above: tuple[tuple[str, str], ...] = ()
    number: int = 0


def scene_of(title: str, record: Output) -> Scene:
    """A record as a scene."""
    try:
        data = json.loads(record.value or b"")
        who, text = _account(data) if type_of(record) == ACCOUNT_CHANGED else _told(data)
        return Scene(title, record, who, text, tuple(_beside(data)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Scene(title, record, "(no event)", f"{len(record.value or b'')} bytes")


def type_of(record: Output) -> str:
    """The type of the event, empty where it names none."""
    headers = dict(record.headers)
    return (headers.get("ce_type") or b"").decode("utf-8", "replace")


def _account(data: Mapping[str, Any]) -> tuple[str, str]:
    wishes = [what for name, what in WISHES.items() if data.get(name)]
    return str(data["account_id"]), ", ".join(wishes) or NO_WISH


def _told(data: Mapping[str, Any]) -> tuple[str, str]:
    if "deleted_by" in data:
        return f"the {data['deleted_by']}", f"deletes {data['ref']['uri']}"
    note = " (edits)" if "previous_revision" in data else ""
    return _writing(data.get("post") or data["message"], note)


def _beside(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for post in data.get("ancestors", [])[-SHOWN_ABOVE:]:
        yield _writing(post)
    if quoted := data.get("quoted") or (data.get("message") or {}).get("quoted"):
        yield _writing(quoted, " (quoted)")


def _writing(post: Mapping[str, Any], note: str = "") -> tuple[str, str]:
    author = post["author"]
    kind = " (bot)" if author.get("bot") else " (private)" if "participants" in post else ""
    return f"@{author['handle']}{kind}{note}", str(post["text"])
