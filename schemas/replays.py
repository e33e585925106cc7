"""What a replay found of one decision: how the input ended then, and how it would end now.

Made by ``bot/replay``; goes to ``bot.replays``, to the report, and to the folder of the replay,
from which it goes on after an interruption. Of what is not public or unlisted the texts stand in
it only where whoever started the replay asked for that.
"""

from enum import StrEnum
from typing import Literal

from schemas.audit import ContextItem, InputRef, RuleVerdict
from schemas.codes import Outcome
from schemas.fields import Bool, Count, Float, Id, Many, Payload, Str, Time

ReplayMode = Literal["frozen", "rebuilt"]


class Change(StrEnum):
    """What is different now; of several the one that stands last here."""

    IDENTICAL = "identical"
    TEXT = "text-changed"
    VERDICT = "verdict-changed"
    ACTION = "action-changed"
    NOT_REPLAYED = "not-replayed"


class NotReplayed(StrEnum):
    """Why nothing can be said."""

    BEYOND_RETENTION = "beyond-retention"
    ORIGINAL_GONE = "original-gone"
    MODEL_GONE = "model-gone"
    OLDER_SCHEMA = "older-schema"
    TORN_RECORD = "torn-record"
    EDITED_RECORD = "edited-record"
    OTHER_BOT = "other-bot"
    UNKNOWN_ID = "unknown-id"
    REFUSED = "refused"
    DEPENDS_ON_LATER = "depends-on-later"


class ScoreVerdict(Payload):
    """Whether the model would draw the recorded tokens again: from one forward pass.

    ``margin``: how far token ``diverged_at`` was from being drawn, in logits where sampling is
    greedy, else in probability.
    """

    verdict: Literal["identical", "diverged"]
    diverged_at: Count | None = None
    margin: Float | None = None


class ReplaySide(Payload):
    """One of the two that are compared. ``text``: what the model gave, null where it was not
    asked, or where it is hidden; ``length``: of that text in characters."""

    outcome: Outcome | None = None
    reason: Str | None = None
    text: Str | None = None
    length: Count | None = None
    finish_reason: Str | None = None
    rules: Many[RuleVerdict] = ()
    context: Many[ContextItem] = ()
    template: Str | None = None
    template_hash: Str | None = None
    model: Str | None = None
    weights_digest: Str | None = None
    code_version: Str | None = None
    settings_digest: Str | None = None


class ReplayCompared(Payload):
    """``twite.bot.replay.compared.v1``.

    ``decision``: where the decision record stands (``topic/partition/offset``), null where there
    is none; ``why``: for what could not be replayed; ``notes`` are for people and never hold what
    was written; ``hidden``: texts were left out. The envelope's id is made of ``replay_id`` and
    ``decision_id``, so that a result that is published again is known as the same.
    """

    replay_id: Id
    mode: ReplayMode
    decision_id: Id
    decision: Id | None = None
    input: InputRef | None = None
    conversation_id: Id | None = None
    change: Change
    why: NotReplayed | None = None
    notes: Many[Str] = ()
    asked_model: Bool = False
    hidden: Bool = False
    before: ReplaySide | None = None
    after: ReplaySide | None = None
    score: ScoreVerdict | None = None
    compared_at: Time
