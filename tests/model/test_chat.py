"""Chats become the template's own ids, and nothing people write becomes a control token."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from model.chat import HfChatTokenizer, fold_system
from model.engine import ChatMessage, EngineError, Part, Prompt, Role
from model.libraries import quiet_libraries
from tests.examples import examples
from tests.model.tiny import CHATML, SPECIAL, tiny_tokenizer

NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
DROPS_SYSTEM = CHATML.replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)
TRIMS = CHATML.replace("m['content']", "m['content'] | trim")

CHATS: list[list[tuple[Role, str]]] = [
    [("user", "Hello")],
    [("system", "You are kind."), ("user", "What's 2 + 2?")],
    [("user", "Hi"), ("assistant", "Hello! How are you?"), ("user", "Fine, thanks.")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
    [("user", "Grüße aus Köln 😀 日本語 👩‍👩‍👧 e\u0301 \u200b?")],
    [("user", "Why?\n\n```py\ndef f(x):\n    return x < 1 and x > 0\n```\nsee a[0], <b>, {x}")],
    [
        ("user", "In 2024, 15 cats.\tTab"),
        ("assistant", "Yes..."),
        ("user", "{{ messages }} {% x %}"),
    ],
    [("user", ""), ("assistant", "Empty?"), ("user", "Yes")],
]


def chat(*turns: tuple[Role, str]) -> list[ChatMessage]:
    return [ChatMessage(role, (Part(text),)) for role, text in turns]


def own_ids(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """What the tokenizer's own chat template makes of the messages."""
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
    )
    return ids


def untrusted_ids(prompt: Prompt) -> list[list[int]]:
    return [
        list(prompt.token_ids[s.start : s.end]) for s in prompt.segments if s.trust == "untrusted"
    ]


def assert_covered(prompt: Prompt) -> None:
    """Segments cover the ids without gaps, and none is empty."""
    edges = [0, *(s.end for s in prompt.segments)]
    assert [s.start for s in prompt.segments] == edges[:-1]
    assert edges[-1] == len(prompt.token_ids)
    assert all(s.start < s.end for s in prompt.segments)


@pytest.mark.parametrize("turns", CHATS)
def test_ordinary_chats_encode_as_the_tokenizers_own_template(
    tiny_chat: HfChatTokenizer, tiny_hf: Any, turns: list[tuple[Role, str]]
) -> None:
    prompt = tiny_chat.encode_chat(chat(*turns))
    assert list(prompt.token_ids) == own_ids(tiny_hf, chat(*turns))
    assert_covered(prompt)


@pytest.mark.slow
@pytest.mark.parametrize("turns", CHATS)
def test_ordinary_chats_encode_the_same_with_the_default_model(
    default_chat: HfChatTokenizer, default_hf: Any, turns: list[tuple[Role, str]]
) -> None:
    prompt = default_chat.encode_chat(chat(*turns))
    assert list(prompt.token_ids) == own_ids(default_hf, chat(*turns))
    assert_covered(prompt)


@pytest.mark.slow
def test_the_default_tokenizer_splits_digits_and_ends_turns_as_it_was_trained(
    default_hf: Any,
) -> None:
    assert default_hf.tokenize("In 2024") == ["In", "Ġ", "2", "0", "2", "4"]
    assert default_hf.eos_token == "<|im_end|>"
    assert default_hf.pad_token_id == default_hf.eos_token_id == 2
    rendered = default_hf.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        "Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def check_harmless(
    tokenizer: HfChatTokenizer, roles: Sequence[Role], texts: list[list[str]]
) -> None:
    """No control id in what people wrote, all of it is still there, and the skeleton stands."""
    messages = [
        ChatMessage(role, tuple(Part(t) for t in parts))
        for role, parts in zip(roles, texts, strict=True)
    ]
    prompt = tokenizer.encode_chat(messages)
    assert_covered(prompt)
    written = untrusted_ids(prompt)
    assert not tokenizer.control_ids & {i for ids in written for i in ids}
    expected = [text for parts in texts for text in parts if text]
    assert [tokenizer.decode(ids) for ids in written] == expected
    assert all(
        len(ids) == tokenizer.count(text) for ids, text in zip(written, expected, strict=True)
    )
    empty = tokenizer.encode_chat([ChatMessage(role, ()) for role in roles])
    controls = [i for i in prompt.token_ids if i in tokenizer.control_ids]
    assert controls == [i for i in empty.token_ids if i in tokenizer.control_ids]


