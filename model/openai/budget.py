"""A retry budget: requests made again are a share of all requests, whatever breaks.

Without one, a server in trouble gets more requests the worse it fares. As gRPC and Finagle do it:
each request pays in a part of a retry, each retry takes a whole one out.
"""

BURST = 10.0  # retries that may have been saved up


class RetryBudget:
    """``share``: retries per request, over time; 0: none at all."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = BURST / 2 if share else 0.0
        self.taken = 0

    def request(self) -> None:
        """A new request came."""
        self._saved = min(BURST, self._saved + self._share)

    def take(self) -> bool:
        """Whether one more request may be made again."""
        if self._saved < 1:
            return False
        self._saved -= 1
        self.taken += 1
        return True
