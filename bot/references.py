"""``bot.references``: where a change meets everything that was built on the post.

In: the records of one partition, all there are about each of its posts. Out: a ``ReviewAsked``
for every reply that may have to be taken back, sent to the conversation of the reply; nothing
for most records. Next: ``bot/reviews.py``.

What comes out of a record depends on it and on earlier records only, so every change meets every
reply once, whenever and by whomever it is handled; but for one thing: a change that is known to
have been overtaken by a later one asks for nothing, since that one asks for all of it. So many
edits at once ask for few reviews.

- A change asks for a review of each reply that was built on another revision. It is news only
  where it differs from the newest before it: a platform may tell of one edit twice.
- A reply that was built on a post that had changed before (while the answer was being made)
  is reviewed at once.
- A deletion is the last word about a post; of two revisions the higher version counts, of
  equal ones the later on the log.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import structlog

from bot.changes import untold
from bot.publishing import Place, Publishing
from bot.values import BotIdentity
from bot.views.references import read
from consumers.handler import GiveUp, Job, StopPartition
from consumers.views.view import BadRecord
from schemas import headers, names
from schemas.envelope import Envelope
from schemas.faults import Fault
from schemas.ids import decision_id, follow_up_id
from schemas.record import Output, Record
from schemas.reviews import PostChanged, ReferenceMade, ReviewAsked

log = structlog.get_logger(__name__)

Data = Mapping[str, Any]
Kind = Literal["made", "changed"]

_NOTHING = "nothing to do"  # the lane of what takes none
NEWEST_CHANGES = 100  # of a post, that are looked at: its deletions, then its highest versions
LAST_CHANGES = 20  # of a post, that may have overtaken one
TEXT_BYTES = 4 * 1024 * 1024  # of texts that one change sends out; further reviews go without
RECENT = 100_000  # records kept in memory where no view takes them over
_MADE = "SELECT offset, data FROM made WHERE uri = ? AND offset < ? ORDER BY offset"
_HAS_CHANGED = "SELECT 1 FROM changed WHERE uri = ? LIMIT 1"
_LATER = (
    "SELECT offset, data FROM changed WHERE uri = ? AND offset > ? ORDER BY offset DESC LIMIT ?"
)
_CHANGED = (
    "SELECT offset, data FROM changed INDEXED BY changed_by_uri WHERE uri = ? AND offset < ?"
    " ORDER BY deleted DESC, version DESC, offset DESC LIMIT ?"
)


class Rows(Protocol):
    """What is needed of an open view of ``bot.views.references``."""

    def rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """Raises ``StopPartition`` where it can't be read and is built anew."""
        ...

    @property
    def positions(self) -> Mapping[str, int]:
        """The next offset, by ``topic/partition``."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """An edit or deletion on the log."""

    offset: int
    deleted: bool
    revision: str | None
    version: int | None
    data: Data

    @classmethod
    def of(cls, offset: int, data: Data) -> "Change":
        known = data.get("revision"), data.get("version")
        return cls(offset, bool(data.get("deleted")), *known, data)

    def is_news_after(self, newest: "Change | None") -> bool:
        """Whether it counts more than what counted before it on the log."""
        if newest is None:
            return True
        if newest.deleted or self.deleted:
            return not newest.deleted
        return self.revision != newest.revision and not _older(self.version, newest.version)

    def concerns(self, made: Data) -> bool:
        """Whether what was built on the post was built on another state of it."""
        if self.deleted:
            return True
        return made.get("revision") != self.revision and not _older(
            self.version, made.get("version")
        )


def _older(version: int | None, other: int | None) -> bool:
    return version is not None and other is not None and version < other


def newest(changes: Iterable[Change]) -> Change | None:
    """The one that counts, of changes in offset order."""
    found: Change | None = None
    for change in changes:
        if change.is_news_after(found):
            found = change
    return found


def concerned(change: Change, made: Iterable[Data]) -> list[Data]:
    """The references that a change puts in question: of each reply the latest, in log order."""
    latest: dict[str, Data] = {}
    for one in made:
        latest.pop(one["source"]["uri"], None)
        latest[one["source"]["uri"]] = one
    return [one for one in latest.values() if change.concerns(one)]


class References:
    """What is known of the posts of one partition: the view, and what was read here since.

    ``view`` gives the open view, None where views are off. The view was caught up before the
    partition was opened, so together they hold every record up to the one that is asked for. A
    view that is lost meanwhile stops the partition, which is opened when it was read anew.
    """

    def __init__(self, partition: int, view: Callable[[], Rows | None] = lambda: None) -> None:
        self._view = view
        self._place = f"{names.BOT_REFERENCES}/{partition}"
        self._recent: dict[str, deque[tuple[int, Kind, Data]]] = {}
        self._order: deque[tuple[int, str]] = deque()

    def add(self, offset: int, kind: Kind, data: Data) -> None:
        """A record was read; in offset order."""
        self._recent.setdefault(data["uri"], deque()).append((offset, kind, data))
        self._order.append((offset, data["uri"]))
        self._forget()

    def made_before(self, uri: str, offset: int) -> list[Data]:
        """In log order. Raises ``StopPartition``."""
        rows = self._rows(_MADE, uri, offset)
        found = {place: json.loads(data) for place, data in rows}
        found |= {place: data for place, kind, data in self._memory(uri, offset) if kind == "made"}
        return [found[place] for place in sorted(found)]

    def change_before(self, uri: str, offset: int) -> Change | None:
        """The change that counts. Raises ``StopPartition``."""
        found: dict[int, Change] = {}
        for place, text in self._rows(_CHANGED, uri, offset, NEWEST_CHANGES):
            found[place] = Change.of(place, json.loads(text))
        for place, kind, data in self._memory(uri, offset):
            if kind == "changed" and place not in found:
                found[place] = Change.of(place, data)
        return newest(found[place] for place in sorted(found))

    def is_overtaken(self, uri: str, change: Change) -> bool:
        """Whether a later change on the log, which is still to be handled, counts more than the
        one that counts so far. Raises ``StopPartition``."""
        later = {
            place: Change.of(place, data)
            for place, kind, data in self._recent.get(uri, ())
            if kind == "changed" and place > change.offset
        }
        for place, text in self._rows(_LATER, uri, change.offset, LAST_CHANGES):
            later[place] = Change.of(place, json.loads(text))
        return any(one.is_news_after(change) for one in later.values())

    def has_changed(self, uri: str) -> bool:
        """Whether anything is known to have happened to a post, or can't be told now."""
        if any(kind == "changed" for _, kind, _ in self._recent.get(uri, ())):
            return True
        try:
            return bool(self._rows(_HAS_CHANGED, uri))
        except StopPartition:
            return True

    def _memory(self, uri: str, offset: int) -> Iterator[tuple[int, Kind, Data]]:
        return (entry for entry in self._recent.get(uri, ()) if entry[0] < offset)

    def _rows(self, statement: str, *arguments: Any) -> list[Any]:
        view = self._view()
        return [] if view is None else view.rows(statement, arguments)

    def _forget(self) -> None:
        """What the view has by now; without a view the oldest."""
        view = self._view()
        if view is None and len(self._order) <= RECENT:
            return
        end = self._order[1][0] if view is None else view.positions.get(self._place, 0)
        while self._order and self._order[0][0] < end:
            _, uri = self._order.popleft()
            self._recent[uri].popleft()  # the same: both are in log order
            if not self._recent[uri]:
                del self._recent[uri]


