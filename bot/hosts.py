"""Names of machines that nobody knows, for whoever finds no broker there.

The address of brokers comes in (``host:port``, several with commas); the host names that do not
resolve go out. It asks the resolver, which may take seconds: for a command that ends, not for a
worker.
"""

import socket


def unresolved(bootstrap_servers: str) -> list[str]:
    """The host names in the address that do not resolve."""
    hosts = dict.fromkeys(_host(part.strip()) for part in bootstrap_servers.split(","))
    return [host for host in hosts if host and not _resolves(host)]


def told(bootstrap_servers: str) -> str:
    """A sentence about them, empty where all resolve."""
    hosts = unresolved(bootstrap_servers)
    if not hosts:
        return ""
    what = "is no host name" if len(hosts) == 1 else "are no host names"
    return f"{', '.join(hosts)} {what} that can be resolved here."


def _host(part: str) -> str:
    """Without the port; an IPv6 address stands in brackets, or has no port."""
    if part.startswith("["):
        return part[1:].partition("]")[0]
    return part if part.count(":") > 1 else part.partition(":")[0]


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True
