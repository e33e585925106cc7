"""``twite schemas``: the event contract for other programs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from bot.cli.console import out
from bot.errors import Trouble

app = typer.Typer(
    no_args_is_help=True, help="The event contract, for other programs.", rich_markup_mode=None
)


@app.command()
def export(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIRECTORY", help="Folder to write to; it is made if need be."),
    ],
) -> None:
    """Write the JSON Schemas of all events and the AsyncAPI 3.0 document of all topics.

    Example: twite schemas export ./contract
    """
    from schemas.publish import export as write

    try:
        write(directory)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}."
        raise Trouble(
            what, where=str(directory), todo="Name a folder that you may write to."
        ) from (None)
    out.print(Text(f"written to {directory}"))
