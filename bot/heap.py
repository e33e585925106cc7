"""Garbage collection in a worker: rarer, and never over what was there when it started.

A model, its libraries and the tables of a language detector are hundreds of thousands of objects
that live as long as the process. Python would look through all of them again and again, a tenth
of a second each time, in which nothing else happens; and through the events in flight a hundred
times a second. Reference counts free nearly everything here; what is in cycles waits longer.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (20_000, 20, 20)
"""New objects before the youngest are looked through, and how many of these looks before the
next older ones are."""


@contextmanager
def settled() -> Iterator[None]:
    """What is there now is not looked through while this lasts."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
