"""The demo's own feed, and what its report counts as wrong."""

import io
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from bot.demo import Demo
from bot.demo_feed import scenes
from bot.feed import Entry, FeedErrors
from bot.observe import Outcome, Outcomes, Position
from bot.play import Player, Report, scenes_of
from bot.settings import BotSettings, KafkaSettings, Settings
from schemas.codec import Undecodable, decode
from schemas.codes import Outcome as Kind
from schemas.feed import MentionCreated, MessageCreated
from tests.bot.outcomes import INPUT, as_record, decision, replied

BOT = BotSettings()


def test_the_feed_has_every_kind_of_input() -> None:
    played = list(scenes(BOT, "run"))
    events = []
    garbage = 0
    for scene in played:
        try:
            events.append(decode(as_record(scene.record)))
        except Undecodable:
            garbage += 1
    assert garbage == 1
    mentions = [event.data for event in events if isinstance(event.data, MentionCreated)]
    assert sum(isinstance(event.data, MessageCreated) for event in events) == 2
    assert any(mention.quoted and mention.ancestors for mention in mentions)
    assert any(mention.post.author.id == BOT.account_id for mention in mentions)
    assert any(mention.post.visibility == "followers" for mention in mentions)
    hops = {mention.post.hops for mention in mentions if mention.post.author.id.endswith("-bot")}
    assert hops >= {BOT.hop_limit, BOT.hop_limit + 1}
    assert max(Counter(event.envelope.id for event in events).values()) == 2
    askers = Counter((m.post.conversation_id, m.post.author.id) for m in mentions)
    assert len([c for c, _ in askers if c == "run:quiz"]) == 3


def test_two_runs_share_no_event() -> None:
    first = {dict(scene.record.headers).get("ce_id") for scene in scenes(BOT, "one")}
    second = {dict(scene.record.headers).get("ce_id") for scene in scenes(BOT, "two")}
    assert first & second <= {None}


async def test_a_feed_file_is_shown_with_who_says_what() -> None:
    first, *_, garbage, _ = [scene.record for scene in scenes(BOT, "run")]

    async def entries() -> AsyncIterator[Entry]:
        yield Entry(3, first)
        yield Entry(9, garbage)

    shown = [scene async for scene in scenes_of(entries())]
    assert [(scene.title, scene.who) for scene in shown] == [
        ("line 3", "@alice"),
        ("line 9", "(no event)"),
    ]
    assert shown[0].text == f"@{BOT.handle} When was the Eiffel Tower finished?"
    assert [who for who, _ in shown[0].above] == ["@alice", "@bruno", "@chidi (quoted)"]
    assert shown[1].text == f"{len(garbage.value or b'')} bytes"


def demo(feed: str | None = None, width: int = 60) -> tuple[Demo, io.StringIO]:
    shown = io.StringIO()
    return Demo(Settings(), Console(file=shown, width=width), feed=feed), shown


async def test_scenes_have_the_numbers_of_their_order_and_keep_them_when_they_land() -> None:
    made, shown = demo(width=200)
    played = [scene async for scene in made._scenes()]
    assert [scene.number for scene in played] == list(range(1, len(played) + 1))
    assert played[0].record == played[1].record
    assert "of 1," in played[1].title
    assert "no event" in played[10].title
    assert "of 11" in played[11].title
    for scene in reversed(played):
        made._show(scene, replied("Paris."))
    numbers = [int(line.split(".")[0]) for line in shown.getvalue().splitlines() if line[:1] > " "]
    assert numbers == list(range(len(played), 0, -1))


async def test_what_is_shown_ends_without_blanks() -> None:
    made, shown = demo()
    async for scene in made._scenes():
        made._show(scene, replied("Paris is the capital of France.\n\nIt is also " + "big " * 30))
    lines = shown.getvalue().splitlines()
    assert lines
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_feed_that_cannot_be_played_is_told_before_anything_starts(tmp_path: Path) -> None:
    feed = tmp_path / "feed.jsonl"
    feed.write_text("nonsense\n")
    with pytest.raises(FeedErrors, match="1 line is no event"):
        demo(str(feed))[0].check()
    feed.write_text('{"topic": "feed.t"}\n')
    demo(str(feed))[0].check()
    demo("-")[0].check()
    demo()[0].check()


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (Report(), "nothing to play"),
        (Report(played=1), "1 record played, none of which the bot answers"),
        (Report(played=2, inputs=2, replied=2), "every input had exactly one outcome"),
    ],
)
def test_the_summary_of_nothing_is_no_success(report: Report, said: str) -> None:
    made, shown = demo()
    made.report = report
    made._print_summary()
    assert shown.getvalue().splitlines()[-1] == said


def player(*outcomes: Outcome, inputs: tuple[Position, ...] = (INPUT,)) -> Player:
    async def alive() -> None:
        return None

    scene = next(iter(scenes(BOT, "run")))
    made = Player(KafkaSettings(), lambda scene, outcome: None, alive)
    made._played = dict.fromkeys(inputs, scene)
    made._landed = {outcome.input: outcome for outcome in outcomes}
    return made


def committed(
    decisions: int = 1, replies: int = 1, letters: int = 0, reply_id: str = "reply-1"
) -> Outcomes:
    return Outcomes(
        decisions=Counter({INPUT: decisions}),
        replies=Counter({reply_id: replies}),
        dead_letters=Counter({INPUT: letters}),
    )


def test_one_outcome_each_is_no_problem() -> None:
    assert list(player(replied("Paris."))._problems(committed())) == []


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (committed(decisions=2), f"{INPUT} has 2 decisions"),
        (committed(decisions=0), f"{INPUT} has 0 decisions"),
        (committed(replies=2), f"{INPUT} has its reply reply-1 2 times"),
        (committed(replies=0), f"{INPUT} has its reply reply-1 0 times"),
        (committed(letters=1), f"{INPUT} has 1 dead letters"),
    ],
)
def test_two_or_none_is_a_problem(found: Outcomes, problem: str) -> None:
    assert list(player(replied("Paris."))._problems(found)) == [problem]


def test_an_input_without_outcome_is_a_problem() -> None:
    assert list(player()._problems(Outcomes())) == [f"{INPUT} has no outcome"]


def test_a_skip_with_a_reply_is_a_problem() -> None:
    wrong = Outcome(INPUT, decision(Kind.SKIPPED, ("reply-1",), "loop"), INPUT)
    (problem,) = player(wrong)._problems(committed())
    assert problem == f"{INPUT} is skipped with 1 replies"


def test_a_report_counts_by_reason() -> None:
    report = Report(inputs=3, seconds=30)
    for outcome in (
        replied("Paris."),
        Outcome(INPUT, decision(Kind.SKIPPED, reason="loop"), INPUT),
        Outcome(INPUT, decision(Kind.DEAD_LETTERED, reason="not-json"), INPUT),
    ):
        report.count(outcome)
    assert (report.replied, report.skipped, report.dead_lettered) == (
        1,
        {"loop": 1},
        {"not-json": 1},
    )
    assert report.replies_per_minute == 2
