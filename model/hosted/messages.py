"""What the two processes of a hosted engine say to each other, as bytes and back.

A message is a struct below; a frame is its length (four bytes, big-endian) and its MessagePack.
No pickle: what comes in can only be one of these structs, checked field by field. Requests travel
by a number that the asking side never uses twice, since their ids may come again at once.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from model.engine import (
    EngineDescription,
    EngineError,
    Generation,
    GenerationRequest,
    Prompt,
    Sampling,
    Score,
)
from model.portable import PortableTokenizer

_LENGTH = struct.Struct("!I")
MAX_FRAME = 256 * 2**20  # bytes; a tokenizer with a large vocabulary takes ten millions


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# --- to the engine's process -----------------------------------------------------------------


class Start(_Message, frozen=True):
    """Build the engine called ``engine``, as ``model.loader`` does, and start it; from then on,
    a pulse every ``pulse_s`` seconds."""

    engine: str
    settings: dict[str, Any]
    pulse_s: float


class Ask(_Message, frozen=True):
    """Make a reply; ``streamed``: send its pieces as well."""

    number: int
    request: GenerationRequest
    streamed: bool


class Judge(_Message, frozen=True):
    """Score a recorded reply."""

    number: int
    prompt: Prompt
    output_ids: tuple[int, ...]
    sampling: Sampling
    adapter: str | None = None


class Cancel(_Message, frozen=True):
    """End a request early; it answers with what it has."""

    number: int


class Forget(_Message, frozen=True):
    """End a request whose caller is gone; no answer."""

    number: int


# --- from the engine's process ---------------------------------------------------------------


class Progress(_Message, frozen=True):
    """A line for people about the start."""

    line: str


class Logged(_Message, frozen=True):
    """A line for the log."""

    level: str
    event: str
    fields: dict[str, str | int | float | bool | None]


class Ready(_Message, frozen=True):
    """The engine can answer. ``vocabulary``: ids run from 0 to this, excluded. ``tokenizer``
    None: it is the echo engine's, which needs no data."""

    description: EngineDescription
    vocabulary: int
    slots: int
    tokenizer: PortableTokenizer | None


class Piece(_Message, frozen=True):
    """A piece of a reply on its way."""

    number: int
    text: str


class Done(_Message, frozen=True):
    """A reply's end."""

    number: int
    generation: Generation


class Judged(_Message, frozen=True):
    """A score."""

    number: int
    score: Score


class Failed(_Message, frozen=True):
    """A request's end as an error, or (number 0) the start's."""

    number: int
    code: str
    text: str


class Pulse(_Message, frozen=True):
    """Sent regularly: alive, and how full. ``steps``, ``slowest_s``: see ``EngineStats``."""

    slots: int
    running: int
    waiting: int
    cache_use: float
    steps: int | None
    slowest_s: float


ToEngine = Start | Ask | Judge | Cancel | Forget
FromEngine = Progress | Logged | Ready | Piece | Done | Judged | Failed | Pulse

_encoder = msgspec.msgpack.Encoder()
to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


class BrokenFrame(Exception):
    """The other side said something that cannot be understood; only ending it helps."""


def frame(message: ToEngine | FromEngine) -> bytes:
    """One message as bytes. Raises ``ValueError`` for numbers beyond 64 bits and for text that is
    not Unicode."""
    try:
        body = _encoder.encode(message)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes as they arrive in, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes, decoder: "msgspec.msgpack.Decoder[Any]") -> Iterator[Any]:
        """The messages that are whole now. Raises ``BrokenFrame``."""
        self._buffer += data
        while (body := self._next()) is not None:
            try:
                yield decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise BrokenFrame(f"A message cannot be read: {error}") from error

    def _next(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise BrokenFrame(f"A message of {length} bytes.")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return body


def error_of(code: str, text: str) -> EngineError:
    """The error with this code, of whichever class it was on the other side."""
    return _kinds(EngineError).get(code, EngineError)(text)


def _kinds(kind: type[EngineError]) -> dict[str, type[EngineError]]:
    found = {kind.code: kind}
    for below in kind.__subclasses__():
        found = _kinds(below) | found
    return found


def plain(value: Any) -> str | int | float | bool | None:
    """A field of a log line that can travel; of what cannot, its kind."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return type(value).__name__
