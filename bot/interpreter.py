"""The interpreter of a worker: what it does between the lines, so that answers wait less for it.

- Garbage collection is rarer, and never over what was there at the start. A model, its libraries
  and the tables of a language detector are hundreds of thousands of objects that live as long as
  the process. Python would look through all of them again and again, a tenth of a second each
  time, in which nothing else happens; and through the events in flight a hundred times a second.
  Reference counts free nearly everything here; what is in cycles waits longer.
- Threads take turns more often. Each look into a view lets go of the interpreter's lock; where
  the thread that writes the views takes it, the answer would wait 5 ms to get it back.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (20_000, 20, 20)
"""New objects before the youngest are looked through, and how many of these looks before the
next older ones are."""
TURN_S = 0.001
"""So long a thread keeps the interpreter while another one wants it."""


@contextmanager
def tuned() -> Iterator[None]:
    """So it is while this lasts; what is there now is not looked through."""
    thresholds, turn_s = gc.get_threshold(), sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    sys.setswitchinterval(TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(turn_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
