"""Which requests may have killed the engine's process, told by who was there when it died.

A step of the model that raises is as good as a death: it ends all requests that were in it. One
prompt that crashes a kernel kills everybody's process, is tried again with the others, and
kills it again: after some rounds all of them have used up their tries. So whoever was there at
``TIMES`` deaths is let in alone from then on: a guilty one then harms only itself, and an innocent
one is answered and forgotten. Keys are digests; bounded.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable

TIMES = 2  # one death is nobody's fault: somebody may have killed the process from outside
REMEMBERED = 4096


class Suspects:
    """Counts deaths, and steps that failed, by request."""

    def __init__(self) -> None:
        self._deaths: OrderedDict[Hashable, int] = OrderedDict()

    def died(self, there: Iterable[Hashable]) -> None:
        """The process died, or a step failed, while it had these requests."""
        for key in there:
            self._deaths[key] = self._deaths.pop(key, 0) + 1
        while len(self._deaths) > REMEMBERED:
            self._deaths.popitem(last=False)

    def cleared(self, key: Hashable) -> None:
        """This one was answered."""
        self._deaths.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return self._deaths.get(key, 0) >= TIMES
