"""Chats to token ids for a Hugging Face tokenizer, safe against what people write.

In come messages made of trusted and untrusted parts. The model's chat template is rendered
with random marks in place of the contents, and split at the marks. What lies between (the
skeleton, together with the trusted parts) is tokenized with special tokens; each untrusted
part is tokenized apart by a tokenizer that does not know them. The ids are joined. So no text
of a user, alone or together with its neighbours, becomes ``<|im_start|>`` or the like.

A chat of one part per message encodes exactly as the tokenizer's own ``apply_chat_template``
does, except where that lets a text melt into what stands around it:
- the text holds a special or added token (that is the point), or begins or ends with white
  space that the tokenizer would join with the template's own;
- the template puts text right beside the content without a special token or a line between
  (``[INST] text [/INST]``), or the tokenizer puts a space before the first word of each piece
  (SentencePiece's older ways): the ids differ there, the text is the same;
- the tokenizer normalises (NFC and the like): it does so here as well, part by part.
A character that the model's vocabulary cannot spell is lost, as in the model's own tokenizer.
Markers that are plain text to the tokenizer (``User:``) can be written by anybody; only models
with real control tokens keep turns apart.
"""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer

from model.engine import ChatMessage, EngineError, Part, Prompt, Segment, Trust

UNFINISHED = "\ufffd"  # what decoders put for bytes that are not (yet) a character
_PAD = "\u2003"  # white space that no template writes, to see whether a template trims
_MARKER = re.compile(r"<.+>|\[.+\]", re.DOTALL)


