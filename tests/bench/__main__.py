"""``python -m tests.bench [ID…] [--quick] [--out DIR]``: run benches and write what they found.

Each bench gets a fresh broker. After each one its JSON file and the page are written, so a long
run that is stopped keeps what it had. Exits with 1 where a bench broke down, not where a goal
is missed: that is a finding, and the table says so.
"""

import argparse
import asyncio
import importlib
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from infra.broker import LocalBroker
from tests.bench import page, result
from tests.bench.setting import ROOT, Others, Setting

DOCS = ROOT / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    asked = _parse(arguments)
    logging.basicConfig(level=logging.ERROR)
    console = Console()
    broken = [bench for bench in asked.ids if not _run(bench, asked, console)]
    console.print(page.table(result.load_all(asked.out), only=asked.ids))
    if broken:
        console.print(f"[bold red]could not be measured: {', '.join(broken)}")
    return 1 if broken else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help=", ".join(result.ORDER))
    parser.add_argument("--quick", action="store_true", help="short forms: all within 10 minutes")
    parser.add_argument(
        "--out", type=Path, default=DOCS / "benchmarks", help="folder of the JSON files"
    )
    asked = parser.parse_args(arguments)
    known = {bench.lower(): bench for bench in result.ORDER}
    if unknown := [bench for bench in asked.ids if bench.lower() not in known]:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(result.ORDER)}")
    asked.ids = [known[bench.lower()] for bench in asked.ids] or list(result.ORDER)
    return asked


def _run(bench: str, asked: argparse.Namespace, console: Console) -> bool:
    started = time.monotonic()
    console.print(f"[bold]{bench}[/bold]{' (quick)' if asked.quick else ''}")
    try:
        found = asyncio.run(_measure(bench, asked.quick, console))
    except Exception:
        traceback.print_exc()
        return False
    result.save(found, asked.out)
    page.write(asked.out, asked.out.parent / f"{asked.out.name}.md")
    console.print(f"  {time.monotonic() - started:.0f} s")
    return True


async def _measure(bench: str, quick: bool, console: Console) -> result.Result:
    module = importlib.import_module(f"tests.bench.{bench.lower().replace('-', '_')}")
    others = Others()
    with tempfile.TemporaryDirectory(prefix="twite-bench-") as folder:
        async with LocalBroker() as broker:
            setting = Setting(
                bootstrap_servers=broker.bootstrap_servers,
                quick=quick,
                folder=Path(folder),
                say=lambda line: console.print(f"  {line}", highlight=False, style="dim"),
            )
            found: result.Result = await module.run(setting)
    return result.with_run(found, quick=quick, others_cores=others.cores())


if __name__ == "__main__":
    sys.exit(main())
