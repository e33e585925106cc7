"""The worker under test, as a process: the real bot worker with faults in its way.

    python -m tests.chaos.workers      (settings come through TWITE_* and CHAOS_*)

- ``CHAOS_SEED``: for everything that is drawn at random in here;
- ``CHAOS_ARM``: faults to begin with, lines as below, separated by semicolons;
- ``CHAOS_FLAW``: the name of a planted flaw (``flaws``), for controls.

Standard input takes more of them while it runs: ``kill STEP N``, ``freeze STEP N`` (SIGSTOP),
``hang N``, ``raise N``, ``garbage N``, ``block N``: at the N-th passing of that place from now.
``disarm`` forgets what has not fired. A line ``fired …`` goes to standard output first.
The end of standard input is the end of the orchestrator: the process dies with it.
"""

import asyncio
import os
import random
import signal
import sys
import threading

from bot.app import run_worker
from bot.config import load
from model.echo import EchoEngine
from model.engine import Generation, GenerationRequest
from tests.chaos import faults, flaws


class UnsteadyEcho(EchoEngine):
    """Echo with a latency of its own for each answer: most quick, some slow."""

    def __init__(self, mean_ms: float, slots: int, seed: int) -> None:
        super().__init__(0, slots)
        self._mean_s = mean_ms / 1000
        self._dice = random.Random(seed)

    async def generate(self, request: GenerationRequest) -> Generation:
        await asyncio.sleep(min(10 * self._mean_s, self._dice.expovariate(1 / self._mean_s)))
        return await super().generate(request)


def _die_with_the_orchestrator() -> None:
    """Also when stopped by SIGSTOP: Linux kills us when our parent dies."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _listen() -> None:
    """Arms what standard input says, until it ends."""
    for line in sys.stdin:
        faults.arm(line.strip())
    os._exit(3)


def main() -> None:
    """Run until SIGTERM, or until a fault."""
    _die_with_the_orchestrator()
    seed = int(os.environ.get("CHAOS_SEED", "0"))
    random.seed(seed)
    faults.install()
    flaws.install(os.environ.get("CHAOS_FLAW", ""))
    for line in filter(None, os.environ.get("CHAOS_ARM", "").split(";")):
        faults.arm(line)
    threading.Thread(target=_listen, name="orders", daemon=True).start()
    settings = load().settings
    engine = UnsteadyEcho(settings.model.echo.latency_ms, settings.model.slots, seed)
    asyncio.run(run_worker(settings, engine=engine))


if __name__ == "__main__":
    main()
