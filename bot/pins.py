"""Prompts that moderators pin: the one to use on a surface, whatever the settings say.

In: the prompt files that this worker has and that fit its model, and the command that stands on
``prompt:mention`` or ``prompt:direct``. Out: the setup to answer with; a pinned prompt goes before
the canary too. Where no file, or more than one, has the hash that is named, the worker says so
once for each command, counts it, and goes on with its own. Next: ``bot/handler.py``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import structlog
from prometheus_client.metrics_core import Metric

from bot.knowledge import Knowledge, Standing, Surface
from bot.prompt_room import require_room
from bot.settings import PromptsSettings
from bot.standing import pin_of, surface_of
from bot.templates import PromptError, PromptFile, listed
from bot.values import Setup, Source, Template, written
from consumers.metrics import Definition, counter
from model.engine import Engine

log = structlog.get_logger(__name__)

TABLE: tuple[Definition, ...] = (
    Definition(
        "twite_prompt_pins_unknown_total",
        "counter",
        ("surface",),
        "Commands that pinned a prompt which this worker does not have; it goes on with its own.",
    ),
)


class Pins:
    """For one worker, and a collector of its metrics. ``templates``: what can be pinned."""

    def __init__(self, templates: Iterable[Template] = ()) -> None:
        self.templates = tuple(templates)
        self.unknown: Counter[str] = Counter()  # by surface
        self._told: dict[str, str] = {}  # surface: the command

    def setup_for(self, setup: Setup, data: Source, knowledge: Knowledge) -> Setup:
        """With the prompt that is pinned where this was asked. Raises ``KnowledgeUnavailable``."""
        post = written(data)
        if post is None:
            return setup
        surface = surface_of(post)
        pin = pin_of(surface, knowledge)
        template = self._named(surface, pin) if pin is not None else None
        if template is None:
            return setup
        if surface == "mention":
            prompts = replace(setup.prompts, mention=template, canary_mention=None)
        else:
            prompts = replace(setup.prompts, direct=template, canary_direct=None)
        return replace(setup, prompts=prompts)

    def _named(self, surface: Surface, pin: Standing) -> Template | None:
        named = pin.prompt
        by_hash = {one.hash: one for one in self.templates if named and one.hash.startswith(named)}
        if len(by_hash) == 1:
            return next(iter(by_hash.values()))
        if self._told.get(surface) != pin.moderation.id:
            self._told[surface] = pin.moderation.id
            self.unknown[surface] += 1
            log.warning(
                "a prompt is pinned that this worker does not have; it goes on with its own. Put"
                " the file into prompts.directory and start the worker again",
                surface=surface,
                hash=named,
                found=len(by_hash),
            )
        return None

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        (definition,) = TABLE
        yield counter(definition, {(surface,): n for surface, n in self.unknown.copy().items()})


def pinnable(prompts: PromptsSettings, setup: Setup, engine: Engine) -> list[Template]:
    """Every prompt file that can be used with this model, each by its hash. Faulty ones, and those
    that are too long, are left out: nobody has chosen them."""
    found = []
    for _, file in listed(prompts.directory):
        if isinstance(file, PromptFile) and _fits(file, setup, engine):
            found.append(file.template)
    return found


def _fits(file: PromptFile, setup: Setup, engine: Engine) -> bool:
    try:
        require_room([file], setup, engine.tokenizer, engine.describe().context_length)
    except PromptError as error:
        log.info("a prompt file can't be pinned: it is too long", prompt=error.where)
        return False
    return True
