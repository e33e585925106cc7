"""``twite prompts``: the prompt files, and what the model would see of a conversation."""

import difflib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.preview import Preview
    from bot.settings import PromptsSettings, Settings
    from bot.templates import PromptError, PromptFile
    from bot.values import Setup, Template
    from model.engine import ChatTokenizer

    Load = Callable[[], tuple[ChatTokenizer, int]]

USAGE = 2  # exit status: the command was typed wrong
STYLES = {"trusted": "cyan", "untrusted": "yellow"}
SHOWN_HASH = 12  # hex digits
MAX_FEED_BYTES = 256 * 2**20
_CLUSTER = "preview"

app = typer.Typer(
    no_args_is_help=True,
    help="List, show and compare prompt files; render what the model would see.",
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="For programs: print one JSON object.")]


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every prompt that can be chosen, its hash, and what it is used for.

    Exit status 1: one of them is faulty; what is wrong with it stands in place of its hash.
    """
    from bot.templates import listed

    prompts = settings_of(context).settings.prompts
    rows = [_row(name, found, prompts) for name, found in listed(prompts.directory)]
    if as_json:
        typer.echo(json.dumps({"prompts": rows}, ensure_ascii=False))
    else:
        _print_rows(rows)
    if any(row["problem"] for row in rows):
        raise typer.Exit(1)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A prompt, without .txt.")],
) -> None:
    """Print a prompt as it stands in its file, without white space around it.

    Example: twite prompts show mention
    """
    file = prompt_named(name, settings_of(context).settings.prompts)
    err.print(Text(f"{file.place}, sha256 {file.template.hash}", "dim"))
    out.print(Text(file.template.text), soft_wrap=True)


@app.command()
def diff(
    context: typer.Context,
    one: Annotated[str, typer.Argument(metavar="NAME", help="A prompt, or a file.")],
    other: Annotated[
        str | None,
        typer.Argument(metavar="[OTHER]", help="Default: that of this name that comes with Twite."),
    ] = None,
) -> None:
    """Show how two prompts differ, line by line: what goes, and what comes with the second.

    With one NAME: from the prompt of that name that comes with Twite to yours. Exit status 1:
    they differ.

    Examples: twite prompts diff mention, twite prompts diff mention next.txt
    """
    prompts = settings_of(context).settings.prompts
    first = prompt_named(one, prompts)
    old, new = (first, prompt_named(other, prompts)) if other else (_packaged(one, first), first)
    lines = difflib.unified_diff(
        old.template.text.splitlines(),
        new.template.text.splitlines(),
        f"{old.template.name} ({old.place})",
        f"{new.template.name} ({new.place})",
        lineterm="",
    )
    changed = False
    for line in lines:
        changed = True
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out.print(Text(line, style), soft_wrap=True)
    if changed:
        raise typer.Exit(1)


@app.command()
def render(
    context: typer.Context,
    feed: Annotated[
        Path | None,
        typer.Argument(metavar="[FEED]", help="A feed file; without it, Kafka is read."),
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(help="The post or message that asks; default: the last one of the file."),
    ] = None,
    decision: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show what the model saw for this decision."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --decision: what it would see now instead.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another prompt, or a file.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="How far back Kafka is read: an age or RFC 3339.")
    ] = "7d",
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show also what people wrote in private.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show exactly what the model would see of a conversation, with tokens counted by trust.

    Cyan is trusted (the prompt and the frame), yellow is what people wrote. Only the model's
    tokenizer is loaded. Of private talks read from Kafka, what people wrote is left out unless
    --reveal is given. Nothing is published.

    Examples: twite prompts render docs/sample-feed.jsonl,
    twite prompts render --uri at://post/1 --prompt next, twite prompts render --decision ID
    """
    settings = settings_of(context).settings
    if sum(map(bool, (feed or uri, decision))) != 1 or (again and not decision):
        todo = "Name a feed file (and a --uri in it), or give --uri, or --decision."
        raise Trouble("one conversation, please.", where="prompts render", todo=todo, status=USAGE)
    # What can fail at once comes first: the tokenizer takes seconds.
    chosen = _template(prompt, settings) if prompt else None
    setup = _setup(settings, chosen.template if chosen else None)
    made_now = again or not decision
    files = [chosen] if chosen else _chosen(settings)
    load = cache(lambda: _tokenizer(settings, files if made_now else [], setup))
    if feed:
        seen = _of_feed(feed, uri, setup, load)
        reveal = True  # whoever has the file has read it
    else:
        seen = run(_of_kafka(settings, uri, decision, again, _since(since), setup, load))
    tokenizer, _ = load()
    hidden = seen.private and not reveal
    if as_json:
        typer.echo(json.dumps(_value(seen, tokenizer, hidden=hidden), ensure_ascii=False))
        return
    _print(seen, tokenizer, hidden=hidden)


