"""A replay on a terminal: the counts, and the cases side by side.

In: a summary and results. Out: things for Rich to print. What people wrote is shown without the
characters that steer a terminal.
"""

from collections.abc import Iterator

from rich.text import Text

from bot.replay.report import (
    MEANING,
    Difference,
    Summary,
    action,
    changed_context,
    changed_rules,
)
from bot.replay.words import pieces
from bot.rows import Rows
from bot.show import plain
from schemas.replays import Change, ReplayCompared

STYLES = {
    Change.IDENTICAL: "green",
    Change.TEXT: "cyan",
    Change.VERDICT: "yellow",
    Change.ACTION: "bold red",
    Change.NOT_REPLAYED: "magenta",
}
_PIECES = {"same": ("", "", ""), "gone": ("[-", "-]", "red"), "new": ("{+", "+}", "green")}
"""As ``git diff --word-diff`` marks them, so that it can be told without colours."""


def summary_rows(summary: Summary) -> Rows:
    """A row for each kind of change, and one for each reason of what could not be replayed."""
    rows = []
    for change in Change:
        count = summary.changes[change]
        share = f"{count / summary.total:.1%}" if summary.total else ""
        style = STYLES[change] if count else "dim"
        rows.append((Text(_words(change), style), Text(str(count)), Text(share), Text()))
    for why, count in sorted(summary.reasons.items()):
        rows.append((Text(f"  {why.value}"), Text(str(count)), Text(), Text(MEANING[why])))
    return Rows(("result", "count", "share", ""), rows, prose=frozenset({3}))


def further(summary: Summary) -> Iterator[str]:
    """Lines below the table."""
    if not_asked := summary.replayed - summary.asked:
        yield f"the model was not asked for {not_asked} of {summary.replayed}"
    if scores := summary.scores:
        yield (
            f"re-scored: {scores['identical']} of {scores.total()} would be drawn again token for"
            " token"
        )
    if summary.hidden:
        yield f"{summary.hidden} are private: their texts are not shown (--reveal shows them)"


def case_lines(result: ReplayCompared) -> Iterator[Text]:
    """One result: a headline, and what is different below it."""
    style = STYLES[result.change]
    why = f" ({MEANING[result.why]})" if result.why else ""
    yield Text.assemble((_words(result.change) + why, style), f"  {plain(result.decision_id)}")
    yield Text(f"    {_places(result)}", "dim")
    yield from (Text(f"    {plain(note)}", "dim") for note in result.notes)
    before, after = result.before, result.after
    if before is None or after is None:
        return
    if action(before) != action(after):
        yield Text(f"    {plain(action(before))} → {plain(action(after))}", "bold")
    for one in changed_rules(before, after):
        yield _difference("rule", one)
    for one in changed_context(before, after):
        yield _difference("context", one)
    if before.text != after.text:
        yield Text("    ") + text_diff(before.text or "", after.text or "")
    if score := result.score:
        yield Text(f"    {_score(score.verdict, score.diverged_at, score.margin)}", "dim")


def text_diff(before: str, after: str) -> Text:
    """Both texts in one, with what is gone and what is new marked."""
    shown = Text()
    for kind, words in pieces(before, after):
        start, end, style = _PIECES[kind]
        shown.append(f"{start}{plain(words)}{end}", style)
    return shown


def _words(change: Change) -> str:
    return change.value.replace("-", " ") if change is not Change.NOT_REPLAYED else "not replayed"


def _places(result: ReplayCompared) -> str:
    at = result.input
    origin = f"{at.topic}/{at.partition}/{at.offset}" if at else "?"
    return plain(f"{origin} → {result.decision or 'no record'}")


def _difference(kind: str, one: Difference) -> Text:
    then, now = (plain(side) if side else "not there" for side in (one.before, one.after))
    return Text(f"    {kind} {plain(one.name)}: {then} → {now}", "yellow")


def _score(verdict: str, at: int | None, margin: float | None) -> str:
    if verdict == "identical":
        return "the recorded tokens would be drawn again"
    return f"the recorded tokens diverge at number {at}, by {margin}"
