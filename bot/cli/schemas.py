"""``twite schemas``: the event contract for other programs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from bot.cli.console import out

app = typer.Typer(
    no_args_is_help=True, help="The event contract, for other programs.", rich_markup_mode=None
)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Folder to write to; it is made if need be.")],
) -> None:
    """Write the JSON Schemas of all events and the AsyncAPI 3.0 document of all topics.

    Example: twite schemas export ./contract
    """
    from schemas.publish import export as write

    write(directory)
    out.print(Text(f"written to {directory}"))
