"""Pages of the docs that are made from code, so that they can't be wrong: settings, metrics.

``python -m bot.pages docs`` writes them; a test compares what is committed.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from bot.settings import Known, known_fields
from consumers.metrics import as_markdown

NOTE = "<!-- made by `make docs` from the code; do not edit -->\n\n"


def pages() -> Mapping[str, str]:
    """File names and texts."""
    return {"settings.md": settings_page(), "metrics.md": metrics_page()}


def settings_page() -> str:
    """Every setting with its variable, default and meaning, a table per group."""
    intro = (
        "From a TOML file (`--config FILE`, `TWITE_CONFIG` or `./twite.toml`; groups are tables)"
        " and from the environment, which wins. `twite config show` prints what is in force and"
        " where it comes from.\n"
    )
    lines = ["# Settings\n", intro]
    group = ""
    for field in known_fields():
        if field.path[0] != group:
            group = field.path[0]
            lines += [
                f"\n## {group}\n",
                "| setting | variable | default | meaning |",
                "|---|---|---|---|",
            ]
        lines.append(_row(field))
    return NOTE + "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Every metric of a worker."""
    return (
        f"{NOTE}# Metrics\n\nA worker serves them at `/metrics` in Prometheus' format, beside"
        " `/livez` and `/readyz` (settings `http.*`).\n\n" + as_markdown()
    )


def _row(field: Known) -> str:
    default = field.info.get_default(call_default_factory=True)
    shown = "" if default is None else f"`{default}`"
    meaning = (
        " ".join((field.info.description or "").split()).replace("``", "`").replace("|", "\\|")
    )
    return f"| `{field.name}` | `{field.variable}` | {shown} | {meaning} |"


if __name__ == "__main__":
    for name, text in pages().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
