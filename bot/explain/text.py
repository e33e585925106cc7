"""An explanation for a terminal.

In: ``Explanation``. Out: something for Rich to print, with ``crop=False``. Texts of people are
shown without characters that steer a terminal; cyan is trusted, yellow is what people wrote.
"""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bot.explain.explanation import Explanation, LaterShown, SaidText, Seen
from bot.show import STYLES, Indented, plain
from schemas.codes import Outcome

TRUST = {"trusted": "cyan", "untrusted": "yellow"}
VERDICTS = {"skip": "bold yellow", "retry": "yellow", "changed": "cyan", "behind": "yellow"}
SHOWN_HASH = 12  # hex digits
INDENT = 4


def as_text(told: Explanation) -> RenderableType:
    """The whole explanation."""
    parts: list[RenderableType] = list(_top(told))
    for title, lines in _sections(told):
        if lines:
            parts += [Text(), Text(title, "bold"), *(Indented(line, INDENT) for line in lines)]
    return Group(*parts)


def _top(told: Explanation) -> Iterator[RenderableType]:
    yield Text(plain(told.headline), f"bold {STYLES.get(Outcome(told.outcome), '')}")
    yield Text(plain(told.meaning))
    if (rule := told.because) is not None:
        detail = f" ({rule.detail})" if rule.detail else ""
        yield Text(plain(f"Decided by the rule {rule.name}{detail}: {rule.meaning}"))
    if told.moderation is not None:
        yield Text(plain(commanded(told.moderation)))
    for warning in told.warnings:
        yield Text(plain(f"warning: {warning}"), "bold yellow")
    if told.hidden:
        yield Text("Private: texts are shown as lengths; --reveal shows them.", "yellow")


def _sections(told: Explanation) -> Iterator[tuple[str, list[RenderableType]]]:
    yield "What it said", [line for said in told.said for line in _said(said)]
    yield "The thread as it saw it", [line for seen in told.thread for line in _seen(seen)]
    yield "Rules and checks, in their order", list(_rules(told))
    yield "Prompt", list(_prompt(told))
    yield "What the model gave", list(_output(told))
    yield "Tokens", list(_tokens(told))
    yield "Model", list(_model(told))
    yield "Time", list(_timings(told))
    yield "What came of it later", [line for later in told.later for line in _later(later)]
    yield "What people and moderators said of it", list(_reactions(told))
    yield "Who can do what about it", list(_remedies(told))
    yield "Where it stands", list(_places(told))


def commanded(command: Mapping[str, str]) -> str:
    """The command of a moderator that an outcome came of, with its id; ``command``: the members
    of ``schemas.control.Moderation``."""
    what = f"{command['command']} on {command['subject']} by {command['moderator']}"
    return f"Commanded: {what}: {command['reason']} (command {command['id']})"


def _said(said: SaidText) -> Iterator[RenderableType]:
    yield Text(plain(f"{said.what} {said.reply_id} at {said.at}"), "dim")
    if said.text is not None:
        yield Indented(Text(plain(said.text)), INDENT)


def _seen(seen: Seen) -> Iterator[RenderableType]:
    mark = ("seen      ", "green") if seen.included else ("left out  ", "yellow")
    why = seen.meaning or seen.why or ""
    who = plain(f"{seen.author_id}  {seen.uri}")
    yield Text.assemble(mark, who, (f"  {plain(why)}", "dim"))
    if seen.text is not None:
        yield Indented(Text(plain(seen.text), TRUST["untrusted"]), INDENT)


def _rules(told: Explanation) -> Iterator[RenderableType]:
    if not told.rules:
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for number, step in enumerate(told.rules, 1):
        verdict = Text(plain(step.verdict), VERDICTS.get(step.verdict, "green"))
        detail = Text(plain(step.detail or ""), "yellow")
        meaning = Text(step.meaning, "dim")
        told_of = Text(" ").join(text for text in (detail, meaning) if text)
        table.add_row(f"{number:>2}", plain(step.name), verdict, told_of)
    yield table


def _prompt(told: Explanation) -> Iterator[RenderableType]:
    prompt = told.prompt
    if prompt is None:
        return
    yield Text(plain(f"{prompt.template}, sha256 {prompt.template_hash}"))
    yield Text.assemble(
        f"{prompt.tokens['all']} tokens: ",
        (f"{prompt.tokens['trusted']} trusted", TRUST["trusted"]),
        ", ",
        (f"{prompt.tokens['untrusted']} untrusted", TRUST["untrusted"]),
    )
    for part in prompt.parts:
        if part.text.strip():
            yield Text(plain(f"{part.role}, by {part.by}"), "dim")
            yield Indented(Text(plain(part.text), TRUST.get(part.trust, "")), INDENT)


