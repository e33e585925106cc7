"""Who could do what about a decision: the asker, others, moderators, operators, auditors.

In: a case. Out: ``Remedy`` values that fit it, most direct first. They name only what this Twite
obeys. Next: ``bot/explain/explanation.py``.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from bot.explain import words
from bot.explain.case import Case, Decided
from bot.explain.gather import asker_of, blockable
from schemas.codes import Outcome
from schemas.names import FEED_DIRECT_MESSAGES

UNDO = {"block": "unblock", "stop": "resume", "pause": "resume"}
"""Which command undoes which."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """``who`` can do ``what``; ``how`` is a command or an event, empty where it is plain."""

    who: str
    what: str
    how: str = ""


def remedies(case: Case) -> tuple[Remedy, ...]:
    """What can be done, by whom."""
    told = {
        Outcome.REPLIED: _of_a_reply,
        Outcome.CORRECTED: _of_a_reply,
        Outcome.SKIPPED: _of_a_skip,
        Outcome.RETRACTED: _of_a_skip,
        Outcome.DEAD_LETTERED: _of_a_dead_letter,
    }[case.decided.data.outcome]
    return (*told(case), *_always(case.decided))


def _of_a_reply(case: Case) -> Iterator[Remedy]:
    decided, data = case.decided, case.decided.data
    yield Remedy("the asker", "edit the question: the reply is looked at again and corrected")
    yield Remedy("the asker", "delete the question: the reply is taken back")
    if decided.input.topic == FEED_DIRECT_MESSAGES:
        yield Remedy("the asker", "have the bot forget this talk", "/forget")
    yield Remedy("the asker", "opt out or block the bot: it answers no more")
    others = {c.author_id for c in data.context if c.included} - {asker_of(decided)}
    if len(others) > 0:
        yield Remedy(
            "whoever wrote in the thread",
            "edit or delete a post that was seen (the reply is corrected, kept or taken back),"
            " or opt out (it is seen no more)",
        )
    yield from _of_moderators(case)
    if data.prompt is not None:
        yield Remedy(
            "the operator",
            f"change the prompt {data.prompt.template}",
            f"twite prompts diff {data.prompt.template}",
        )


def _of_moderators(case: Case) -> Iterator[Remedy]:
    decided, private = case.decided, " --private" if case.decided.private else ""
    gone = any(later.decided.data.outcome is Outcome.RETRACTED for later in case.later)
    if decided.data.reply_ids and not gone:
        reply = shlex.quote(decided.data.reply_ids[0])
        yield _command("take the reply back", f"retract {reply}{private}")
        yield _command("have it say something else", f"correct {reply}{private} --text TEXT")
    blocked = {one.data.subject for one in case.commands if one.data.command == "block"}
    for subject in blockable(decided):
        word, what = ("unblock", "again") if subject in blocked else ("block", "no more")
        yield _command(f"have the bot answer there {what}", f"{word} {shlex.quote(subject)}")
    what = "switch the bot off, everywhere or for mentions or direct-messages"
    yield _command(what, "stop everything")


def _command(what: str, words: str) -> Remedy:
    """What a moderator types; who and why are theirs to say."""
    return Remedy("a moderator", what, f"twite moderate {words} --reason WHY --as MODERATOR")


def _of_a_skip(case: Case) -> Iterator[Remedy]:
    data = case.decided.data
    if data.duplicate_of:
        first = f"twite explain {shlex.quote(data.duplicate_of)}"
        yield Remedy("everybody", "ask about the first decision", first)
    elif told := words.mend(data.reason):
        yield Remedy("the operator", told)
    cause = data.moderation
    if cause is not None and cause.command in UNDO:
        undone = f"{UNDO[cause.command]} {shlex.quote(cause.subject)}"
        yield _command(f"end that {cause.command}, if it stands still", undone)


def _of_a_dead_letter(case: Case) -> Iterator[Remedy]:
    decided = case.decided
    yield Remedy("the operator", "look at the record", f"twite dead-letters show {decided.input}")
    yield Remedy(
        "the operator",
        "let the bot try again, once the cause is mended",
        f"twite dead-letters redrive {decided.input}",
    )


def _always(decided: Decided) -> Iterator[Remedy]:
    data = decided.data
    private = " --private" if decided.private else ""
    if data.prompt is not None:
        yield Remedy(
            "an auditor",
            "ask the model again, with the same prompt and seed",
            f"twite replay --id {data.decision_id}",
        )
        yield Remedy(
            "an auditor",
            "spell the prompt token by token",
            f"twite prompts render --decision {data.decision_id}",
        )
    yield Remedy(
        "an auditor",
        "take the case into a signed file",
        f"twite evidence export {data.decision_id}{private} --key KEY.pem --out FILE",
    )
