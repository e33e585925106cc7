"""Digests of ids, so that what is kept of each takes the same little room, whatever its length.

In: a few strings. Out: a BLAKE2b of them, in which none can be mistaken for its neighbour.
"""

import hashlib


def digest_of(*parts: str, size: int) -> bytes:
    """``size`` bytes, at most 64."""
    sizes = b"".join(len(part).to_bytes(8, "big") for part in parts)
    whole = sizes + "".join(parts).encode(errors="surrogatepass")
    return hashlib.blake2b(whole, digest_size=size).digest()
