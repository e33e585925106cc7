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
from bot.play import Player, Report, _needs_quiet, scenes_of
from bot.settings import BotSettings, KafkaSettings, Settings
from schemas.codec import Undecodable, decode
from schemas.codes import Outcome as Kind
from schemas.feed import AccountChanged, MentionCreated, MessageCreated, PostDeleted, PostEdited
from schemas.replies import ReplyCorrected, ReplyRetracted
from tests.bot.outcomes import INPUT, as_record, changed, decision, replied

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
    said = [event.data.message for event in events if isinstance(event.data, MessageCreated)]
    assert len({message.conversation_id for message in said}) == 1
    assert [message.text for message in said].index("/forget") == 2
    assert said[1].text == said[3].text
    assert any(mention.quoted and mention.ancestors for mention in mentions)
    assert any(mention.post.author.id == BOT.account_id for mention in mentions)
    assert any(mention.post.visibility == "followers" for mention in mentions)
    hops = {mention.post.hops for mention in mentions if mention.post.author.id.endswith("-bot")}
    assert hops >= {BOT.hop_limit, BOT.hop_limit + 1}
    assert max(Counter(event.envelope.id for event in events).values()) == 2
    askers = Counter((m.post.conversation_id, m.post.author.id) for m in mentions)
    assert len([c for c, _ in askers if c == "run:quiz"]) == 3


def test_the_feed_takes_back_what_it_asked() -> None:
    told = [scene for scene in scenes(BOT, "run") if "no event" not in scene.title]
    by_type = {type(data): data for data in (decode(as_record(s.record)).data for s in told)}
    asked = {
        data.post.uri: data.post
        for data in (decode(as_record(s.record)).data for s in told)
        if isinstance(data, MentionCreated)
    }
    edit, gone = by_type[PostEdited], by_type[PostDeleted]
    before = asked[edit.post.uri]
    assert (before.revision, before.version) == (edit.previous_revision, edit.post.version - 1)
    assert edit.post.facets == before.facets
    assert gone.ref == asked[gone.ref.uri].ref
    waiting = [type(decode(as_record(s.record)).data) for s in told if _needs_quiet(s)]
    assert waiting[:3] == [AccountChanged, PostEdited, PostDeleted]
    assert waiting[3:] == [AccountChanged, MessageCreated]  # /forget


def test_who_opts_out_is_nobody_real_and_opts_in_again() -> None:
    made = [
        decode(as_record(scene.record)).data
        for scene in scenes(BOT, "run-7")
        if "no event" not in scene.title
    ]
    wishes = [data for data in made if isinstance(data, AccountChanged)]
    assert [wish.opted_out for wish in wishes] == [True, False]
    (account,) = {wish.account_id for wish in wishes}
    assert account.endswith("run-7")
    asking = [data for data in made if isinstance(data, MentionCreated)]
    assert [data.post.author.id for data in asking].count(account) == 1


def test_scenes_show_people_and_texts_but_no_ids() -> None:
    for scene in scenes(BOT, "run"):
        assert scene.who.startswith("@") or scene.who == "(no event)"
        assert "acct-" not in scene.text
        assert "post:" not in scene.text
    shown = {scene.who: scene.text for scene in scenes(BOT, "run")}
    assert shown["@chidi (deletes)"] == f"@{BOT.handle} What is the capital of Canada?"
    assert shown["@dora"] != ""


def test_two_runs_share_no_event() -> None:
    first = {dict(scene.record.headers).get("ce_id") for scene in scenes(BOT, "one")}
    second = {dict(scene.record.headers).get("ce_id") for scene in scenes(BOT, "two")}
    assert first & second <= {None}


async def test_a_feed_file_is_shown_with_who_says_what() -> None:
    records = [scene.record for scene in scenes(BOT, "run")]
    first, garbage = records[0], records[10]

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
        (
            Report(played=2, inputs=3, replied=1, corrected=1, retracted=1),
            "every input had exactly",
        ),
        (Report(played=2, inputs=2, replied=2), "every input had exactly one outcome"),
    ],
)
def test_the_summary_of_nothing_is_no_success(report: Report, said: str) -> None:
    made, shown = demo()
    made.report = report
    made._print_summary()
    assert shown.getvalue().splitlines()[-1].startswith(said)
    assert ("corrected: 1" in shown.getvalue()) is bool(report.corrected)


async def test_a_correction_is_shown_with_what_was_said_before() -> None:
    made, shown = demo()
    scene = next(iter(scenes(BOT, "run")))
    made._show(scene, replied("Berlin."))
    made._show(scene, changed("Cairo."))
    made._show(scene, changed())
    made._show(scene, None)
    lines = [line.strip() for line in shown.getvalue().splitlines()]
    told = ["Berlin.", "the bot had said: Berlin.", "Cairo.", "the bot had said: Cairo."]
    assert [line for line in lines if line in told] == told
    assert lines.index("retracted, deleted") > lines.index("corrected, edited")
    assert "taken note of; no reply changes" in lines


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


@pytest.mark.parametrize("made", [changed("Cairo."), changed()])
def test_a_reply_that_is_changed_once_is_no_problem(made: Outcome) -> None:
    found = Outcomes(decisions=Counter({INPUT: 1}), replies=Counter({"reply-1": 1}))
    (change,) = made.changes
    (problem,) = player(made)._problems(found)
    assert problem == f"{INPUT} has its change of reply-1 0 times"
    if isinstance(change.data, ReplyCorrected):
        found.corrections[f"reply-1 in {change.data.decision_id}"] += 1
    else:
        assert isinstance(change.data, ReplyRetracted)
        found.retractions["reply-1"] += 1
    assert list(player(made)._problems(found)) == []


def test_changes_that_were_not_followed_to_their_end_are_a_problem() -> None:
    given_up = player(replied("Paris."))
    given_up._waiting = True
    (problem,) = given_up._problems(committed())
    assert problem == "what follows from the changes did not come to its end"


def test_a_report_counts_by_reason() -> None:
    report = Report(inputs=3, seconds=30)
    for outcome in (
        replied("Paris."),
        Outcome(INPUT, decision(Kind.SKIPPED, reason="loop"), INPUT),
        Outcome(INPUT, decision(Kind.DEAD_LETTERED, reason="not-json"), INPUT),
        changed("Cairo."),
        changed(),
    ):
        report.count(outcome)
    assert (report.corrected, report.retracted) == (1, 1)
    assert (report.replied, report.skipped, report.dead_lettered) == (
        1,
        {"loop": 1},
        {"not-json": 1},
    )
    assert report.replies_per_minute == 2
