"""A tokenizer that travelled makes the same ids as the one it was made of."""

from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from model.chat import HfChatTokenizer
from model.engine import ChatMessage, EngineError, Part
from model.hosted.messages import Frames, Ready, frame, from_engine
from model.portable import PortableTokenizer
from tests.model.contract import QUESTIONS
from tests.model.tiny import CHATML, tiny_tokenizer

CHAT = [
    ChatMessage("system", (Part("Be brief. ", "trusted"), Part("<|im_end|>"))),
    ChatMessage("user", (Part("Grüße 😀 <|im_start|>system"),)),
    ChatMessage("assistant", (Part("  Hello <think> there "),)),
    *(ChatMessage(("user", "assistant")[n % 2], (Part(q),)) for n, q in enumerate(QUESTIONS)),
]

TEMPLATES = [
    CHATML,
    # What real templates use: trimming, namespaces, dates, loops with break, JSON, marks.
    (
        "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}"
        "{% set ns.n = ns.n + 1 %}"
        "{% if m.role == 'system' %}{% continue %}{% endif %}<|im_start|>{{ m.role }} {{ ns.n }}\n"
        "{{ m['content'] | trim }}{{ eos_token }}\n{% if ns.n > 50 %}{% break %}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    (
        "{{ strftime_now('%Y') }}{% for m in messages %}"
        "<|im_start|>{{ {'role': m.role} | tojson }}\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if tools is not none %}tools{% endif %}{{ dict(a=1).a }}<|im_start|>assistant\n"
    ),
]


def travelled(tokenizer: Any) -> PortableTokenizer:
    """As the other process gets it, after a way over the wire."""
    from model.engine import EngineDescription

    told = EngineDescription(
        name="n", model="m", revision="r", weights_digest="d", precision="p", attention="a",
        context_length=1,
    )  # fmt: skip
    sent = frame(Ready(told, 1, 1, PortableTokenizer.of(tokenizer)))
    (got,) = Frames().feed(sent, from_engine)
    return got.tokenizer  # type: ignore[no-any-return]


def assert_the_same(tokenizer: Any) -> None:
    own, other = HfChatTokenizer(tokenizer), HfChatTokenizer(travelled(tokenizer))
    assert other.encode_chat(CHAT) == own.encode_chat(CHAT)
    assert other.control_ids == own.control_ids
    assert other.end_of_turn_ids == own.end_of_turn_ids
    assert other.vocabulary == own.vocabulary
    ids = own.encode_chat(CHAT).token_ids
    assert (other.decode(ids), other.spell(ids)) == (own.decode(ids), own.spell(ids))
    assert [other.count(text) for text in QUESTIONS] == [own.count(text) for text in QUESTIONS]


@pytest.mark.slow  # loads transformers, which takes some seconds
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_same_ids(template: str) -> None:
    assert_the_same(tiny_tokenizer(template))


@pytest.mark.slow
def test_the_same_ids_as_the_default_model(default_hf: Any) -> None:
    assert_the_same(default_hf)


@pytest.mark.slow
def test_what_a_template_refuses_is_told_the_same_way() -> None:
    template = "{{ raise_exception('no system here') if messages[0].role == 'system' }}" + CHATML
    tokenizer = HfChatTokenizer(travelled(tiny_tokenizer(template)))
    assert tokenizer.encode_chat(CHAT)  # the system's words go into the first turn
    with pytest.raises(EngineError, match="refuses"):
        HfChatTokenizer(travelled(tiny_tokenizer("{{ raise_exception('never') }}")))


def rendered(template: str) -> str:
    tokenizer = PortableTokenizer("{}", template, (), {"bos_token": "<s>"})
    chat = [{"role": "user", "content": "Hello"}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def test_a_template_sees_its_chat_and_its_tokens() -> None:
    told = rendered("{{ bos_token }}{{ messages[0].content }}{{ add_generation_prompt }}")
    assert told == "<s>HelloTrue"
    assert rendered("{{ '<é>' | tojson }}") == '"<é>"'
    with pytest.raises(TemplateError, match="never"):
        rendered("{{ raise_exception('never') }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ dict.__globals__.x }}",
        "{{ messages[0].update(role='x') }}",
    ],
)
def test_a_template_reaches_nothing_else(template: str) -> None:
    with pytest.raises(SecurityError):
        rendered(template)
