"""From the log to what people read: ``gather``, ``explanation``, ``text`` and ``page``."""

import html.parser
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bot.context import Why
from bot.explain import words
from bot.explain.case import Case
from bot.explain.explanation import Explanation, explain
from bot.explain.find import Subject, find
from bot.explain.gather import gather
from bot.explain.page import as_html
from bot.explain.text import as_text
from bot.observe import Position
from schemas import names
from schemas.codes import ErrorCode, Outcome, SkipReason
from schemas.control import Moderation, ModerationCommanded
from schemas.feed import FeedbackGiven, FeedbackKind
from schemas.record import Record
from schemas.replies import ReplyCorrected, ReplyRetracted
from tests.bot.explain.log import PARTITION, Log, decision_in, told, topics_read
from tests.bot.make import ALICE, BOB, direct, mention, post, record, run_of

ASKING = "at://p/asking"
HOSTILE = "</pre><script>alert(1)</script>\x1b[2J\u202e<img src=x onerror=alert(2)>{{ 7*7 }}"


async def case_of(log: Log, word: str = ASKING, *, private: bool = False) -> Case:
    decided = await find(log, Subject.of(word), private=private)
    return await gather(log, decided, private=private)


async def thread(text: str = "@twite who is right?", said: str = "Cats are.") -> Log:
    """A thread of two posts, of which one belongs elsewhere, and the answer below it."""
    log = Log()
    above = run_of(
        post("at://p/1", "Dogs are.", author=BOB, conversation_id="elsewhere"),
        post("at://p/2", said, author=BOB),
    )
    asked = mention(text, ancestors=above, parent=above[-1].ref)
    await log.answer(record(asked))
    return log


