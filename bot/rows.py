"""Rows of values for people: a table where it fits, else lines that the terminal may wrap.

In: column names, cells, and which columns are prose. Out: something for Rich to print, with
``crop=False``. Guaranteed at every width: no cell is cut, and none is broken but prose between
its words, so a place, a code, a path or a variable can be copied into the next command.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

Row = Sequence[Text]
Lines = Callable[[Row], Iterator[Text]]
READABLE = 28  # columns of the screen that prose needs, if it has so many
FRAME = 3  # of each cell: two blanks and a line


@dataclass(frozen=True, slots=True)
class Rows:
    """``prose``: numbers of the columns whose words may go on in the next line. ``lines``: what
    a row looks like where the table would not fit; by default a line for each cell."""

    names: Sequence[str]
    rows: Sequence[Row]
    prose: frozenset[int] = field(default=frozenset())
    lines: Lines | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width - FRAME * len(self.names) - 1)
        if widths is not None:
            yield self._table(widths)
            return
        for number, row in enumerate(self.rows):
            if number and self.lines is None:
                yield Text()
            for line in (self.lines or self._fields)(row):
                yield _unbroken(line)

    def _widths(self, room: int) -> list[int] | None:
        """How wide each column is, None where they do not fit."""
        columns = [[Text(name), *cells] for name, *cells in self._columns()]
        full = [max(cell.cell_len for cell in cells) for cells in columns]
        least = [
            max(min(READABLE, full[n]), *map(_longest_word, cells)) if n in self.prose else full[n]
            for n, cells in enumerate(columns)
        ]
        spare = room - sum(least)
        if spare < 0:
            return None
        wanted = [most - few for most, few in zip(full, least, strict=True)]
        share = min(1.0, spare / max(1, sum(wanted)))
        return [few + int(share * more) for few, more in zip(least, wanted, strict=True)]

    def _columns(self) -> Iterator[tuple[str, *tuple[Text, ...]]]:
        for number, name in enumerate(self.names):
            yield name, *(row[number] for row in self.rows)

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table()
        for number, (name, width) in enumerate(zip(self.names, widths, strict=True)):
            table.add_column(name, width=width, no_wrap=number not in self.prose)
        for row in self.rows:
            table.add_row(*row)
        return table

    def _fields(self, row: Row) -> Iterator[Text]:
        wide = max(map(len, self.names))
        for name, cell in zip(self.names, row, strict=True):
            if cell:
                yield Text.assemble((f"{name:<{wide}}  ", "bold"), cell)


def _longest_word(text: Text) -> int:
    return max((Text(word).cell_len for word in text.plain.split()), default=0)


def _unbroken(line: Text) -> Text:
    """As one line, however long: a terminal wraps it, and copies it whole."""
    line = line.copy()
    line.no_wrap, line.overflow = True, "ignore"
    return line
