"""Control tokens in what people write, broken up before it goes out as chat messages.

A server that takes messages tokenizes them with its special tokens on, so ``<|im_start|>`` in
somebody's post would open a turn. A broken bar behind its first character takes that away:
``<¦|im_start|>``. It is visible to the model and to people, and it can be undone: ``restored``
gives the text back exactly, whatever bars stood in it before.

Where a marker begins is looked up in the text without its bars, which the breaking does not change;
so both directions find the same places, and none is left unbroken.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from model.engine import ChatMessage

BAR = "\u00a6"
# Openings and closings that control tokens of chat models are made of, and those written out.
COMMON = frozenset(
    {
        *("<|", "|>", "<\uff5c", "\uff5c>", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>"),
        *("<mask>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
        *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "<think>"),
        *("</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
        *("[|", "|]"),  # EXAONE
        *("<extra_id_", "<SPECIAL_", "<TOOLCALL>", "</TOOLCALL>", "<TOOL_RESPONSE>"),  # Nemotron
        *("</TOOL_RESPONSE>", "<AVAILABLE_TOOLS>", "</AVAILABLE_TOOLS>"),
        *("[gMASK]", "[sMASK]", "[MASK]", "<sop>", "<eop>", "<arg_key>", "</arg_key>"),  # GLM
        *("<arg_value>", "</arg_value>"),
        *("[BOS]", "[EOS]", "[EOT]", "[UNK]", "[PAD]", "[start_header_id]"),  # Kimi
        *("[end_header_id]", "[extra_id_", "\u25c1think\u25b7", "\u25c1/think\u25b7"),
        *("[/AVAILABLE_TOOLS]", "[/TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),  # Mistral
        *("[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[PREFIX]", "[MIDDLE]"),
        *("[SUFFIX]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[AUDIO]", "[BEGIN_AUDIO]"),
        *("[TRANSCRIBE]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"),
        *("<start_of_image>", "<end_of_image>", "<unused", "<reserved_"),  # Gemma, Baichuan
    }
)
_IN_TEMPLATE = re.compile(r"</?[^<>\s{}'\"]{1,40}>|\[/?[A-Z][A-Z_]{1,30}\]")


class Markers:
    """The control tokens of a model, by their text, besides those of ``COMMON``."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        texts = {text.strip() for text in known} | COMMON
        usable = sorted((t for t in texts if len(t) > 1 and BAR not in t), key=len, reverse=True)
        self._begin = re.compile(f"(?=({'|'.join(map(re.escape, usable))}))")

    def broken(self, text: str) -> str:
        """The text without any marker in it."""
        return self._shifted(text, +1, None)

    def restored(self, text: str) -> str:
        """What ``broken`` was given."""
        return self._shifted(text, -1, None)

    def message(self, message: ChatMessage) -> str:
        """The content of a message, in which only the operator's own parts may hold a marker."""
        untrusted = [part.trust != "trusted" for part in message.parts for _ in _bare(part.text)]
        return self._shifted(message.content, +1, untrusted)

    def _shifted(self, text: str, by: int, within: Sequence[bool] | None) -> str:
        """``by`` bars more behind the first character of every marker; ``within``: of those
        that touch such a character of the text without bars."""
        bare = _bare(text)
        starts = {
            found.start()
            for found in self._begin.finditer(bare)
            if within is None or any(within[found.start() : found.start() + len(found[1])])
        }
        return _with_bars(text, starts, by) if starts else text


def markers_in_template(template: str) -> set[str]:
    """What a chat template writes that looks like a control token."""
    return set(_IN_TEMPLATE.findall(template))


def _bare(text: str) -> str:
    return text.replace(BAR, "")


def _with_bars(text: str, starts: Collection[int], by: int) -> str:
    """Bars that stand behind a character belong to it; ``starts`` counts characters alone."""
    pieces = list[str]()
    at = -1  # number of the last character that is no bar
    bars = 0
    for character in [*text, ""]:
        if character == BAR:
            bars += 1
            continue
        pieces.append(BAR * (bars + (by if at in starts else 0)))
        pieces.append(character)
        at, bars = at + 1, 0
    return "".join(pieces)


def as_sent(messages: Iterable[ChatMessage], markers: Markers) -> list[dict[str, str]]:
    """Messages as the protocol writes them, with whatever people wrote made harmless."""
    return [{"role": one.role, "content": markers.message(one)} for one in messages]