class ReferencesHandler:
    """The handler of one assignment of one partition of ``bot.references``; silent mostly."""

    def __init__(self, bot: BotIdentity, publishing: Publishing, references: References) -> None:
        self._bot = bot
        self._publishing = publishing
        self._references = references

    def open(self, record: Record) -> Job:
        """Never raises: nobody but the bot writes here, and what can't be read is skipped."""
        try:
            kind, data = read(record)
        except BadRecord as error:
            log.warning("skipped", topic=record.topic, offset=record.offset, code=error.code)
            return Job(record, _NOTHING, None, done=True)
        self._references.add(record.offset, kind, data)
        done = self._is_quiet(kind, data)
        return Job(record, ("post", data["uri"]), (kind, data), done=done, quick=True)

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        """The reviews that this record makes necessary. Raises ``StopPartition``."""
        kind, data = job.payload
        asked = list(self._asked(kind, data, job.record.offset))
        return self._outputs(asked, job.record) if asked else ()

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        """A review must not be lost: another worker, or this one later, tries again."""
        raise StopPartition(f"{error.code} on {record.topic}")

    def _is_quiet(self, kind: Kind, data: Data) -> bool:
        """Whether nothing comes of it, as is so for most: a reply was built on a post that
        nothing is known to have happened to."""
        return kind == "made" and not self._references.has_changed(data["uri"])

    def _asked(self, kind: Kind, data: Data, offset: int) -> Iterator[tuple[Data, Change]]:
        """References to look at again, each with the change that is the reason."""
        uri, before = data["uri"], self._references.change_before(data["uri"], offset)
        if kind == "made":
            if before is not None and before.concerns(data):
                yield data, before
            return
        change = Change.of(offset, data)
        if change.is_news_after(before) and not self._references.is_overtaken(uri, change):
            made = self._references.made_before(uri, offset)
            yield from ((one, change) for one in concerned(change, made))

    def _outputs(self, asked: Sequence[tuple[Data, Change]], record: Record) -> list[Output]:
        place = record.topic, record.partition, record.offset
        cause_id = decision_id(self._bot.id, self._bot.cluster_id, *place)
        cause = _envelope(record)
        change = PostChanged.model_validate(asked[0][1].data)
        outputs, room = [], TEXT_BYTES
        for data, _ in asked:
            if room < 0:
                change = untold(change)
            outputs.append(self._output(data, change, cause_id, cause))
            room -= len(outputs[-1].value or b"")
        return outputs

    def _output(
        self, data: Data, change: PostChanged, cause_id: str, cause: Envelope | None
    ) -> Output:
        made = ReferenceMade.model_validate(data)
        review = ReviewAsked(
            conversation_id=made.conversation_id,
            source=made.source,
            decision_id=made.decision_id,
            private=made.private,
            change=change,
        )
        place = Place(names.BOT_REVIEWS, made.conversation_id, made.partition)
        event = follow_up_id(cause_id, "review", made.source.uri)
        return self._publishing.output(place, names.REVIEW_ASKED, event, review, cause)


def _envelope(record: Record) -> Envelope | None:
    try:
        return headers.read(record.headers)
    except Fault:
        return None