def _output(told: Explanation) -> Iterator[RenderableType]:
    output = told.output
    if output is None:
        return
    likely = ""
    if output.probability is not None:
        likely = f", {output.probability:.0%} a token on average"
    yield Text(f"{output.tokens} tokens{likely}; ended by {plain(output.finish_reason)}", "dim")
    yield Text(plain(output.text))


def _tokens(told: Explanation) -> Iterator[RenderableType]:
    if told.tokens is None:
        return
    for segment in told.tokens["prompt"]:
        ids = segment["token_ids"]
        count = segment["end"] - segment["start"]
        shown = f"[{count} tokens]" if ids is None else " ".join(map(str, ids))
        place = f"{segment['start']}-{segment['end']} {segment['trust']}: "
        yield Text.assemble((place, "dim"), (shown, TRUST.get(segment["trust"], "")))
    if told.tokens["output"] is not None:
        pairs = zip(told.tokens["output"], _probabilities(told), strict=False)
        yield Text.assemble(("output: ", "dim"), " ".join(f"{i}{chance}" for i, chance in pairs))


def _probabilities(told: Explanation) -> Sequence[str]:
    assert told.tokens is not None  # noqa: S101 - asked for before
    output, logprobs = told.tokens["output"], told.tokens["logprobs"]
    return [f"({one:.2f})" for one in logprobs] or [""] * len(output)


def _model(told: Explanation) -> Iterator[RenderableType]:
    engine, sampling = told.engine, told.sampling
    if engine is not None:
        yield Text(plain(f"{engine['model']} {engine['revision']} on the engine {engine['name']}"))
        digest = engine["weights_digest"]
        how = f"weights {digest}, {engine['precision']}, attention {engine['attention']}"
        yield Text(plain(how))
        versions = ", ".join(f"{name} {v}" for name, v in sorted(engine["versions"].items()))
        yield Text(plain(versions), "dim")
    if sampling is not None:
        shown = (f"{name} {value}" for name, value in sampling.items() if value not in ([], None))
        yield Text(plain("sampling: " + ", ".join(shown)), "dim")


def _timings(told: Explanation) -> Iterator[RenderableType]:
    taken = told.input["taken_in_at"]
    came = f"taken in {taken}, " if taken else ""
    yield Text(f"{came}decided {told.decided_at}")
    stages = [f"{plain(stage)} {ms:g} ms" for stage, ms in told.timings_ms.items()]
    if stages:
        yield Text(", ".join(stages), "dim")


def _later(later: LaterShown) -> Iterator[RenderableType]:
    reason = f", {later.reason}" if later.reason else ""
    what = Text(
        plain(f"{later.time} {later.outcome}{reason}"), STYLES.get(Outcome(later.outcome), "")
    )
    because = f" ({later.because})" if later.because else ""
    yield Text.assemble(what, (plain(f"  {later.meaning}{because}"), "dim"))
    yield Indented(Text(plain(f"decision {later.decision_id} at {later.at}"), "dim"), INDENT)
    if later.moderation is not None:
        yield Indented(Text(plain(commanded(later.moderation))), INDENT)
    for said in later.said:
        for line in _said(said):
            yield Indented(line, INDENT)


def _reactions(told: Explanation) -> Iterator[RenderableType]:
    if told.feedback:
        yield Text(", ".join(f"{plain(kind)}: {n}" for kind, n in sorted(told.feedback.items())))
    for command in told.commands:
        what = f"{command.time} {command.command} on {command.subject} by {command.moderator}"
        yield Text(plain(f"{what}: {command.reason}"))


def _remedies(told: Explanation) -> Iterator[RenderableType]:
    for remedy in told.remedies:
        yield Text.assemble((f"{remedy.who}: ", "bold"), plain(remedy.what))
        if remedy.how:
            yield Indented(Text(plain(remedy.how), "cyan"), INDENT)


def _places(told: Explanation) -> Iterator[RenderableType]:
    gone = f" (gone: {told.input['gone']})" if told.input["gone"] else ""
    again = f", re-driven from {told.input['redrive_of']}" if told.input["redrive_of"] else ""
    yield Text(plain(f"decision {told.decision_id} at {told.at}"))
    yield Text(plain(f"input {told.input['id'] or '?'} at {told.input['at']}{again}{gone}"))
    if told.source:
        yield Text(plain(f"about {told.source['uri']} revision {told.source['revision']}"))
    if told.conversation_id:
        yield Text(plain(f"conversation {told.conversation_id}"))
    cause = f"caused by {told.causation}, correlation {told.correlation}"
    yield Text(plain(cause) if told.causation else "cause unknown", "dim")
    code = f"code {told.code_version}, settings {told.settings_digest[:SHOWN_HASH]}"
    yield Text(plain(code), "dim")
    read = ", ".join(f"{place} {offset}" for place, offset in sorted(told.positions.items()))
    if read:
        yield Text(plain(f"views stood at {read}"), "dim")
