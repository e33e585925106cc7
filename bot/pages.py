"""Pages of the docs that are made from code, so that they can't be wrong: settings, metrics,
policy.

``python -m bot.pages docs`` writes them; a test compares what is committed.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from bot import engine_metrics, pins, policy, presence_metrics
from bot.settings import Known, known_fields
from consumers.metrics import as_markdown
from schemas.codes import SkipReason

NOTE = "<!-- made by `make docs` from the code; do not edit -->\n\n"

_ABOUT_RULES = (
    "Whether the bot answers an input at all. Each rule is one small function in `bot/policy.py`."
    " They run in this order, and the first that says skip ends it: the decision record on the"
    " audit topic holds the verdict of each that ran. How quotas count is told in"
    " [limits.md](limits.md).\n"
)
_ABOUT_SECOND_LOOK = (
    "Right before an answer is published these are asked once more, for what changed while it was"
    " made:"
)
_ABOUT_REVIEW = "When a post that a reply was built on changes, the reply must still pass these:"


def pages() -> Mapping[str, str]:
    """File names and texts."""
    return {
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "policy.md": policy_page(),
    }


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
        " `/livez` and `/readyz` (settings `http.*`).\n\n"
        + as_markdown()
        + "\n## The engine\n\nUnder OpenTelemetry's names for generative models where there is one,"
        " else under vLLM's with our prefix.\n\n"
        + as_markdown(engine_metrics.TABLE)
        + "\n## Private talks\n\nWhat they are shown while an answer is made.\n\n"
        + as_markdown(presence_metrics.TABLE)
        + "\n## Commands of moderators\n\n"
        + as_markdown(pins.TABLE)
    )


def policy_page() -> str:
    """Every rule in the order in which it runs, and every reason for which the bot is silent."""
    lines = [
        "# Policy\n",
        _ABOUT_RULES,
        "| | rule | skips as | what it says |",
        "|---|---|---|---|",
        *(_rule_row(number, rule) for number, rule in enumerate(policy.RULES, 1)),
        f"\n{_ABOUT_SECOND_LOOK} {_names(rule.name for rule in policy.SECOND_LOOK)}.",
        f"{_ABOUT_REVIEW} {_names(rule.name for rule in policy.REVIEW)}.\n",
        "## Why the bot says nothing\n",
        "| reason | meaning | rules |",
        "|---|---|---|",
        *map(_reason_row, SkipReason),
    ]
    return NOTE + "\n".join(lines) + "\n"


def _reason_row(reason: SkipReason) -> str:
    rules = _names(rule.name for rule in policy.RULES if reason in rule.reasons)
    return f"| `{reason}` | {reason.meaning} | {rules or 'a later step'} |"


def _rule_row(number: int, rule: policy.Rule) -> str:
    meaning = " ".join((rule.check.__doc__ or "").split()).replace("``", "`")
    return f"| {number} | `{rule.name}` | {_names(rule.reasons)} | {meaning} |"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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
