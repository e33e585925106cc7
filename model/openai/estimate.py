"""A tokenizer for a model whose own is not here: pieces of text that stand in for its tokens.

Budgets need a count before anything is sent, and a server tells it only afterwards. A piece is at
most ``ASCII_BYTES`` of a word, a letter of another alphabet, or half a character of a longer
script. That is more than most tokenizers make of a text; one with a small vocabulary makes up to
``MARGIN`` more (measured in the tests with the default model's), so a model's context is taken as
that much shorter. The "ids" are the pieces themselves, packed into numbers: they are about right in
number and can be read back, and mean nothing to the model. Prompts carry their messages, which is
what is sent.
"""

from collections.abc import Sequence

import regex

from model.engine import ChatMessage, Part, Prompt, Segment, Trust

ASCII_BYTES = 4
ROLE_IDS = {"system": 1, "user": 2, "assistant": 3}
END = 4
MARGIN = 0.3  # tokens more than pieces, as a share
FRAME = 4  # tokens that a template puts around a turn, besides its content
VOCABULARY = 1 << (8 * (ASCII_BYTES + 1) + 1)
_PIECES = regex.compile(
    rb" ?[A-Za-z]{1,%d}|[0-9]|[\xc0-\xff][\x80-\xbf]?|[\x80-\xbf]{1,2}|[\x00-\x7f]" % ASCII_BYTES
)
_NAMES = {END: "<end>"} | {number: f"<{role}>" for role, number in ROLE_IDS.items()}


class EstimatingTokenizer:
    """``ChatTokenizer`` by pieces; a turn costs ``FRAME`` besides its content."""

    control_ids = frozenset({*ROLE_IDS.values(), END})
    vocabulary = VOCABULARY

    def encode_chat(self, messages: Sequence[ChatMessage]) -> Prompt:
        """The prompt that asks for the next assistant turn, with its messages."""
        ids: list[int] = []
        segments: list[Segment] = []

        def add(new: Sequence[int], trust: Trust = "trusted") -> None:
            if new:
                segments.append(Segment(len(ids), len(ids) + len(new), trust))
                ids.extend(new)

        for message in messages:
            add([ROLE_IDS[message.role]])
            for part in message.parts:
                add(pieces(part.text), part.trust)
            add([END] * (FRAME - 1))
        add([ROLE_IDS["assistant"]])
        return Prompt(tuple(ids), tuple(segments), tuple(messages))

    def count(self, text: str) -> int:
        """How many pieces a text has."""
        return len(_split(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of pieces; those of the frame are left out."""
        packed = b"".join(_unpacked(i) for i in token_ids if i not in _NAMES)
        return packed.decode("utf-8", errors="replace")

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of pieces, those of the frame by their names."""
        parts = [_NAMES[i].encode() if i in _NAMES else _unpacked(i) for i in token_ids]
        return b"".join(parts).decode("utf-8", errors="replace")


def pieces(text: str) -> tuple[int, ...]:
    """The pieces of a text as numbers."""
    return tuple(int.from_bytes(b"\1" + piece) for piece in _split(text))


def ids_of_text(tokenizer: object, text: str) -> tuple[int, ...]:
    """Ids of a reply's text, by any ``ChatTokenizer``: what it makes of it as somebody's words."""
    encode = getattr(tokenizer, "encode_chat")  # noqa: B009 - see the annotation
    prompt: Prompt = encode([ChatMessage("user", (Part(text),))])
    runs = [prompt.token_ids[s.start : s.end] for s in prompt.segments if s.trust == "untrusted"]
    return tuple(i for run in runs for i in run)


def _split(text: str) -> list[bytes]:
    found: list[bytes] = _PIECES.findall(text.encode("utf-8", errors="replace"))
    return found


def _unpacked(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)[1:]
