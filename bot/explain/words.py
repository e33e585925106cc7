"""What the words on a decision record mean, and who can do something about it.

In: the names that rules, contexts and outcomes have on the log. Out: one sentence each, for
people. Names that this Twite does not know (another version wrote them) get an empty one.
"""

from typing import Final

from bot import policy
from bot.context import Why
from bot.corrections import RULE as CORRECTIONS
from bot.degenerate import RULE as WORTH_SAYING
from schemas.codes import ErrorCode, Outcome, SkipReason

WHY: Final[dict[Why, str]] = {
    Why.ROOT: "the first post of the thread",
    Why.ANCESTOR: "above the question in the thread",
    Why.SIBLING: "beside the question in the thread",
    Why.TURN: "said before in this talk",
    Why.OWN: "what the bot had said here before",
    Why.QUOTED: "quoted by the question",
    Why.ASKING: "the question itself",
    Why.CONSENT: "its author wants no part in it: whose and what it is is not recorded",
    Why.DELETED: "it was deleted",
    Why.AUDIENCE: "fewer people may see it than would have seen the reply",
    Why.VISIBILITY: "it is for eyes that the bot does not know how to honour",
    Why.BROKEN_RUN: "it does not hang together with the posts below it",
    Why.CYCLE: "it answers itself",
    Why.CONVERSATION: "it belongs to another conversation",
    Why.WRONG_QUOTE: "it is not the post that the question quotes",
    Why.REPEATED: "it stands there twice",
    Why.BUDGET: "there was no room for it in the prompt",
}

_POLICY: Final = {
    rule.name: " ".join((rule.check.__doc__ or "").replace("``", "").split())
    for rule in policy.RULES
}
_LATER: Final = {
    "views": "How far what the bot remembers had caught up with the question.",
    "language": "In which language the asker writes.",
    "characters": "No characters that steer a screen or hide.",
    "unfinished": "An answer that was cut off ends at a sentence.",
    "markdown": "No markdown where the platform shows it as signs.",
    "links-and-handles": "No links and no handles but those that the asker wrote.",
    "length": "No longer than the platform takes.",
    "settled": "The same checks once more: nothing may be left to change.",
    "empty": "Something must be left to say.",
    WORTH_SAYING: "No empty talk: no repetition, no echo of the asker or of itself.",
    "second-look": "What may have changed while the answer was made.",
    "forget": "The asker had the bot forget this talk.",
    "review": "A post that the reply was built on changed: is it still right?",
    "approval": "A moderator was to approve the reply before it was published.",
    CORRECTIONS: "Edits are no free answers: corrections have limits of their own.",
}

_MEANINGS: Final = {
    str(word): word.meaning for kind in (Outcome, SkipReason, ErrorCode) for word in kind
}

MENDS: Final[dict[SkipReason, str]] = {
    SkipReason.OWN_POST: "Nothing: the bot never answers itself.",
    SkipReason.DUPLICATE: "Explain the first decision; this event was delivered again.",
    SkipReason.EDITED: "Nothing: the edit corrects the reply that is there already.",
    SkipReason.NOT_ADDRESSED: "Are bot.account_id here and the account of the platform the same?",
    SkipReason.TOO_OLD: "limits.max_age_hours says what is too old; are there enough workers?",
    SkipReason.QUOTA: "The limits.* settings say how much it answers, and to whom.",
    SkipReason.OPTED_OUT: "Nothing: only the asker can opt in again.",
    SkipReason.BLOCKED: "A moderator's block ends with unblock, the asker's own only by the asker.",
    SkipReason.VISIBILITY: "The platform sends a visibility that the contract does not have.",
    SkipReason.LOOP: "bot.hop_limit says how often bots may answer each other.",
    SkipReason.DELETED: "Nothing: it is gone.",
    SkipReason.STOPPED: "The command resume of a moderator ends it.",
    SkipReason.CANCELLED: "Nothing: a moderator cancelled it; what comes later is answered.",
    SkipReason.REJECTED: "Nothing: a moderator read the reply and rejected it.",
    SkipReason.NOT_APPROVED: "twite moderate held shows what waits; bot.approval_hours, how long.",
    SkipReason.MODERATED: "Nothing: a moderator had the reply taken back, or corrected.",
    SkipReason.NO_ANSWER: "Look at the output below; another prompt or model may do better.",
    SkipReason.KEPT: "Nothing: the reply was found to be right still.",
    SkipReason.OVERTAKEN: "Nothing: a later change is looked at instead.",
    SkipReason.TAKEN_BACK: "Nothing: the reply is gone already.",
    SkipReason.UNKNOWN_REPLY: "Retract it on the platform: the bot does not know it any more.",
}
"""What an operator can do about each reason to say nothing."""


def why(word: str | None) -> str:
    """Why a post was seen, or left out."""
    return WHY.get(Why(word), "") if word in set(Why) else ""


def rule(name: str) -> str:
    """What a rule or check looks at."""
    return _POLICY.get(name) or _LATER.get(name, "")


def meaning(word: str | None) -> str:
    """Of an outcome, a skip reason or an error code."""
    return _MEANINGS.get(word or "", "")


def mend(reason: str | None) -> str:
    """What an operator can do about a skip."""
    return MENDS[SkipReason(reason)] if reason in set(SkipReason) else ""
