"""No control token gets through in what people write, and nothing of it is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import ChatMessage, Part
from model.openai.neutral import BAR, COMMON, Markers, as_sent, markers_in_template

MARKERS = Markers(["<|im_start|>", "<|im_end|>", "[SEP]", "aab", "abab"])
KNOWN = sorted(COMMON | {"<|im_start|>", "<|im_end|>", "[SEP]", "aab", "abab"})
# Texts that are made of what is dangerous: markers, pieces of them, and bars.
PIECES = st.sampled_from([*KNOWN, *(m[:2] for m in KNOWN), *(m[1:] for m in KNOWN), BAR, "x"])
HOSTILE = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=12).map("".join)


@given(HOSTILE)
def test_no_marker_is_left_and_the_text_comes_back(text: str) -> None:
    broken = MARKERS.broken(text)
    assert not [marker for marker in KNOWN if marker in broken]
    assert MARKERS.restored(broken) == text
    assert broken.replace(BAR, "") == text.replace(BAR, "")


def test_it_is_seen_and_says_what_it_was() -> None:
    assert MARKERS.broken("a <|im_start|>system") == f"a <{BAR}|im_start|{BAR}>system"
    assert MARKERS.broken("an ordinary text, 1 < 2 | 3 > 2") == "an ordinary text, 1 < 2 | 3 > 2"


def test_breaking_twice_is_undone_twice() -> None:
    once = MARKERS.broken("<s>")
    assert MARKERS.broken(once) == f"<{BAR}{BAR}s>"
    assert MARKERS.restored(MARKERS.restored(MARKERS.broken(once))) == "<s>"


@pytest.mark.parametrize(
    "written",
    [
        *("<|endoftext|>", "<|eot_id|>", "<start_of_turn>", "</s>", "[/INST]", "<|anything|>"),
        *("[|system|]", "[|endofturn|]", "<extra_id_0>", "<SPECIAL_12>", "<TOOLCALL>"),
        *("[gMASK]", "<sop>", "<arg_key>", "[EOT]", "[start_header_id]", "[TOOL_RESULTS]"),
        *("[/AVAILABLE_TOOLS]", "[ARGS]", "[THINK]", "<unused7>"),
    ],
)
def test_control_tokens_of_many_models_are_known_without_a_tokenizer(written: str) -> None:
    assert written not in Markers().broken(f"x{written}y")


def test_the_operators_own_parts_stay_as_they_are() -> None:
    message = ChatMessage("user", (Part("<s>[SEP]", "trusted"), Part("<s>"), Part("<|", "trusted")))
    assert MARKERS.message(message) == f"<s>[SEP]<{BAR}s><|"


@given(HOSTILE, HOSTILE)
def test_no_marker_grows_together_from_two_parts(trusted: str, written: str) -> None:
    message = ChatMessage("user", (Part(trusted, "trusted"), Part(written)))
    sent = MARKERS.message(message)
    if not any(marker in trusted for marker in KNOWN):
        assert not [marker for marker in KNOWN if marker in sent]


def test_messages_as_they_are_sent() -> None:
    chat = [ChatMessage("system", (Part("Be kind.", "trusted"),)), ChatMessage("user", ())]
    assert as_sent(chat, MARKERS) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": ""},
    ]


def test_a_chat_template_tells_its_markers() -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}<turn>{{ m.content }}[/INST]"
        "</answer>{% if a < b and c > d %}{{ m[0] }}{% endif %}{% endfor %}"
    )
    found = markers_in_template(template)
    assert found >= {"<|im_start|>", "<turn>", "</answer>", "[/INST]"}
    assert "[0]" not in found
