"""Ports on this machine: a free one, and whether a given one is free."""

import socket

_HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on at this moment; somebody may take it before we do."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True
