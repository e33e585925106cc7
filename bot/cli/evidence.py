"""``twite evidence``: a case as one signed file, and the proof that nothing in it was changed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import err, out
from bot.cli.explain import Named, Private, Since, case_of, write
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.evidence.verify import Checked

app = typer.Typer(
    no_args_is_help=True,
    help="Take a decision and all that belongs to it into a signed file; check such a file.",
    rich_markup_mode=None,
)


@app.command()
def keygen(
    path: Annotated[
        Path, typer.Argument(metavar="KEY.pem", help="Where the private key is to be.")
    ],
) -> None:
    """Make a pair of ed25519 keys: KEY.pem to sign, KEY.pub.pem for everybody who verifies.

    The private key is not encrypted: keep it where only its owner reads.
    """
    from bot.evidence.keys import generate, key_id, public_key

    public = generate(path)
    out.print(f"{path}: the private key, for whoever exports", soft_wrap=True)
    shown = (
        f"{public}: the public key, for whoever verifies; its id is {key_id(public_key(public))}"
    )
    out.print(shown, soft_wrap=True)


@app.command()
def export(
    context: typer.Context,
    what: Named,
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEY.pem", help="The key that signs.")],
    private: Private = False,
    since: Since = None,
) -> None:
    """Write the original bytes of a decision and all that belongs to it into one signed file.

    Input, decision, replies and what came of them later, with headers, keys and values as they
    stand on Kafka; the messages the model saw; the schemas. The same case gives the same file.
    Nothing in it is masked. Example: twite evidence export ID --key KEY.pem --out case.zip
    """
    from bot.evidence.bundle import bundle
    from bot.evidence.keys import private_key

    signing = private_key(key)
    case = case_of(context, what, private=private, since=since)
    data = bundle(case, signing)
    write(to, data, private=True)
    for part, why in case.gone.items():
        err.print(Text(f"warning: not in it: {part} ({why})", "yellow"))
    out.print(f"{to}: decision {case.decided.data.decision_id}, {len(data)} bytes", soft_wrap=True)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An evidence file.")],
    key: Annotated[
        Path, typer.Option("--key", metavar="PUB.pem", help="The public key of who signed.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: print one JSON object.")
    ] = False,
) -> None:
    """Say whether an evidence file is what its signer made, to the last byte, and if not, where.

    Needs no Kafka and no settings. Nothing is unpacked. Exit status 1: it is not.
    """
    from bot.evidence.keys import public_key
    from bot.evidence.verify import verify as checked

    found = checked(_read(file), public_key(key))
    if as_json:
        typer.echo(json.dumps(_value(found), ensure_ascii=False))
    else:
        _print(file, found)
    if not found.good:
        raise typer.Exit(1)


def _read(path: Path) -> bytes:
    from bot.evidence.archive import MAX_FILE
    from bot.files import read_regular

    try:
        data = read_regular(path, MAX_FILE + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}."
        raise Trouble(what, where=str(path)) from None
    if len(data) > MAX_FILE:
        raise Trouble(f"is over {MAX_FILE} bytes, which no evidence is.", where=str(path))
    return data


def _print(path: Path, found: "Checked") -> None:
    from bot.show import plain

    for fault in found.faults:
        out.print(Text(plain(str(fault)), "red"), soft_wrap=True)
    manifest = found.manifest
    if found.good and manifest is not None:
        what = f"{path}: good; {len(manifest.members)} members of decision {manifest.decision_id}"
        out.print(Text(plain(f"{what}, signed by {manifest.key_id[:16]}"), "green"), soft_wrap=True)
        for part, why in manifest.gone.items():
            out.print(Text(plain(f"not in it: {part} ({why})"), "yellow"), soft_wrap=True)
    else:
        out.print(Text(plain(f"{path}: this is not what was signed"), "bold red"), soft_wrap=True)


def _value(found: "Checked") -> dict[str, Any]:
    manifest = found.manifest if found.good else None
    return {
        "good": found.good,
        "faults": [{"where": fault.where, "what": fault.what} for fault in found.faults],
        "manifest": manifest.model_dump(mode="json") if manifest else None,
    }
