"""Where changes meet what was built on the posts: every pair once, in any order."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.changes import Changes, untold
from bot.publishing import Publishing
from bot.references import (
    _CHANGED,
    _HAS_CHANGED,
    _LATER,
    _MADE,
    NEWEST_CHANGES,
    Change,
    References,
    ReferencesHandler,
    concerned,
    newest,
)
from bot.settings import ViewsSettings
from bot.views.references import ReferencesView, read
from consumers.handler import GiveUp, StopPartition
from schemas import codec, names
from schemas.feed import DeletedBy, PostDeleted, PostEdited, Ref
from schemas.record import Output, Record
from schemas.reviews import ReferenceMade, ReviewAsked
from schemas.topics import MAX_VALUE_BYTES, TOPICS
from tests.bot.make import BOT, NOW, envelope, post, setup

PUBLISHING = Publishing(BOT.id, lambda: NOW)
CHANGES = Changes(setup().bot, PUBLISHING, 1)
URI = "at://p/root"


def made(source: str, revision: str | None = "r1", **fields: Any) -> Output:
    given: dict[str, Any] = {
        "uri": URI,
        "revision": revision,
        "conversation_id": f"conv-of-{source}",
        "partition": 3,
        "source": Ref(uri=source, revision="s1"),
        "decision_id": f"decision-of-{source}",
        "private": False,
    } | fields
    return CHANGES.reference(ReferenceMade(**given), envelope())


def edited(revision: str, version: int = 2, text: str = "new") -> Output:
    new = post(URI, text, revision=revision, version=version)
    return _told(PostEdited(post=new, previous_revision="r0"), names.POST_EDITED)


def deleted(revision: str | None = None) -> Output:
    gone = PostDeleted(
        ref=Ref(uri=URI, revision=revision),
        conversation_id="conv-1",
        deleted_by=DeletedBy.AUTHOR,
        deleted_at=NOW,
    )
    return _told(gone, names.POST_DELETED)


def _told(data: PostEdited | PostDeleted, kind: str) -> Output:
    source = Record(
        topic=names.FEED_POSTS, partition=0, offset=0, timestamp_ms=0, key=b"c", value=b""
    )
    (output,) = CHANGES.of_post(source, envelope(kind), data)
    return output


def on_log(outputs: Sequence[Output]) -> list[Record]:
    return [
        Record(
            topic=names.BOT_REFERENCES,
            partition=0,
            offset=2 * n,  # transactions leave gaps
            timestamp_ms=1000 + n,
            key=output.key,
            value=output.value,
            headers=output.headers,
        )
        for n, output in enumerate(outputs)
    ]


class View:
    """The view after some records of the log."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self._view = ReferencesView()
        self._view.create(self.db)
        self.positions: Mapping[str, int] = {}
        for record in records:
            self.take(record)

    def rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        return self.db.execute(sql, parameters).fetchall()

    def take(self, record: Record) -> None:
        self._view.apply(self.db, record)
        self.positions = {f"{names.BOT_REFERENCES}/0": record.offset + 1}


def handler(view: View | None = None) -> ReferencesHandler:
    return ReferencesHandler(setup().bot, PUBLISHING, References(0, lambda: view))


async def run(one: ReferencesHandler, record: Record) -> list[ReviewAsked]:
    """As the runtime calls it: what is done when it is opened is not handled."""
    job = one.open(record)
    if job.done:
        return []
    return [_read(output) for output in await one.handle(job, attempt=1)]


def _read(output: Output) -> ReviewAsked:
    record = Record(
        topic=output.topic,
        partition=output.partition or 0,
        offset=0,
        timestamp_ms=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )
    data = codec.decode(record).data
    assert isinstance(data, ReviewAsked)
    return data


async def reviews(*outputs: Output) -> list[list[ReviewAsked]]:
    one = handler()
    return [await run(one, record) for record in on_log(outputs)]


async def sources(*outputs: Output) -> list[list[str]]:
    return [[r.source.uri for r in each] for each in await reviews(*outputs)]


async def test_a_change_asks_for_a_review_of_everything_that_was_built_on_the_post() -> None:
    found = await reviews(made("a"), made("b"), edited("r2"))
    assert [len(each) for each in found] == [0, 0, 2]
    first = found[2][0]
    assert (first.source.uri, first.conversation_id) == ("a", "conv-of-a")
    assert first.decision_id == "decision-of-a"
    assert first.change.post is not None
    assert first.change.post.text == "new"


