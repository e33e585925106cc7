"""An explanation as one HTML page that needs nothing else.

In: ``Explanation``. Out: the page as text. Guaranteed whatever people wrote: every value is
escaped, the page holds no script, and its content policy lets a browser load and run nothing but
the style that stands in it. Characters that turn the reading direction are shown as such.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from bot.explain.explanation import Explanation
from bot.show import plain

_PAGE = Path(__file__).with_name("page.html")


def as_html(told: Explanation) -> str:
    """The page of one decision."""
    return _template().render(told=told, value=told.value())


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Every value goes through this: also those that only the contract keeps plain.
    environment.finalize = lambda value: plain(value) if isinstance(value, str) else value
    return environment.from_string(_PAGE.read_text(encoding="utf-8"))
