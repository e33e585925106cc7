"""What can be wrong with a record: ``Fault`` inside this room, ``Undecodable`` for callers."""

from schemas.codes import ErrorCode


class Fault(Exception):
    """A check failed. ``detail`` names places and kinds, never what people wrote."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Undecodable(Fault):
    """The record can never be read: a dead letter. ``private``: it may hold private text."""

    def __init__(self, code: ErrorCode, detail: str, private: bool) -> None:
        super().__init__(code, detail)
        self.private = private