async def test_a_review_goes_to_the_partition_of_the_replys_conversation() -> None:
    one = handler()
    records = on_log([made("a", partition=3), deleted()])
    await run(one, records[0])
    (output,) = await one.handle(one.open(records[1]), attempt=1)
    assert (output.topic, output.partition, output.key) == (names.BOT_REVIEWS, 3, b"conv-of-a")


async def test_what_was_built_on_the_same_revision_is_not_concerned() -> None:
    assert await sources(made("a", "r2"), made("b", "r1"), edited("r2")) == [[], [], ["b"]]


async def test_a_reply_that_comes_after_the_change_is_reviewed_at_once() -> None:
    assert await sources(edited("r2"), made("a", "r1"), made("b", "r2")) == [[], ["a"], []]
    assert await sources(deleted(), made("a", "r1")) == [[], ["a"]]


async def test_the_same_change_told_twice_is_no_news() -> None:
    assert await sources(made("a"), edited("r2"), edited("r2")) == [[], ["a"], []]
    assert await sources(made("a"), deleted("r1"), deleted()) == [[], ["a"], []]


async def test_a_deletion_is_the_last_word() -> None:
    assert await sources(made("a"), deleted(), edited("r2", 9)) == [[], ["a"], []]
    assert await sources(made("a"), edited("r2"), deleted()) == [[], ["a"], ["a"]]


async def test_an_older_version_that_comes_late_is_no_news() -> None:
    assert await sources(made("a"), edited("r3", 3), edited("r2", 2)) == [[], ["a"], []]
    newer = made("a", "r3", version=3)
    assert await sources(newer, edited("r2", 2)) == [[], []]
    assert await sources(edited("r2", 2), newer) == [[], []]


async def test_of_one_reply_only_the_latest_reference_counts() -> None:
    """It was corrected meanwhile, and is built on the new revision now."""
    log = (made("a", "r1"), edited("r2"), made("a", "r2"), edited("r1", 3))
    assert await sources(*log) == [[], ["a"], [], ["a"]]


async def test_the_last_word_counts_however_much_came_since() -> None:
    """A worker that starts anew has nothing but the view."""
    late = [edited(f"r{n}", 2) for n in range(3, NEWEST_CHANGES + 30)]
    for first in (deleted(), edited("r9000", 9)):
        records = on_log([made("a"), first, *late, edited("last", 3)])
        view = View(records[:-1])
        assert await run(handler(view), records[-1]) == []


async def test_posts_that_nobody_knows_are_silent() -> None:
    assert await sources(deleted(), edited("r2")) == [[], []]


async def test_the_texts_of_a_viral_post_do_not_fill_the_log() -> None:
    long = edited("r2", text="x" * (MAX_VALUE_BYTES - 100_000))
    *_, last = await reviews(*(made(f"s{n}") for n in range(8)), long)
    with_text = [review.change.post is not None for review in last]
    assert with_text == [True] * 5 + [False] * 3
    assert {review.change.revision for review in last} == {"r2"}


def test_most_references_are_done_when_they_are_opened() -> None:
    one = handler()
    opened = [one.open(record) for record in on_log([made("a"), deleted(), made("b")])]
    assert [job.done for job in opened] == [True, False, False]


async def test_what_nobody_of_ours_wrote_is_skipped() -> None:
    one = handler()
    (right,) = on_log([made("a")])
    for value, headers in ((b"[", right.headers), (b"{}", right.headers), (right.value, ())):
        bad = Record(
            topic=right.topic,
            partition=0,
            offset=0,
            timestamp_ms=0,
            key=b"k",
            value=value,
            headers=headers,
        )
        assert await run(one, bad) == []


async def test_a_record_that_cannot_be_handled_stops_the_partition_and_is_never_passed() -> None:
    (record,) = on_log([deleted()])
    with pytest.raises(StopPartition):
        handler().give_up(record, GiveUp("retries-exhausted", "x"), attempts=5)


async def test_a_view_that_is_lost_stops_the_partition() -> None:
    class Lost(View):
        def rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
            raise StopPartition("it is read anew")

    one = handler(Lost([]))
    (record,) = on_log([deleted()])
    with pytest.raises(StopPartition):
        await one.handle(one.open(record), attempt=1)


_EVENTS = st.one_of(
    st.builds(made, st.sampled_from("abc"), st.sampled_from(["r1", "r2", None])),
    st.builds(edited, st.sampled_from(["r1", "r2", "r3"]), st.integers(1, 3)),
    st.builds(deleted),
)


