"""What an engine says about itself: requests by their end, tokens, waiting times, restarts.

``model.tally`` counts them; the metrics page is made of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EngineState = Literal["up", "restarting", "failing", "stopped"]

# Bounds of the buckets in seconds: those of the conventions for gen_ai.server.time_to_first_token
# and gen_ai.server.time_per_output_token of OpenTelemetry, cut where nobody waits any more.
WAITS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
         30.0, 60.0)  # fmt: skip
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: ``counts[i]`` values up to ``bounds[i]`` (and above the bound before), the
    last one those above all bounds; ``total`` is the sum of all values, in seconds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


def _none(bounds: tuple[float, ...]) -> Buckets:
    return Buckets(bounds, (0,) * (len(bounds) + 1), 0.0)


NO_WAITS = _none(WAITS)
NO_TOKENS = _none(PER_TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counters since the engine was made, and, at the end, what is so now.

    ``requests``: by how they ended: a finish reason (``stop``, ``length``, ``cancelled``), or the
    code of an error. ``cached_tokens``: prompt tokens that did not have to be read again.
    ``running``: requests in the batch; ``waiting``: those without a slot; ``cache_use``: share of
    the memory for keys and values that is taken, 0 to 1. ``steps``: passes of the model so far
    (None: an engine that knows of none), ``slowest_s`` the slowest of them in seconds. ``state``:
    answers; is being started again; has failed so often that somebody should look, and is tried
    again now and then; does not run.
    """

    requests: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    restarts: int = 0
    queue_s: Buckets = NO_WAITS
    first_token_s: Buckets = NO_WAITS
    per_token_s: Buckets = NO_TOKENS
    total_s: Buckets = NO_WAITS
    running: int = 0
    waiting: int = 0
    cache_use: float = 0.0
    steps: int | None = None
    slowest_s: float = 0.0
    state: EngineState = "up"