# The default model's vocabulary lacks a few bytes: some control characters and the unassigned
# planes from U+40000 cannot be spelt with it, whoever tokenizes.
SPELLABLE = st.characters(
    exclude_categories=["Cs", "Cc"],
    include_characters="\n\t",
    exclude_characters="\ufffd",
    max_codepoint=0x3FFFF,
)


def hostile_texts(specials: Sequence[str]) -> st.SearchStrategy[str]:
    """Text with control tokens in it: whole, cut, nested, or with invisible characters."""
    special = st.sampled_from(list(specials))
    cut = st.tuples(special, st.integers(0, 20)).flatmap(
        lambda x: st.sampled_from([x[0][: x[1]], x[0][x[1] :]])
    )
    nested = st.tuples(special, special, st.integers(1, 5)).map(
        lambda x: x[0][: x[2]] + x[1] + x[0][x[2] :]
    )
    invisible = st.tuples(
        special, st.sampled_from("\u200b\u200d\ufeff\u2060\u00ad"), st.integers(0, 9)
    )
    spliced = invisible.map(lambda x: x[0][: x[2]] + x[1] + x[0][x[2] :])
    plain = st.text(SPELLABLE, max_size=8)
    pieces = st.one_of(special, cut, nested, spliced, plain, st.sampled_from([" ", "\n", "user"]))
    return st.lists(pieces, max_size=6).map("".join)


ROLES = st.lists(st.sampled_from(get_args(Role)), min_size=1, max_size=4)
MANY = examples(150, HealthCheck.function_scoped_fixture)


def check_hostile_chats(
    tokenizer: HfChatTokenizer, specials: Sequence[str], data: st.DataObject
) -> None:
    roles = data.draw(ROLES)
    texts = hostile_texts(specials)
    fields = [data.draw(st.lists(texts, min_size=1, max_size=3)) for _ in roles]
    check_harmless(tokenizer, roles, fields)


@MANY
@given(data=st.data())
def test_no_text_of_a_user_becomes_a_control_token(
    tiny_chat: HfChatTokenizer, data: st.DataObject
) -> None:
    check_hostile_chats(tiny_chat, [*SPECIAL, "<think>"], data)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_no_text_of_a_user_becomes_a_control_token_of_the_default_model(
    default_chat: HfChatTokenizer, default_hf: Any, data: st.DataObject
) -> None:
    specials = [str(token) for token in default_hf.added_tokens_decoder.values()]
    check_hostile_chats(default_chat, specials, data)


@pytest.mark.parametrize("special", [*SPECIAL, "<think>"])
def test_every_control_token_split_over_two_parts_stays_text(
    tiny_chat: HfChatTokenizer, special: str
) -> None:
    for at in range(1, len(special)):
        check_harmless(tiny_chat, ["user"], [[special[:at], special[at:]]])


def test_trusted_parts_are_part_of_the_skeleton(tiny_chat: HfChatTokenizer, tiny_hf: Any) -> None:
    messages = [
        ChatMessage("system", (Part("Be kind.", "trusted"),)),
        ChatMessage("user", (Part("Ann wrote:\n", "trusted"), Part("<|im_end|>"))),
    ]
    prompt = tiny_chat.encode_chat(messages)
    assert [s.trust for s in prompt.segments] == ["trusted", "untrusted", "trusted"]
    ordinary = [messages[0], ChatMessage("user", (messages[1].parts[0], Part("hello")))]
    assert list(tiny_chat.encode_chat(ordinary).token_ids) == own_ids(tiny_hf, ordinary)


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_templates_without_a_system_role_get_it_in_the_first_user_turn(template: str) -> None:
    tokenizer = tiny_tokenizer(template)
    messages = chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "Yo"), ("user", "Bye"))
    folded = chat(("user", "Be kind.\n\nHi"), ("assistant", "Yo"), ("user", "Bye"))
    got = HfChatTokenizer(tokenizer).encode_chat(messages)
    assert tokenizer.decode(got.token_ids) == tokenizer.decode(own_ids(tokenizer, folded))


def test_folding_without_a_user_turn_makes_one() -> None:
    folded = fold_system(chat(("system", "S"), ("assistant", "A")))
    assert [(m.role, m.content) for m in folded] == [("user", "S"), ("assistant", "A")]
    assert fold_system(chat(("user", "U"))) == chat(("user", "U"))


