"""Trouble that a person can mend, told in three parts: what, where, and what to do."""


class Trouble(Exception):
    """Stops a command with a message and no traceback.

    ``what`` happened, ``where`` (an address, a file and line, a topic), and ``todo``: the
    next step for whoever reads it. ``status`` is the exit status of the command.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "", status: int = 1) -> None:
        super().__init__(" ".join(filter(None, (f"{where}: {what}" if where else what, todo))))
        self.what = what
        self.where = where
        self.todo = todo
        self.status = status

    @property
    def lines(self) -> tuple[str, ...]:
        """What to print, a line per problem."""
        return (str(self),)