def _row(
    name: str, found: "PromptFile | PromptError", prompts: "PromptsSettings"
) -> dict[str, Any]:
    uses = {
        "mentions": prompts.mention == name,
        "private talks": prompts.direct == name,
        f"{prompts.canary_mention_share:.0%} of mentions": prompts.canary_mention == name,
        f"{prompts.canary_direct_share:.0%} of private talks": prompts.canary_direct == name,
    }
    return {
        "name": name,
        "used_for": [use for use, used in uses.items() if used],
    } | _content(found)


def _content(found: "PromptFile | PromptError") -> dict[str, str | None]:
    if isinstance(found, Trouble):
        return {"hash": None, "file": found.where, "problem": found.what}
    return {"hash": found.template.hash, "file": found.place, "problem": None}


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from bot.rows import Rows
    from bot.show import plain

    cells = [
        (
            Text(plain(row["name"])),
            Text(", ".join(row["used_for"])),
            Text(row["problem"], "red") if row["problem"] else Text(row["hash"][:SHOWN_HASH]),
            Text(plain(row["file"])),
        )
        for row in rows
    ]
    names = ("prompt", "used for", "hash", "file")
    out.print(Rows(names, cells, prose=frozenset({2})), crop=False)


def prompt_named(name: str, prompts: "PromptsSettings") -> "PromptFile":
    """A prompt by its name, or a file by its path."""
    from bot.files import read_regular
    from bot.templates import MAX_BYTES, SUFFIX, PromptFile, find, short, template_of

    path = Path(name)
    if path.suffix != SUFFIX and not _is_path(path):
        return find(name, prompts.directory)
    try:
        return PromptFile(template_of(path.stem, read_regular(path, MAX_BYTES + 1), name), name)
    except OSError as error:
        raise Trouble(f"cannot be read: {error.strerror}.", where=short(name)) from None