class HfChatTokenizer:
    """``ChatTokenizer`` over a transformers tokenizer that is backed by ``tokenizers``, or over a
    ``model.portable.PortableTokenizer``, which is one as a value.

    Raises ``EngineError`` for a tokenizer without a chat template, or of another kind.
    """

    def __init__(self, tokenizer: Any) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise EngineError("This model's tokenizer has no tokenizer.json; Twite needs one.")
        if not tokenizer.chat_template:
            raise EngineError(
                "This model has no chat template, so it is not a chat model. Choose its "
                "instruct version, or put a chat_template.jinja into its folder."
            )
        self._tokenizer = tokenizer
        self._full: Tokenizer = tokenizer.backend_tokenizer
        self._full.no_truncation()
        self._full.no_padding()
        self._plain = _without_added_tokens(self._full)
        self._added = frozenset(self._full.get_added_tokens_decoder())
        self._control = self._declared_controls()
        self._folds_system = not self._template_shows_system()
        self._control |= self._skeleton_controls()

    @property
    def source(self) -> Any:
        """The tokenizer that this one was made of."""
        return self._tokenizer

    @property
    def control_ids(self) -> frozenset[int]:
        """All special and added ids, and markers that the template's skeleton brings in."""
        return self._control

    @property
    def vocabulary(self) -> int:
        """One more than the highest id."""
        return max(self._full.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def end_of_turn_ids(self) -> frozenset[int]:
        """The control token that the template puts right behind a turn of the assistant."""
        turns = (ChatMessage("assistant" if n == 1 else "user", (Part("x"),)) for n in range(3))
        prompt = self.encode_chat(list(turns))
        ends = [s.end for s in prompt.segments if s.trust == "untrusted"]
        return frozenset({prompt.token_ids[ends[1]]} & self._control if len(ends) == 3 else ())

    def encode_chat(self, messages: Sequence[ChatMessage]) -> Prompt:
        """The prompt that asks for the next assistant turn.

        Raises ``EngineError`` where the template refuses the order of the turns.
        """
        if self._folds_system:
            messages = fold_system(messages)
        ids: list[int] = []
        segments: list[Segment] = []
        for text, trust in _runs(self._pieces(messages)):
            new = self._skeleton(text, bool(ids)) if trust == "trusted" else self._people(text)
            if new:
                segments.append(Segment(len(ids), len(ids) + len(new), trust))
                ids.extend(new)
        return Prompt(tuple(ids), tuple(segments))

    def count(self, text: str) -> int:
        """How many tokens an untrusted text takes."""
        return len(self._people(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of output ids; control tokens and an unfinished last character are left out."""
        return self._text(token_ids).rstrip(UNFINISHED)

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of any ids for people to look at, control tokens by their names."""
        return str(self._full.decode(list(token_ids), skip_special_tokens=False))

    def stream_decoder(self) -> "StreamDecoder":
        """A decoder that takes one reply's ids one by one."""
        return StreamDecoder(self._text)

    def _text(self, token_ids: Sequence[int]) -> str:
        kept = [i for i in token_ids if i not in self._control]
        return self._full.decode(kept, skip_special_tokens=False)

    # --- encoding ---------------------------------------------------------------------------

    def _pieces(self, messages: Sequence[ChatMessage]) -> Iterator[Part]:
        """The rendered chat in order: skeleton as trusted parts, contents as they are."""
        marks = [secrets.token_hex(16) for _ in messages]
        rendered = self._render(
            [
                {"role": message.role, "content": f"{_PAD}{mark}{_PAD}"}
                for message, mark in zip(messages, marks, strict=True)
            ]
        )
        by_mark = dict(zip(marks, messages, strict=True))
        pattern = "|".join(f"({_PAD}?)({mark})({_PAD}?)" for mark in marks)
        at, seen = 0, set()
        for found in re.finditer(pattern, rendered) if marks else ():
            left, mark, right = (group for group in found.groups() if group is not None)
            seen.add(mark)
            yield Part(rendered[at : found.start()], "trusted")
            yield from _trimmed(by_mark[mark].parts, left=not left, right=not right)
            at = found.end()
        yield Part(rendered[at:], "trusted")
        if len(seen) < len(marks):
            raise EngineError("The model's chat template leaves out a message of this chat.")

    def _render(self, chat: list[dict[str, str]]) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # Jinja's own errors, and whatever a template raises
            raise EngineError(
                f"The model's chat template refuses this order of turns: {error}"
            ) from error
        return str(rendered)

    def _skeleton(self, text: str, inside: bool) -> list[int]:
        """Ids of the operator's text, special tokens and all.

        ``inside``: something stands before it, so no space may be put before its first word.
        """
        head, tail = self._split_at_token(text) if inside else ("", text)
        whole = self._full.encode(tail, add_special_tokens=False).ids if tail else []
        return [*(self._plain.encode(head, add_special_tokens=False).ids if head else []), *whole]

    def _split_at_token(self, text: str) -> tuple[str, str]:
        """Split before the first special or added token; all is head where there is none."""
        encoding = self._full.encode(text, add_special_tokens=False)
        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self._added:
                return text[:start], text[start:]
        return text, ""

    def _people(self, text: str) -> list[int]:
        """Ids of a text that anybody may have written; never a control id.

        A tokenizer without added tokens may still hold ``<s>`` as a word of its vocabulary:
        then the text is cut inside that word and each half encoded again, and a single
        character that is known only as a control id (``<unk>``) is left out.
        """
        text = text.encode("utf-8", errors="replace").decode("utf-8")  # lone surrogates
        encoding = self._plain.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token not in self._control:
                continue
            if end - start > 1:
                middle = (start + end) // 2
                return self._people(text[:middle]) + self._people(text[middle:])
            after = max(end, start + 1)
            return self._people(text[:start]) + self._people(text[after:])
        return list(encoding.ids)

    # --- what this model's tokens and template are -------------------------------------------

    def _declared_controls(self) -> frozenset[int]:
        """Special and added ids; runs of white space that were added are ordinary text."""
        added = self._full.get_added_tokens_decoder()
        control = {i for i, token in added.items() if token.special or token.content.strip()}
        return frozenset(control | set(self._tokenizer.all_special_ids))

    def _template_shows_system(self) -> bool:
        try:
            list(self._pieces([_probe("system"), _probe("user")]))
        except EngineError:
            return False
        return True

    def _skeleton_controls(self) -> frozenset[int]:
        """Single tokens of the skeleton that look like markers although nobody declared them."""
        chat = [_probe("user"), _probe("assistant"), _probe("user")]
        if not self._folds_system:
            chat.insert(0, _probe("system"))
        ids = self.encode_chat(chat).token_ids
        return frozenset(i for i in ids if _MARKER.fullmatch(self._full.id_to_token(i) or ""))


class StreamDecoder:
    """Ids of one reply in, text out as soon as it is certain: never half a character.

    Joined, the pieces are what ``HfChatTokenizer.decode`` says of all the ids. Decodes a short
    window whose start is text already given, since a token's text depends on its left
    neighbour (the way of Hugging Face's text-generation-inference).
    """

    def __init__(self, decode: Any) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0  # the window begins here
        self._given = 0  # ids before this one have been given as text

    def push(self, token_id: int) -> str:
        """Take the next id; returns text that is ready, often of earlier ids too."""
        self._ids.append(token_id)
        piece = self._ready()
        if not piece or piece.endswith(UNFINISHED):
            return ""
        self._start, self._given = self._given, len(self._ids)
        return piece

    def flush(self) -> str:
        """What is left at the end, without an unfinished character."""
        piece = self._ready().rstrip(UNFINISHED)
        self._start = self._given = len(self._ids)
        return piece

    def _ready(self) -> str:
        known = self._decode(self._ids[self._start : self._given])
        return str(self._decode(self._ids[self._start :])[len(known) :])


def fold_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Put what the system says in front of the first user turn, for templates without one."""
    system = [part for m in messages if m.role == "system" for part in m.parts]
    turns = [message for message in messages if message.role != "system"]
    if not system:
        return turns
    first = next((n for n, message in enumerate(turns) if message.role == "user"), None)
    if first is None:
        return [ChatMessage("user", tuple(system)), *turns]
    parts = (*system, Part("\n\n", "trusted"), *turns[first].parts)
    return [*turns[:first], ChatMessage("user", parts), *turns[first + 1 :]]


def _probe(role: Any) -> ChatMessage:
    return ChatMessage(role, (Part("x", "trusted"),))


def _runs(parts: Iterator[Part]) -> Iterator[tuple[str, Trust]]:
    """Join trusted neighbours, so that skeleton and operator's words are tokenized as one."""
    trusted = ""
    for part in parts:
        if part.trust == "trusted":
            trusted += part.text
            continue
        if trusted:
            yield trusted, "trusted"
        trusted = ""
        if part.text:
            yield part.text, "untrusted"
    if trusted:
        yield trusted, "trusted"


def _trimmed(parts: Sequence[Part], *, left: bool, right: bool) -> list[Part]:
    """The parts without white space at the outer ends, where the template trims contents."""
    kept = list(parts)
    while left and kept:
        kept[0] = Part(kept[0].text.lstrip(), kept[0].trust)
        if kept[0].text:
            break
        kept.pop(0)
    while right and kept:
        kept[-1] = Part(kept[-1].text.rstrip(), kept[-1].trust)
        if kept[-1].text:
            break
        kept.pop()
    return kept


def _without_added_tokens(full: Tokenizer) -> Tokenizer:
    """A copy that matches no special or added token in a text, and adds no space before it.

    Added runs of white space stay: they are how ordinary text is encoded.
    """
    spec = json.loads(full.to_str())
    spec["added_tokens"] = [
        token
        for token in spec["added_tokens"]
        if not token["special"] and not token["content"].strip()
    ]
    spec["post_processor"] = None
    spec["normalizer"] = _without_prefix(spec["normalizer"])
    spec["pre_tokenizer"] = _without_prefix(spec["pre_tokenizer"])
    return Tokenizer.from_str(json.dumps(spec))


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer without what puts something before a text or strips it."""
    if step is None or step["type"] in {"Prepend", "Strip"}:
        return None
    step = dict(step)
    for inner in ("normalizers", "pretokenizers"):
        if inner in step:
            step[inner] = [kept for one in step[inner] if (kept := _without_prefix(one))]
    if "add_prefix_space" in step:
        step["add_prefix_space"] = False
    if "prepend_scheme" in step:
        step["prepend_scheme"] = "never"
    return step
