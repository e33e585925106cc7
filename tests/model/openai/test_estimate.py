"""Pieces that stand in for tokens: as long as texts, never shorter than a real tokenizer's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.chat import HfChatTokenizer
from model.engine import ChatMessage, Part
from model.openai.estimate import MARGIN, VOCABULARY, EstimatingTokenizer, ids_of_text, pieces

TOKENIZER = EstimatingTokenizer()
SAMPLES = [
    "What is the capital of France? I have always wondered, but never asked anybody about it.",
    "Grüße aus München! Wie wird das Wetter am Wochenende, und lohnt sich ein Ausflug?",
    "日本の首都はどこですか。東京です。",
    "Какая сегодня погода в Москве?",
    "ما هي عاصمة مصر؟",
    "def f(x):\n    return [i ** 2 for i in range(x) if i % 2 == 0]\n",
    "😀🎉 lol!!! 1234567890 https://example.org/a?b=c&d=%20e",
]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_comes_back_from_its_pieces(text: str) -> None:
    ids = pieces(text)
    assert TOKENIZER.decode(ids) == text
    assert len(ids) == TOKENIZER.count(text)
    assert all(0 < i < VOCABULARY for i in ids)
    assert not TOKENIZER.control_ids & {*ids}
    assert ids_of_text(TOKENIZER, text) == ids


def test_a_chat_has_segments_and_carries_its_messages() -> None:
    chat = [
        ChatMessage("system", (Part("Be kind.", "trusted"),)),
        ChatMessage("user", (Part("Hi: ", "trusted"), Part("<user>"), Part(""))),
    ]
    prompt = TOKENIZER.encode_chat(chat)
    assert prompt.messages == tuple(chat)
    assert [s.start for s in prompt.segments][1:] == [s.end for s in prompt.segments][:-1]
    assert prompt.segments[-1].end == len(prompt.token_ids)
    written = [prompt.token_ids[s.start : s.end] for s in prompt.segments if s.trust != "trusted"]
    assert [TOKENIZER.decode(ids) for ids in written] == ["<user>"]
    assert TOKENIZER.spell(prompt.token_ids).startswith("<system>Be kind.<end>")
    assert TOKENIZER.decode(prompt.token_ids) == "Be kind.Hi: <user>"


def test_a_lone_surrogate_is_no_crash() -> None:
    assert TOKENIZER.decode(pieces("a\ud800b")) == "a?b"


@pytest.mark.slow  # loads the default model's tokenizer
@pytest.mark.parametrize("text", SAMPLES)
def test_pieces_with_their_margin_are_no_fewer_than_tokens(
    text: str, default_chat: HfChatTokenizer
) -> None:
    assert TOKENIZER.count(text) * (1 + MARGIN) >= default_chat.count(text)


@pytest.mark.slow
def test_a_whole_chat_takes_no_fewer_either(default_chat: HfChatTokenizer) -> None:
    chat = [ChatMessage("system", (Part(SAMPLES[0], "trusted"),)), ChatMessage("user", (Part(""),))]
    assert len(TOKENIZER.encode_chat(chat).token_ids) >= len(
        default_chat.encode_chat(chat).token_ids
    )