def shown(what: Explanation, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(as_text(what), crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_an_answer_is_told_from_the_thread_to_the_model() -> None:
    case = await case_of(await thread())
    what = explain(case)
    assert what.headline == "The bot replied"
    assert [(s.uri, s.included, s.why) for s in what.thread] == [
        ("at://p/1", False, "other-conversation"),
        ("at://p/2", True, "root"),
        (ASKING, True, "asking"),
    ]
    assert [s.text for s in what.thread] == [None, "Bob: Cats are.", "Alice: who is right?"]
    assert what.said[0].text is not None
    assert what.said[0].text.startswith("echo ")
    assert [step.name for step in what.rules][:3] == ["duplicate", "own-post", "deleted"]
    assert all(step.meaning for step in what.rules)
    assert what.prompt is not None
    assert what.prompt.tokens["all"] == sum(what.prompt.tokens[t] for t in ("trusted", "untrusted"))
    by = {part.by for part in what.prompt.parts}
    assert by == {"the prompt mention", "the frame", BOB.id, ALICE.id}
    assert what.input["taken_in_at"] == "2026-11-24T12:00:01Z"
    # Without views there are no positions; everything else is on the record.
    assert what.warnings == ()
    assert {r.who for r in what.remedies} >= {"the asker", "a moderator", "an auditor"}
    text = shown(what)
    for word in (
        what.headline,
        "left out",
        "belongs to another conversation",
        "Cats are.",
        "model",
    ):
        assert word in text


async def test_of_a_public_decision_no_private_topic_of_the_bot_is_read() -> None:
    log = await thread()
    await case_of(log)
    assert topics_read(log) == {
        names.BOT_AUDIT,
        names.BOT_MODERATION,
        names.BOT_REPLIES,
        names.FEED_FEEDBACK,
        names.FEED_MENTIONS,
    }


async def test_why_it_was_silent_is_told_with_the_rule() -> None:
    log = Log()
    await log.answer(record(mention("hello there", facets=())))
    what = explain(await case_of(log))
    assert what.headline == "The bot said nothing: not-addressed"
    assert what.because is not None
    assert (what.because.name, what.because.detail) == (
        "not-addressed",
        "no mention facet names the bot",
    )
    assert "Decided by the rule not-addressed" in shown(what)
    assert any("bot.account_id" in remedy.what for remedy in what.remedies)


async def test_a_dead_letter_is_told_with_what_to_do() -> None:
    log = Log()
    await log.answer(replace(record(mention()), value=b'{"post": 1}'))
    what = explain(await case_of(log, f"feed.mentions/{PARTITION}/0", private=True), hidden=False)
    assert what.headline == "The record could not be handled: schema"
    assert what.meaning == ErrorCode.SCHEMA.meaning
    assert [r.how for r in what.remedies][:2] == [
        f"twite dead-letters show feed.mentions/{PARTITION}/0",
        f"twite dead-letters redrive feed.mentions/{PARTITION}/0",
    ]


async def test_corrections_and_retractions_of_the_reply_are_told_in_their_order() -> None:
    log = await thread()
    first = (await case_of(log)).decided.data
    reply = first.reply_ids[0]
    _later(log, first, "d-2", Outcome.CORRECTED, ReplyCorrected(
        reply_id=reply, decision_id="d-2", reason="edited", revision="r2", text="Better.",
        conversation_id="conv-1",
    ))  # fmt: skip
    _later(log, first, "d-3", Outcome.RETRACTED, ReplyRetracted(
        reply_id=reply, decision_id="d-3", reason="deleted", conversation_id="conv-1",
    ))  # fmt: skip
    what = explain(await case_of(log, reply))
    assert what.decision_id == first.decision_id
    assert [(one.outcome, [s.text for s in one.said]) for one in what.later] == [
        ("corrected", ["Better."]),
        ("retracted", [None]),
    ]
    correction = explain(await case_of(log, "d-2"))
    assert correction.headline == "The bot corrected its reply: edited"
    assert correction.meaning == Outcome.CORRECTED.meaning
    assert [one.decision_id for one in correction.later] == ["d-3"]
    assert "Better." in shown(what)


async def test_what_others_said_of_it_is_counted_and_commands_are_told() -> None:
    log = await thread()
    first = (await case_of(log)).decided.data
    for number, kind in enumerate((FeedbackKind.LIKE, FeedbackKind.LIKE, FeedbackKind.REPORT)):
        given = FeedbackGiven(reply_id=first.reply_ids[0], account_id=f"liker-{number}", kind=kind)
        log.put(told(names.FEED_FEEDBACK, names.FEEDBACK_GIVEN, given))
    for subject in (f"account:{ALICE.id}", "account:somebody-else"):
        command = ModerationCommanded(
            command="block", subject=subject, reason="rude", moderator="mod-1"
        )
        log.put(told(names.BOT_MODERATION, names.MODERATION_COMMANDED, command, subject), 0)
    what = explain(await case_of(log))
    assert what.feedback == {"like": 2, "report": 1}
    assert [(c.command, c.subject) for c in what.commands] == [("block", f"account:{ALICE.id}")]
    assert "liker" not in json.dumps(what.value())


async def test_the_command_that_an_outcome_came_of_is_told_with_its_id() -> None:
    log = await thread()
    first = (await case_of(log)).decided.data
    cause = Moderation(
        id="command-7", command="retract", subject="reply:r", moderator="mod-1", reason="rude"
    )
    retracted = ReplyRetracted(
        reply_id=first.reply_ids[0], decision_id="d-2", reason="moderated", conversation_id="conv-1"
    )
    commanded = first.model_copy(update={"moderation": cause})
    _later(log, commanded, "d-2", Outcome.RETRACTED, retracted)
    for what in (explain(await case_of(log)), explain(await case_of(log, "d-2"))):
        for text in (shown(what, 1000), as_html(what), json.dumps(what.value())):
            assert "command-7" in text
            assert "mod-1" in text
            assert "rude" in text
    skipped = explain(await case_of(log, "d-2"))
    assert skipped.moderation is not None
    assert skipped.moderation["id"] == "command-7"
    assert "Commanded: retract on reply:r by mod-1: rude" in shown(skipped, 1000)


async def test_what_is_gone_is_named_and_the_rest_is_told() -> None:
    log = await thread()
    log.first[names.FEED_MENTIONS, PARTITION] = 1
    log.first[names.BOT_REPLIES, PARTITION] = 1
    what = explain(await case_of(log))
    assert what.warnings == (
        "the input is gone: past retention",
        "replies are not there: 1 of them: past retention",
    )
    assert what.output is not None
    log.missing.add(names.FEED_MENTIONS)
    assert (await case_of(log)).gone["input"] == "its topic is gone"


async def test_a_recreated_topic_is_told() -> None:
    log = await thread()
    log.change(
        Position(names.FEED_MENTIONS, PARTITION, 0), headers=record(mention(), event_id="x").headers
    )
    log.change(Position(names.BOT_REPLIES, PARTITION, 0), value=b"{")
    case = await case_of(log)
    assert case.input is None
    assert case.gone["input"] == "another record stands there now: the topic was recreated"


async def test_a_reply_that_never_was_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    log = await thread()
    log.records[names.BOT_REPLIES, PARTITION].clear()
    log.put(record(mention()), PARTITION)
    log.records[names.BOT_REPLIES, PARTITION].append(_strange(log))
    monkeypatch.setattr("bot.explain.gather.datetime", _Clock)
    assert "it is torn" in (await case_of(log)).gone["replies"]


async def test_an_edited_record_contradicts_itself() -> None:
    log = await thread()
    at = Position(names.BOT_AUDIT, PARTITION, 0)
    value = json.loads(log.records[names.BOT_AUDIT, PARTITION][0].value or b"")
    value["prompt"]["template_hash"] = "0" * 64
    value["prompt"]["token_ids"].pop()
    value["output"]["logprobs"].append(-0.5)
    value["engine"] = None
    log.change(at, value=json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
    warnings = "\n".join(explain(await case_of(log)).warnings)
    assert "names another prompt than the decision" in warnings
    assert "the segments do not cover the token ids" in warnings
    assert "one log-probability for each token" in warnings
    assert "not on the record: engine" in warnings


async def test_private_words_are_lengths_until_they_are_revealed() -> None:
    log = Log()
    await log.answer(record(direct("purple-cow")))
    case = await case_of(log, "at://m/1", private=True)
    hidden, open_ = explain(case, hidden=True, tokens=True), explain(case, tokens=True)
    ids = " ".join(map(str, b"purple-cow"))
    for what in (shown(hidden), as_html(hidden), json.dumps(hidden.value())):
        assert "purple" not in what
        assert ids not in what.replace(",", "")
    for what in (shown(open_, 1000), as_html(open_), json.dumps(open_.value())):
        assert "purple-cow" in what
    assert ids in shown(open_, 100_000)


async def test_hostile_texts_neither_run_nor_steer() -> None:
    what = explain(await case_of(await thread(f"@twite {HOSTILE}", HOSTILE)), tokens=True)
    hurt = replace(
        what,
        headline=HOSTILE,
        warnings=(HOSTILE,),
        said=tuple(replace(one, text=HOSTILE) for one in what.said),
        thread=tuple(replace(one, uri=HOSTILE, text=HOSTILE) for one in what.thread),
        engine={**(what.engine or {}), "model": HOSTILE},
        causation=HOSTILE,
    )
    page = as_html(hurt)
    for text in (page, shown(hurt)):
        assert "\x1b" not in text.replace("\x1b[0m", "")
        assert "\u202e" not in text
    assert "<script" not in page
    assert "{{ 7*7 }}" in page
    assert _tags(page).isdisjoint({"script", "img", "link", "iframe", "object", "form", "a"})


@given(st.text(max_size=40))
def test_no_text_gets_out_of_its_place_on_the_page(text: str) -> None:
    page = as_html(replace(PLAIN, headline=text, said=(replace(PLAIN.said[0], text=text),)))
    assert _tags(page) == _tags(as_html(PLAIN))


def test_every_word_that_can_stand_there_is_explained() -> None:
    assert all(words.why(why.value) for why in Why)
    assert all(words.meaning(word) for kind in (SkipReason, ErrorCode) for word in kind)
    assert all(words.mend(reason) for reason in SkipReason)
    assert words.rule("of-the-future") == words.why("of-the-future") == words.meaning("x") == ""


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found += [tag, *(name for name, _ in attrs if name.startswith("on"))]


def _tags(page: str) -> set[str]:
    parser = _Tags()
    parser.feed(page)
    return set(parser.found)


class _Clock:
    """A moment after everything of the log."""

    @staticmethod
    def now(zone: Any) -> Any:
        from tests.bot.make import NOW

        return NOW.astimezone(zone)

    @staticmethod
    def fromtimestamp(seconds: float, zone: Any) -> Any:
        from datetime import datetime

        return datetime.fromtimestamp(seconds, zone)


def _strange(log: Log) -> Record:
    return replace(
        log.records[names.FEED_MENTIONS, PARTITION][0], topic=names.BOT_REPLIES, offset=0
    )


def _later(log: Log, first: Any, decision: str, outcome: Outcome, said: Any) -> None:
    """A later decision on the same reply, and what it says."""
    corrected = isinstance(said, ReplyCorrected)
    kind = names.REPLY_CORRECTED if corrected else names.REPLY_RETRACTED
    log.put(told(names.BOT_REPLIES, kind, said, event_id=f"{said.reply_id}/{decision}"))
    decided = first.model_copy(
        update={"decision_id": decision, "outcome": outcome, "reason": said.reason}
    )
    log.put(told(names.BOT_AUDIT, names.DECISION_RECORDED, decided, event_id=decision))


def _plain() -> Explanation:
    """An explanation without anything hostile in it."""
    import asyncio

    async def made() -> Explanation:
        log = Log()
        decision_in(await log.answer(record(mention())))
        return explain(await case_of(log))

    return asyncio.run(made())


PLAIN = _plain()