def _is_path(path: Path) -> bool:
    """Whether it leads to a file; what is too long for a path does not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _packaged(name: str, yours: "PromptFile") -> "PromptFile":
    """What comes with Twite under the name of ``yours``. Raises ``Trouble``."""
    from bot.templates import every_prompt

    for file in every_prompt(None):
        if file.template.name == yours.template.name:
            return file
    known = ", ".join(file.template.name for file in every_prompt(None))
    raise Trouble(
        f"no prompt of this name comes with Twite, so there is nothing to compare with (there are"
        f" {known}).",
        where=yours.place,
        todo=f"Name both: `twite prompts diff mention {name}`.",
    )


def _setup(settings: "Settings", template: "Template | None") -> "Setup":
    from bot.preview import with_prompt
    from bot.wiring import setup_of

    setup = setup_of(settings, _CLUSTER)
    return with_prompt(setup, template) if template else setup


def _template(name: str, settings: "Settings") -> "PromptFile":
    return prompt_named(name, settings.prompts)


def _chosen(settings: "Settings") -> "list[PromptFile]":
    from bot.templates import chosen

    return chosen(settings.prompts)


def _tokenizer(
    settings: "Settings", files: "list[PromptFile]", setup: "Setup"
) -> "tuple[ChatTokenizer, int]":
    """The tokenizer and the context length, and a look at what they leave beside the prompts."""
    from bot.prompt_room import require_room
    from model.loader import build_tokenizer

    model = settings.model
    tokenizer, length = build_tokenizer(
        model.engine, *model.tokenizer_source, lambda line: err.print(Text(line, "dim"))
    )
    require_room(files, setup, tokenizer, length)
    return tokenizer, length


def _since(text: str) -> Any:
    from bot.moments import moment_ms
    from consumers.reader import Bound

    return Bound(timestamp_ms=moment_ms(text, datetime.now(UTC)))


def _of_feed(path: Path, uri: str | None, setup: "Setup", load: "Load") -> "Preview":
    from bot.feed import check_file, read_file, require_file
    from bot.preview import knowledge_of, preview, question_in, records_of

    require_file(path, MAX_FEED_BYTES)
    check_file(path)
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    records = records_of(read_file(path), now_ms)
    place = question_in(records, uri, setup.bot.id)
    known = knowledge_of(records[: place + 1], setup.bot.id)
    return preview(records[place], known, setup, *load())


async def _of_kafka(
    settings: "Settings",
    uri: str | None,
    decision_id: str | None,
    again: bool,
    since: Any,
    setup: "Setup",
    load: "Load",
) -> "Preview":
    from bot.clients import options
    from bot.preview import knowledge_of, preview, recorded
    from bot.preview_log import before, find_decision, find_question, read_input
    from consumers.reader import range_reader

    kafka = settings.kafka
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        if decision_id is not None:
            decision, at = await find_decision(reader, decision_id, since)
            if not again:
                return recorded(decision, at)
            question = await read_input(reader, decision)
        else:
            question = await find_question(reader, uri or "", since)
        known = knowledge_of(await before(reader, question, since), setup.bot.id)
    return preview(question, known, setup, *load())


def _print(seen: "Preview", tokenizer: "ChatTokenizer", *, hidden: bool) -> None:
    for line in _headlines(seen):
        out.print(line, soft_wrap=True)
    out.rule(style="dim")
    text = Text()
    for words, trust in _segments(seen, tokenizer, hidden=hidden):
        text.append(words, STYLES[trust])
    out.print(text, soft_wrap=True)


def _headlines(seen: "Preview") -> list[Text]:
    lines = [
        Text(f"prompt {seen.template}, sha256 {seen.template_hash[:SHOWN_HASH]}"),
        Text(f"{'what the model saw' if seen.recorded else 'the question'}: {seen.at}"),
        Text.assemble(
            f"{len(seen.prompt.token_ids)} tokens: ",
            (f"{seen.tokens('trusted')} trusted", STYLES["trusted"]),
            ", ",
            (f"{seen.tokens('untrusted')} untrusted", STYLES["untrusted"]),
        ),
    ]
    if seen.skipped:
        lines.append(Text(f"the policy would not ask the model: {seen.skipped}", "bold yellow"))
    lines += [
        Text(f"{'in ' if item.included else 'out'} {item.why or '':<12} {item.ref.uri}", "dim")
        for item in seen.context
    ]
    return lines


def _segments(
    seen: "Preview", tokenizer: "ChatTokenizer", *, hidden: bool
) -> list[tuple[str, str]]:
    """The prompt's text, spelled from its token ids, control tokens and all."""
    from bot.show import plain

    shown: list[tuple[str, str]] = []
    for segment in seen.prompt.segments:
        words = plain(tokenizer.spell(seen.prompt.token_ids[segment.start : segment.end]))
        if hidden and segment.trust == "untrusted":
            words = f"[{segment.end - segment.start} tokens]"
        shown.append((words, segment.trust))
    return shown


def _value(seen: "Preview", tokenizer: "ChatTokenizer", *, hidden: bool) -> dict[str, Any]:
    texts = _segments(seen, tokenizer, hidden=hidden)
    return {
        "at": seen.at,
        "uri": seen.uri,
        "conversation_id": seen.conversation_id,
        "private": seen.private,
        "recorded": seen.recorded,
        "prompt": seen.template,
        "prompt_hash": seen.template_hash,
        "hint": seen.hint,
        "skipped": seen.skipped,
        "tokens": {
            "total": len(seen.prompt.token_ids),
            "trusted": seen.tokens("trusted"),
            "untrusted": seen.tokens("untrusted"),
        },
        "context": [item.model_dump(mode="json") for item in seen.context],
        "segments": [
            {**asdict(segment), "text": words}
            for segment, (words, _) in zip(seen.prompt.segments, texts, strict=True)
        ],
        "token_ids": None if hidden else list(seen.prompt.token_ids),
    }
