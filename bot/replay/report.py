"""What a replay came to, in numbers.

In: its results, one by one. Out: ``Summary``, and the difference of two sides for whoever shows
it. Memory does not grow with the results. Next: ``bot/replay/show.py`` (a terminal), ``page.py``
(HTML), ``bot/cli/replay.py`` (JSON lines).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bot.replay.compare import OF_THE_MOMENT
from schemas.audit import ContextItem, RuleVerdict
from schemas.replays import Change, NotReplayed, ReplayCompared, ReplaySide

CHANGED = (Change.TEXT, Change.VERDICT, Change.ACTION)

MEANING = {
    NotReplayed.BEYOND_RETENTION: "the log no longer holds it: older than the topic's retention.ms",
    NotReplayed.ORIGINAL_GONE: "the log does not hold the input",
    NotReplayed.MODEL_GONE: "other weights answered than those of this engine"
    " (--model or --any-model replays it against them)",
    NotReplayed.OLDER_SCHEMA: "the record is of a version of the contract that is not read here",
    NotReplayed.TORN_RECORD: "the record can't be read",
    NotReplayed.EDITED_RECORD: "the record does not fit its input or itself: somebody changed it,"
    " or it is of another Kafka cluster",
    NotReplayed.OTHER_BOT: "another bot decided it than the one of bot.account_id",
    NotReplayed.UNKNOWN_ID: "no decision record has this id or uri",
    NotReplayed.REFUSED: "the engine does not take this prompt",
    NotReplayed.DEPENDS_ON_LATER: "it was decided by what came after it",
}


@dataclass(slots=True)
class Summary:
    """``same_text``: of those for which the model was asked, how many gave the same text."""

    changes: Counter[Change] = field(default_factory=Counter)
    reasons: Counter[NotReplayed] = field(default_factory=Counter)
    scores: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    same_text: int = 0
    hidden: int = 0

    @classmethod
    def of(cls, results: Iterable[ReplayCompared]) -> "Summary":
        summary = cls()
        for result in results:
            summary.add(result)
        return summary

    def add(self, result: ReplayCompared) -> None:
        self.changes[result.change] += 1
        if result.why is not None:
            self.reasons[result.why] += 1
        if result.score is not None:
            self.scores[result.score.verdict] += 1
        self.hidden += result.hidden
        self.asked += result.asked_model
        self.same_text += result.asked_model and result.change is Change.IDENTICAL

    @property
    def total(self) -> int:
        return self.changes.total()

    @property
    def replayed(self) -> int:
        return self.total - self.changes[Change.NOT_REPLAYED]

    @property
    def changed_outcomes(self) -> float:
        """Share of the replayed whose outcome is another, 0 to 1; all of them where none was
        replayed, as nothing then says that it is safe."""
        return self.changes[Change.ACTION] / self.replayed if self.replayed else 1.0

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "changes": {change.value: self.changes[change] for change in Change},
            "not_replayed": {why.value: count for why, count in sorted(self.reasons.items())},
            "asked_model": self.asked,
            "scores": dict(sorted(self.scores.items())),
            "hidden": self.hidden,
            "changed_outcomes": self.changed_outcomes,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on both sides; none where a side does not have it."""

    name: str
    before: str | None
    after: str | None


def changed_rules(before: ReplaySide, after: ReplaySide) -> list[Difference]:
    """Rules whose verdict is another now, in their order; of two tries both count."""
    then, now = _by_name(before.rules), _by_name(after.rules)
    return [
        Difference(name, then.get(name), now.get(name))
        for name in dict.fromkeys((*then, *now))
        if then.get(name) != now.get(name) and name not in OF_THE_MOMENT
    ]


def changed_context(before: ReplaySide, after: ReplaySide) -> list[Difference]:
    """Posts that are in, out, or of another revision now."""
    then, now = _by_uri(before.context), _by_uri(after.context)
    return [
        Difference(uri, then.get(uri), now.get(uri))
        for uri in dict.fromkeys((*then, *now))
        if then.get(uri) != now.get(uri)
    ]


def action(side: ReplaySide) -> str:
    """The outcome and its reason in a few words."""
    if side.outcome is None:
        return "?"
    return f"{side.outcome.value}, {side.reason}" if side.reason else side.outcome.value


def _by_name(rules: Iterable[RuleVerdict]) -> dict[str, str]:
    told: dict[str, str] = {}
    for rule in rules:
        told[rule.name] = (
            f"{told[rule.name]}, {rule.verdict}" if rule.name in told else rule.verdict
        )
    return told


def _by_uri(items: Iterable[ContextItem]) -> dict[str, str]:
    return {
        item.ref.uri: " ".join(
            filter(None, ("in" if item.included else "out", item.why, item.ref.revision))
        )
        for item in items
    }
