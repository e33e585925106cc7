"""What changed, in numbers and side by side."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bot.replay.compare import change_of
from bot.replay.report import Summary, changed_context, changed_rules
from bot.replay.show import case_lines, further, summary_rows, text_diff
from bot.replay.words import LONGEST, pieces
from schemas.audit import ContextItem, RuleVerdict
from schemas.codes import Outcome
from schemas.feed import Ref
from schemas.replays import Change, NotReplayed, ReplayCompared, ReplaySide, ScoreVerdict
from tests.bot.make import NOW


def rules(**verdicts: str) -> tuple[RuleVerdict, ...]:
    return tuple(RuleVerdict(name=name, verdict=said) for name, said in verdicts.items())


def item(uri: str, revision: str = "r1", *, included: bool = True) -> ContextItem:
    ref = Ref(uri=uri, revision=revision)
    return ContextItem(ref=ref, author_id="a", trust="untrusted", included=included, why="ancestor")


def side(**fields: Any) -> ReplaySide:
    given: dict[str, Any] = {
        "outcome": Outcome.REPLIED,
        "text": "Paris is the capital.",
        "rules": rules(loop="pass", views="reached"),
    } | fields
    return ReplaySide(**given)


def result(**fields: Any) -> ReplayCompared:
    given: dict[str, Any] = {
        "replay_id": "replay-1",
        "mode": "frozen",
        "decision_id": "d-1",
        "change": Change.IDENTICAL,
        "asked_model": True,
        "before": side(),
        "after": side(),
        "compared_at": NOW,
    } | fields
    return ReplayCompared(**given)


def shown(*lines: Any) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        for line in lines:
            console.print(line)
    return captured.get()


def test_the_gravest_change_counts() -> None:
    assert change_of(side(), side()) is Change.IDENTICAL
    assert change_of(side(), side(text="Lyon")) is Change.TEXT
    assert change_of(side(), side(text="Lyon", rules=rules(loop="skip"))) is Change.VERDICT
    skipped = side(outcome=Outcome.SKIPPED, reason="no-answer", rules=rules(loop="skip"))
    assert change_of(side(), skipped) is Change.ACTION
    assert change_of(skipped, skipped.model_copy(update={"reason": "loop"})) is Change.ACTION


def test_how_busy_the_worker_was_is_no_change() -> None:
    behind = side(rules=rules(loop="pass", views="behind"))
    assert change_of(side(), behind) is Change.IDENTICAL
    assert changed_rules(side(), behind) == []


def test_the_counts_are_those_of_the_results() -> None:
    summary = Summary.of(
        [
            result(score=ScoreVerdict(verdict="identical")),
            result(change=Change.ACTION, hidden=True),
            result(change=Change.TEXT, score=ScoreVerdict(verdict="diverged", diverged_at=3)),
            result(change=Change.NOT_REPLAYED, why=NotReplayed.TORN_RECORD, asked_model=False),
        ]
    )
    assert (summary.total, summary.replayed, summary.asked, summary.same_text) == (4, 3, 3, 1)
    assert summary.changed_outcomes == 1 / 3
    assert summary.to_json()["not_replayed"] == {"torn-record": 1}
    assert summary.to_json()["scores"] == {"diverged": 1, "identical": 1}
    said = shown(summary_rows(summary), *further(summary))
    assert "torn-record" in said
    assert "1 of 2 would be drawn again" in said


def test_nothing_replayed_is_no_reason_to_feel_safe() -> None:
    nothing = Summary.of([result(change=Change.NOT_REPLAYED, why=NotReplayed.MODEL_GONE)])
    assert nothing.changed_outcomes == 1.0


def test_what_is_different_is_named() -> None:
    before = side(context=(item("at://1"), item("at://2")))
    after = side(
        rules=rules(loop="skip"), context=(item("at://1", "r2"), item("at://3", included=False))
    )
    assert [(one.name, one.before, one.after) for one in changed_rules(before, after)] == [
        ("loop", "pass", "skip")
    ]
    assert [one.name for one in changed_context(before, after)] == ["at://1", "at://2", "at://3"]
    said = shown(*case_lines(result(change=Change.VERDICT, before=before, after=after)))
    assert "rule loop: pass → skip" in said
    assert "context at://2: in ancestor r1 → not there" in said


def test_a_terminal_is_not_steered_by_what_people_wrote() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    lines = case_lines(
        result(
            change=Change.TEXT,
            decision_id="d\N{RIGHT-TO-LEFT OVERRIDE}",
            after=side(text=evil, context=(item(f"at://{'x'}"),)),
        )
    )
    said = shown(*lines)
    assert "\x1b" not in said
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in said


def test_words_that_go_and_come_are_told_apart() -> None:
    assert list(pieces("Paris is big", "Lyon is big!")) == [
        ("gone", "Paris"),
        ("new", "Lyon"),
        ("same", " is big"),
        ("new", "!"),
    ]
    assert text_diff("a b", "a c").plain == "a [-b-]{+c+}"


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_pieces_make_up_both_texts(before: str, after: str) -> None:
    made = list(pieces(before, after))
    assert "".join(words for kind, words in made if kind != "new") == before
    assert "".join(words for kind, words in made if kind != "gone") == after


def test_a_very_long_text_is_compared_as_far_as_it_goes() -> None:
    before, after = "a " * LONGEST, "a " * LONGEST + "b"
    made = list(pieces(before, after))
    assert made[0] == ("same", "a " * (LONGEST // 2))
    assert "".join(words for kind, words in made if kind != "gone") == after
