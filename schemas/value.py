"""``@value``: a dataclass of plain values that nobody changes, for those made of every record.

The type checker treats it as frozen; at run time it is not, since Python sets each field of a
frozen dataclass through a call, which makes the object three times as costly.
"""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """As ``@dataclass(frozen=True, slots=True)``, but only mypy sees that a field is set."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
