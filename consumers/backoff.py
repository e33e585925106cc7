"""Waiting before another try: exponential, capped, with full jitter.

Full jitter spreads retries best (Marc Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015).
"""

import random


def full_jitter(attempt: int, base_s: float, cap_s: float) -> float:
    """Seconds to wait before try ``attempt`` + 1, where ``attempt`` counts from 1."""
    ceiling = min(cap_s, base_s * 2.0 ** min(attempt - 1, 32))
    return random.uniform(0.0, ceiling)  # noqa: S311  # no secret hangs on it
