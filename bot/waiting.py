"""Which replies wait for a moderator now, as ``bot.held`` tells.

In: a bounded reader and the time. Out: of each decision what was shown last, the oldest first;
what waits no more, and what its time is over for, is left out. A worker that died may have left
one there that has its outcome already: a command about it then changes nothing.
Next: ``bot/cli/approving.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.errors import Trouble
from bot.explain.find import Reader
from consumers.reader import Range
from schemas import names
from schemas.codec import Undecodable, decode
from schemas.held import ReplyHeld


@dataclass(frozen=True, slots=True)
class Shown:
    """A reply that waits. ``since``: when it was first shown, by Kafka's time; ``digests``: of
    every text that was shown for it, the last of which counts."""

    data: ReplyHeld
    since: datetime
    digests: tuple[str, ...]


async def waiting(reader: Reader, now: datetime) -> list[Shown]:
    """All that waits; records that can't be read are passed over."""
    found: dict[str, Shown] = {}
    async for record in reader.read(Range(names.BOT_HELD)):
        try:
            data: ReplyHeld = decode(record).data
        except Undecodable:
            continue
        if not data.waiting:
            found.pop(data.decision_id, None)
            continue
        at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
        before = found.get(data.decision_id, Shown(data, at, ()))
        digests = dict.fromkeys((*before.digests, data.text_digest))
        found[data.decision_id] = Shown(data, before.since, tuple(digests))
    still = [one for one in found.values() if one.data.held_until > now]
    return sorted(still, key=lambda one: (one.since, one.data.decision_id))


def digest_to_approve(shown: Sequence[Shown], decision_id: str, named: str | None) -> Shown:
    """The reply that an approval is about; ``named``: the beginning of the digest of the text
    that the moderator saw. Raises ``Trouble`` where that is not clear."""
    one = that_waits(shown, decision_id)
    if named is None and len(one.digests) > 1:
        what = "another text was made and shown since the first."
        todo = "Look at `twite moderate held`, and name the text with --digest."
        raise Trouble(what, where=decision_id, todo=todo, status=2)
    if named is not None and not (named and one.data.text_digest.startswith(named)):
        what = "the reply that waits has another text than that."
        raise Trouble(what, where="--digest", todo="Look at `twite moderate held`.", status=2)
    return one


def that_waits(shown: Sequence[Shown], decision_id: str) -> Shown:
    """The one of that decision. Raises ``Trouble``."""
    for one in shown:
        if one.data.decision_id == decision_id:
            return one
    what = "no reply of that decision waits for approval."
    raise Trouble(what, where=decision_id, todo="Look at `twite moderate held`.")
