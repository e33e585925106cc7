"""How an outcome looks to a person, and to a program.

Outcomes come in; Rich text or JSON values go out. What people wrote is shown as it is but
for control characters, which could steer a terminal.
"""

import re
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from bot.observe import Outcome
from schemas.codes import Outcome as Kind
from schemas.codes import SkipReason
from schemas.replies import ReplyCorrected

STYLES = {
    Kind.REPLIED: "green",
    Kind.SKIPPED: "yellow",
    Kind.DEAD_LETTERED: "red",
    Kind.CORRECTED: "cyan",
    Kind.RETRACTED: "magenta",
}
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Indented:
    """``body`` moved to the right by ``columns``, without the blanks at the end of lines with
    which Rich's own ``Padding`` fills a file or a pipe."""

    body: RenderableType
    columns: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update_width(max(1, options.max_width - self.columns))
        for line in console.render_lines(self.body, inner, pad=False):
            text = _without_blanks(line)
            yield from [Segment(" " * self.columns), *text] if text else []
            yield Segment.line()


def _without_blanks(line: list[Segment]) -> list[Segment]:
    """Up to the last character that shows."""
    kept = list(line)
    while kept:
        last = kept.pop()
        if text := last.text.rstrip():
            return [*kept, Segment(text, last.style, last.control)]
    return kept


def outcome_text(outcome: Outcome) -> RenderableType:
    """The reply, the reason of the skip, or the code of the dead letter, and where it stands."""
    style = STYLES.get(outcome.decision.outcome, "")
    lines: list[RenderableType] = [Text(plain(headline(outcome)), style)]
    lines += [Indented(Text(plain(text)), 4) for text in texts(outcome)]
    lines.append(Indented(Text(places(outcome), "dim"), 4))
    return Group(*lines)


def headline(outcome: Outcome) -> str:
    """One line: what happened, and why."""
    decision = outcome.decision
    if outcome.dead_letter is not None:
        return f"dead letter {outcome.dead_letter.code}: {outcome.dead_letter.detail}"
    if decision.outcome is not Kind.SKIPPED:
        why = f", {decision.reason}" if decision.reason else ""
        return decision.outcome.value + why + _parts(decision.outcome, len(decision.reply_ids))
    meaning = {reason.value: reason.meaning for reason in SkipReason}.get(decision.reason or "", "")
    first = f" (first: {decision.duplicate_of})" if decision.duplicate_of else ""
    return f"skipped, {decision.reason}: {meaning}{first}"


def _parts(kind: Kind, count: int) -> str:
    """Of how many posts the reply is, where it is more than one."""
    if count < 2:
        return ""
    if kind is Kind.RETRACTED:
        return " (both parts)" if count == 2 else f" (all {count} parts)"
    return f" in {count} parts" if kind is Kind.REPLIED else f" ({count} parts)"


def texts(outcome: Outcome) -> list[str]:
    """What the bot says by it: replies, and replies as they read now."""
    said = [reply.data.text for reply in outcome.replies]
    changed = (change.data for change in outcome.changes)
    return said + [data.text for data in changed if isinstance(data, ReplyCorrected)]


def places(outcome: Outcome) -> str:
    """Where input, decision, replies and dead letter stand: ``topic/partition/offset``."""
    parts = [str(outcome.input), "→", str(outcome.at)]
    parts += [str(reply.at) for reply in outcome.replies]
    parts += [str(change.at) for change in outcome.changes]
    if outcome.dead_letter is not None:
        parts.append(str(outcome.dead_letter.at))
    return " ".join(parts)


def as_json_value(outcome: Outcome) -> dict[str, Any]:
    """The outcome as one JSON object; what a program needs to find the records again."""
    decision = outcome.decision
    return {
        "outcome": decision.outcome.value,
        "reason": decision.reason,
        "input": str(outcome.input),
        "decision_id": decision.decision_id,
        "decision": str(outcome.at),
        "replies": [
            {
                "reply_id": reply.data.reply_id,
                "text": reply.data.text,
                "visibility": reply.data.visibility.value,
                "at": str(reply.at),
            }
            for reply in outcome.replies
        ],
        "changes": [
            {
                "reply_id": change.data.reply_id,
                "text": change.data.text if isinstance(change.data, ReplyCorrected) else None,
                "at": str(change.at),
            }
            for change in outcome.changes
        ],
        "dead_letter": None
        if outcome.dead_letter is None
        else {
            "code": outcome.dead_letter.code,
            "detail": outcome.dead_letter.detail,
            "at": str(outcome.dead_letter.at),
        },
    }


def plain(text: str) -> str:
    """Without characters that steer a terminal or turn the reading direction."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