@given(st.lists(_EVENTS, max_size=12), st.data())
async def test_view_and_memory_together_give_what_one_reader_of_everything_gives(
    outputs: list[Output], data: st.DataObject
) -> None:
    """A worker starts anywhere, with the view further than that, and the view goes on as it
    likes: also past the record that is being handled."""
    records = on_log(outputs)
    whole = handler()
    expected = [await run(whole, record) for record in records]
    start = data.draw(st.integers(0, len(records)))
    applied = data.draw(st.integers(start, len(records)))
    view = View(records[:applied])
    later = handler(view)
    for n in range(start, len(records)):
        while applied < len(records) and data.draw(st.booleans()):
            view.take(records[applied])
            applied += 1
        found = await run(later, records[n])
        erased = any(b'"deleted":true' in (r.value or b"") for r in records[n + 1 : applied])
        wanted = expected[n]
        if _is_overtaken(records, n, applied):
            wanted = []  # by what the view has already
        if erased and found != wanted:  # words that are gone by then are not sent out again
            wanted = [r.model_copy(update={"change": untold(r.change)}) for r in wanted]
        assert found == wanted


def _is_overtaken(records: Sequence[Record], n: int, end: int) -> bool:
    """Whether a change among the records before ``end`` counts more than the one at ``n``."""
    kind, data = read(records[n])
    change = Change.of(records[n].offset, data)
    later = [(r.offset, *read(r)) for r in records[n + 1 : end]]
    changes = [Change.of(offset, d) for offset, of, d in later if of == "changed"]
    return kind == "changed" and any(one.is_news_after(change) for one in changes)


@given(st.lists(_EVENTS, max_size=12), st.integers(1, 12))
async def test_whatever_overtakes_whatever_the_last_word_meets_every_reply(
    outputs: list[Output], ahead: int
) -> None:
    """So many records are read before the first of them is handled."""
    records, one = on_log(outputs), handler()
    jobs, asked = [], dict[str, list[ReviewAsked]]()
    for n in range(len(records) + ahead):
        jobs += [one.open(record) for record in records[n : n + 1]]
        if 0 <= n - ahead < len(jobs) and not jobs[n - ahead].done:
            for output in await one.handle(jobs[n - ahead], attempt=1):
                review = _read(output)
                asked.setdefault(review.source.uri, []).append(review)
    told = [(record.offset, *read(record)) for record in records]
    last = newest(Change.of(offset, data) for offset, kind, data in told if kind == "changed")
    built_on = [data for _, kind, data in told if kind == "made"]
    if last is None:
        return
    for data in concerned(last, built_on):
        final = asked[data["source"]["uri"]][-1].change
        assert (final.deleted, final.revision) == (last.deleted, last.revision)


async def test_of_many_edits_that_are_read_at_once_only_the_last_asks_for_reviews() -> None:
    one = handler()
    edits = [edited(f"r{n}", n) for n in range(2, 102)]
    jobs = [one.open(r) for r in on_log([*(made(f"s{n}") for n in range(20)), *edits])]
    found = [_read(o) for job in jobs if not job.done for o in await one.handle(job, attempt=1)]
    assert len(found) == 20
    assert {review.change.revision for review in found} == {"r101"}


@pytest.mark.parametrize("lookup", [_MADE, _CHANGED, _LATER, _HAS_CHANGED])
def test_every_lookup_is_by_index(lookup: str) -> None:
    arguments = (URI, 7, 10)[: lookup.count("?")]
    plan = View([]).db.execute(f"EXPLAIN QUERY PLAN {lookup}", arguments).fetchall()
    told = [row[3] for row in plan]
    assert all("USING" in line and "TEMP" not in line for line in told), told


def test_trimming_forgets_what_is_old() -> None:
    records = on_log([made("a"), edited("r2"), made("b"), deleted()])
    view, db = ReferencesView(), View(records).db
    assert view.oldest_ms(db) == 1000
    assert view.trim(db, 1002, 10) == 2
    assert view.oldest_ms(db) == 1002
    rebuilt = View(records[2:]).db
    for table in ("made", "changed"):
        query = f"SELECT * FROM {table} ORDER BY offset"  # noqa: S608
        assert db.execute(query).fetchall() == rebuilt.execute(query).fetchall()


def test_a_worker_that_reads_everything_anew_can_take_back_what_the_views_would_know() -> None:
    days = ViewsSettings().max_age_days
    for name in (names.BOT_REPLIES, names.BOT_DIRECT_REPLIES, names.BOT_REFERENCES):
        assert TOPICS[name].retention_ms >= days * 24 * 3600 * 1000, name


def test_words_that_were_deleted_are_erased() -> None:
    db = View(on_log([edited("r2", text="a secret"), deleted()])).db
    assert "a secret" not in "".join(db.iterdump())
