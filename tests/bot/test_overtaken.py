"""Reviews that a later one has overtaken: the last word always stays to be answered."""

from hypothesis import given
from hypothesis import strategies as st

from bot.overtaken import Overtaken
from schemas.feed import Ref
from schemas.reviews import PostChanged, ReviewAsked
from tests.bot.make import NOW

SOURCE, QUOTE = "at://p/asking", "at://p/quoted"


def review(
    uri: str = QUOTE, version: int | None = 2, *, deleted: bool = False, source: str = SOURCE
) -> ReviewAsked:
    return ReviewAsked(
        conversation_id="conv-1",
        source=Ref(uri=source, revision="r1"),
        decision_id="decision-1",
        private=False,
        change=PostChanged(uri=uri, version=None if deleted else version, deleted=deleted, at=NOW),
    )


def left(*reviews: ReviewAsked) -> list[int]:
    """Those that are not overtaken when all were read."""
    one = Overtaken()
    for offset, each in enumerate(reviews):
        one.read(offset, each)
    return [n for n, each in enumerate(reviews) if not one.is_overtaken(n, each)]


def test_only_the_last_edit_of_a_post_is_left() -> None:
    assert left(*(review(version=n) for n in range(2, 9))) == [6]


def test_edits_of_other_posts_and_for_other_replies_stay() -> None:
    assert left(review(), review("at://p/other"), review(source="at://p/else")) == [0, 1, 2]


def test_a_deletion_is_the_last_word_wherever_it_stands() -> None:
    assert left(review(), review(deleted=True), review(version=9)) == [1, 2]
    assert left(review(), review(version=3), review(deleted=True)) == [2]


def test_an_older_version_that_comes_late_overtakes_nothing() -> None:
    assert left(review(version=5), review(version=3)) == [0, 1]


def test_the_deletion_of_the_source_takes_everything_of_the_reply_with_it() -> None:
    gone = review(SOURCE, deleted=True)
    assert left(review(), review("at://p/other"), gone, review(source="at://p/else")) == [2, 3]
    assert left(review(), review(SOURCE)) == [0, 1], "an edit of it does not"


def test_what_is_done_is_forgotten_when_nothing_of_its_kind_waits() -> None:
    one, first, last = Overtaken(), review(), review(version=3)
    one.read(0, first)
    one.read(1, last)
    one.done(1, last)
    assert one.is_overtaken(0, first), "the later one was answered first"
    one.done(1, last)
    assert len(one) == 1, "told twice"
    one.done(0, first)
    one.done(0, first)
    assert len(one) == 0


@given(
    st.lists(
        st.builds(
            review,
            st.sampled_from([SOURCE, QUOTE]),
            st.sampled_from([None, 1, 2, 3]),
            deleted=st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_there_is_always_one_left_and_none_is_overtaken_by_what_counts_less(
    reviews: list[ReviewAsked],
) -> None:
    stay = left(*reviews)
    assert stay
    gone = any(r.change.deleted and r.change.uri == SOURCE for r in reviews)
    for uri in (SOURCE,) if gone else {r.change.uri for r in reviews}:
        staying = [reviews[n].change for n in stay if reviews[n].change.uri == uri]
        mine = [r.change for r in reviews if r.change.uri == uri]
        assert any(c.deleted for c in staying) == any(c.deleted for c in mine)
        versions = [c.version for c in mine if c.version is not None]
        known = all(c.version is not None for c in mine)
        assert not known or max(versions) in [c.version for c in staying]
