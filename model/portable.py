"""A chat tokenizer as a value, for processes that must not load torch.

transformers cannot be imported without torch: some 700 MB and ten seconds for a process that only
turns chats into ids. In comes a tokenizer as transformers made it, out comes a
``PortableTokenizer``, plain strings and numbers that travel over a pipe; ``model.chat`` makes
the same ids of either. What is added here is the rendering of the chat template, in the same
sandbox and with the same names as transformers' own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


@dataclass(frozen=True)
class PortableTokenizer:
    """``backend``: a ``tokenizers`` tokenizer as JSON. ``variables``: special tokens by the names
    that templates know them by. Takes the place of a transformers tokenizer in
    ``model.chat.HfChatTokenizer``."""

    backend: str
    chat_template: str
    all_special_ids: tuple[int, ...]
    variables: Mapping[str, str]

    @classmethod
    def of(cls, tokenizer: Any) -> "PortableTokenizer":
        """What a fast tokenizer of transformers with a chat template knows."""
        return cls(
            backend=tokenizer.backend_tokenizer.to_str(),
            chat_template=tokenizer.get_chat_template(),
            all_special_ids=tuple(tokenizer.all_special_ids),
            variables={name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        )

    @cached_property
    def backend_tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.backend)

    def apply_chat_template(
        self, chat: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The chat as text. Raises what the template raises."""
        if tokenize:
            raise NotImplementedError("Rendered only; the caller tokenizes piece by piece.")
        return self._template.render(
            messages=[dict(message) for message in chat],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self.variables,
        )

    @cached_property
    def _template(self) -> Template:
        return _environment().from_string(self.chat_template)


class _Generation(Extension):
    """The block ``{% generation %}``, by which templates mark what an assistant said."""

    tags = {"generation"}  # noqa: RUF012 - the name and kind that Jinja wants

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """Where chat templates run: they see their chat, and cannot reach Python behind it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _dict  # not the class: it would bring its attributes along
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes what is special in HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)  # noqa: DTZ005 - as transformers' own


def _dict(*pairs: Any, **items: Any) -> dict[Any, Any]:
    return dict(*pairs, **items)