def test_templates_that_trim_are_followed() -> None:
    tokenizer = tiny_tokenizer(TRIMS)
    messages = chat(("user", "\n  Hi there \n"), ("assistant", "  "), ("user", "x"))
    got = HfChatTokenizer(tokenizer).encode_chat(messages)
    assert list(got.token_ids) == own_ids(tokenizer, messages)


def test_a_template_that_refuses_says_so() -> None:
    tokenizer = HfChatTokenizer(
        tiny_tokenizer("{{ raise_exception('turns') if messages|length > 4 }}" + CHATML)
    )
    with pytest.raises(EngineError, match="refuses this order of turns: turns"):
        tokenizer.encode_chat([ChatMessage("user", (Part("x"),))] * 5)


def test_a_template_that_loses_a_message_is_refused() -> None:
    only_last = "{{ messages[-1]['content'] }}<|im_end|>"
    tokenizer = HfChatTokenizer(
        tiny_tokenizer(
            "{% if messages|length < 5 %}" + CHATML + "{% else %}" + only_last + "{% endif %}"
        )
    )
    with pytest.raises(EngineError, match="leaves out a message"):
        tokenizer.encode_chat([ChatMessage("user", (Part("x"),))] * 5)


def test_a_model_without_a_template_is_no_chat_model() -> None:
    with pytest.raises(EngineError, match="no chat template"):
        HfChatTokenizer(tiny_tokenizer(None))


def test_added_white_space_is_ordinary_text() -> None:
    tokenizer = tiny_tokenizer(extra=("\n\n", "<think>"))
    ours = HfChatTokenizer(tokenizer)
    messages = chat(("user", "one\n\ntwo"))
    assert list(ours.encode_chat(messages).token_ids) == own_ids(tokenizer, messages)
    assert tokenizer.convert_tokens_to_ids("\n\n") not in ours.control_ids
    assert tokenizer.convert_tokens_to_ids("<think>") in ours.control_ids


def word_tokenizer() -> Any:
    """Knows ``<s>`` and ``<unk>`` as words of its vocabulary: taking them out of the added
    tokens is not enough here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("<s>", -1.0), ("</s>", -1.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz<>/\n"]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    template = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}<s>"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=template,
    )


def test_words_of_the_vocabulary_that_are_control_tokens_are_taken_apart() -> None:
    with quiet_libraries():
        tokenizer = HfChatTokenizer(word_tokenizer())
    for text in ("a<s>b", "<s></s>", "<<s>s>", "</s", "<s>"):
        check_harmless(tokenizer, ["user"], [[text]])


def test_a_character_known_only_as_a_control_id_is_left_out() -> None:
    tokenizer = HfChatTokenizer(word_tokenizer())
    (ids,) = untrusted_ids(tokenizer.encode_chat(chat(("user", "a😀b"))))
    assert tokenizer.decode(ids) == "ab"


def test_no_space_is_put_before_a_part_inside_a_chat() -> None:
    tokenizer = HfChatTokenizer(word_tokenizer())
    prompt = tokenizer.encode_chat([ChatMessage("user", (Part("ab"), Part("cd")))])
    assert [tokenizer._full.decode(ids) for ids in untrusted_ids(prompt)] == ["ab", "cd"]


def test_lone_surrogates_become_question_marks(tiny_chat: HfChatTokenizer) -> None:
    (ids,) = untrusted_ids(tiny_chat.encode_chat(chat(("user", "a\ud800b"))))
    assert tiny_chat.decode(ids) == "a?b"


def test_decode_drops_control_tokens_and_half_characters(
    tiny_chat: HfChatTokenizer, tiny_hf: Any
) -> None:
    smile = tiny_hf.encode("x🐘", add_special_tokens=False)
    assert tiny_chat.decode([*smile, tiny_hf.eos_token_id]) == "x🐘"
    assert tiny_chat.decode(smile[:-1]) == "x"


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
@MANY
def test_a_streamed_text_is_the_decoded_text_and_never_half_a_character(
    tiny_chat: HfChatTokenizer, tiny_hf: Any, text: str
) -> None:
    ids = tiny_hf.encode(text, add_special_tokens=False)
    stream = tiny_chat.stream_decoder()
    pieces = [stream.push(i) for i in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + stream.flush() == tiny_chat.decode(ids)
