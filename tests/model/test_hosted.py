"""An engine in a process of its own keeps the contract, and outlives the process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

import model
from model.engine import EngineError, EngineUnavailable, ModelNotFound, StepFailed
from model.hosted.engine import HostedEngine
from model.hosted.keeper import LONGEST_RESTART_S, Care
from model.hosted.messages import Ready
from model.hosted.restarts import RestartPolicy
from tests.model.contract import EngineContract, ask, until

SOON = RestartPolicy(first_s=0.01, most_s=0.05, failures=100)
ROOT = Path(next(iter(model.__path__))).parent
HOUR_MS = 3_600_000


@contextlib.asynccontextmanager
async def hosted(engine: str = "echo", **settings: Any) -> AsyncIterator[HostedEngine]:
    options = {name: settings.pop(name) for name in ("restarts", "hang_s") if name in settings}
    made = HostedEngine(engine, settings, care=Care(**{"restarts": SOON, **options}))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[HostedEngine]:
    """One process for all tests of the contract: a start takes half a second."""
    async with hosted() as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow_engine() -> AsyncIterator[HostedEngine]:
    async with hosted(latency_ms=HOUR_MS, slots=3) as engine:
        yield engine


@pytest.mark.asyncio(loop_scope="module")
class TestHostedEcho(EngineContract):
    """The echo engine, one process away."""


def is_there(pid: int | None) -> bool:
    return pid is not None and psutil.pid_exists(pid)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def pid_of(engine: HostedEngine) -> int:
    assert engine.pid is not None
    return engine.pid


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGSEGV, marks=pytest.mark.slow),
        pytest.param(signal.SIGABRT, marks=pytest.mark.slow),
    ],
)
async def test_a_death_in_the_middle_of_a_crowd_hangs_nobody(how: signal.Signals) -> None:
    async with hosted(latency_ms=HOUR_MS) as engine:
        first = pid_of(engine)
        tasks = [
            asyncio.create_task(engine.generate(ask(engine, f"r{n}", str(n)))) for n in range(200)
        ]
        await until(lambda: engine.stats().waiting == 200 - 16)
        os.kill(first, how)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {EngineUnavailable}
        assert engine.stats().requests["engine-unavailable"] == 200
        await until(lambda: engine.stats().state == "up")
        assert engine.pid != first
        assert engine.stats().restarts == 1
        assert engine.capacity().free_slots == engine.capacity().slots == 16


async def test_while_the_process_is_away_there_is_no_room_and_nobody_gets_in() -> None:
    later = RestartPolicy(first_s=1000.0, most_s=1000.0)
    async with hosted(restarts=later) as engine:
        with capture_logs() as logs:
            os.kill(pid_of(engine), signal.SIGKILL)
            await until(lambda: engine.stats().state != "up")
        assert engine.capacity().slots == engine.capacity().free_slots == 0
        with pytest.raises(EngineUnavailable, match="killed"):
            await engine.generate(ask(engine, "a"))
        with pytest.raises(EngineUnavailable):
            await engine.score(ask(engine, "a").prompt, (1,), ask(engine, "a").sampling)
        assert engine.pid is None
        assert [line["event"] for line in logs] == ["engine_process_ended"]
    assert engine.stats().state == "stopped"


@pytest.mark.slow  # starts several processes
async def test_one_that_keeps_dying_is_told_as_failing_and_comes_back() -> None:
    policy = RestartPolicy(first_s=0.0, most_s=0.0, failures=2, slow_s=0.5)
    async with hosted(restarts=policy) as engine:
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(lambda: engine.stats().restarts == 1 and engine.stats().state == "up")
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(lambda: engine.stats().state == "failing")
        await until(lambda: engine.stats().state == "up")
        assert (await engine.generate(ask(engine, "a"))).token_ids


async def test_a_process_that_does_not_answer_is_killed_and_started_again() -> None:
    async with hosted(hang_s=1.5) as engine:
        first = pid_of(engine)
        task = asyncio.create_task(engine.generate(ask(engine, "a")))
        os.kill(first, signal.SIGSTOP)
        await asyncio.wait((task,))
        await until(lambda: engine.stats().restarts >= 1 and engine.stats().state == "up")
        assert not is_there(first)
        assert (await engine.generate(ask(engine, "b"))).token_ids


async def test_signals_of_a_terminal_do_not_reach_it_and_stop_ends_it() -> None:
    async with hosted() as engine:
        pid = pid_of(engine)
        assert os.getpgid(pid) != os.getpgid(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert (await engine.generate(ask(engine, "a"))).token_ids
        await engine.stop()
        assert not is_there(pid)
        assert engine.stats().restarts == 0


async def test_starting_twice_at_once_makes_one_process() -> None:
    before, engine = children(), HostedEngine("echo", {})
    await asyncio.gather(engine.start(), engine.start())
    assert children() - before == {engine.pid}
    await engine.stop()
    assert children() == before


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    engine = HostedEngine("echo", {})
    start = asyncio.create_task(engine.start())
    await until(lambda: engine.pid is not None)
    pid = pid_of(engine)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not is_there(pid)


async def test_what_the_start_says_is_said_here() -> None:
    with pytest.raises(EngineError, match="no engine called 'parrot'"):
        await HostedEngine("parrot", {}).start()
    with pytest.raises(ModelNotFound, match="no model folder"):
        await HostedEngine("transformers", {"name": "/nowhere/at/all"}).start()
    with pytest.raises(EngineError, match="cannot be started"):
        await HostedEngine("echo", {}, care=Care(command=("/no/such/program",))).start()
    command = (sys.executable, "-c", "import os; os._exit(7)")
    with pytest.raises(EngineError, match=r"ended while it started: .*status 7"):
        await HostedEngine("echo", {}, care=Care(command=command)).start()


async def test_nonsense_on_the_wire_ends_the_process_and_not_us() -> None:
    code = "import socket, sys; socket.socket(fileno=int(sys.argv[-1])).sendall(b'x' * 99)"
    with pytest.raises(EngineError, match="while it started: A message of"):
        await HostedEngine("echo", {}, care=Care(command=(sys.executable, "-c", code))).start()


STUCK = """
from model import host
from model.echo import EchoEngine
from dataclasses import replace

class Stuck(EchoEngine):
    "Counts no steps although it has work."
    def stats(self):
        return replace(super().stats(), steps=7)

host.build_engine = lambda name, **settings: Stuck(**settings)
host.main()
"""


@pytest.mark.slow  # starts several processes
async def test_a_model_that_stands_still_with_work_is_killed() -> None:
    command = (sys.executable, "-c", textwrap.dedent(STUCK))
    care = Care(hang_s=1.5, restarts=SOON, command=command)
    engine = HostedEngine("echo", {"latency_ms": HOUR_MS}, care=care)
    await engine.start()
    with capture_logs() as logs, pytest.raises(EngineUnavailable, match="stands still"):
        await engine.generate(ask(engine, "a"))
    assert "its model stands still" in {line.get("why") for line in logs}
    await engine.stop()


DYING = """
import os, sys
from model import host

if os.path.exists(sys.argv[1]):
    sys.exit(7)
host.main()
"""


async def test_starts_that_fail_slowly_are_told_as_failing(tmp_path: Path) -> None:
    """Each takes longer than the window in which failures count."""
    gone = tmp_path / "gone"
    policy = RestartPolicy(first_s=0.0, most_s=0.0, failures=3, window_s=0.01, slow_s=3600.0)
    command = (sys.executable, "-c", textwrap.dedent(DYING), str(gone))
    engine = HostedEngine("echo", {}, care=Care(restarts=policy, command=command))
    await engine.start()
    gone.touch()
    os.kill(pid_of(engine), signal.SIGKILL)
    await until(lambda: engine.stats().state == "failing")
    await engine.stop()


async def test_a_fault_of_ours_leaves_no_engine_without_its_keeper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with hosted() as engine:
        keeper, faults = engine._keeper, iter([KeyError("up"), None])

        async def up(ready: Ready) -> None:
            if fault := next(faults, None):
                raise fault
            await engine._up(ready)

        monkeypatch.setattr(keeper, "_up", up)
        with capture_logs() as logs:
            os.kill(pid_of(engine), signal.SIGKILL)
            await until(lambda: engine.stats().restarts == 1 and engine.stats().state == "up")
        whys = [line["why"] for line in logs if line["event"] == "engine_process_failed_to_start"]
        assert whys == ["a KeyError here"]

        monkeypatch.setattr(keeper, "_at_work", lambda: 1 / 0)
        await until(lambda: engine.stats().restarts == 2)
        monkeypatch.setattr(keeper, "_at_work", lambda: False)
        await until(lambda: engine.stats().state == "up")
        assert (await engine.generate(ask(engine, "a"))).token_ids


def test_the_patience_with_a_restart_is_bounded() -> None:
    keeper = HostedEngine("echo", {})._keeper
    assert keeper._patience_s is None  # the first start may have gigabytes to fetch
    for took, patience in ((1.0, 120.0), (100.0, 200.0), (7200.0, LONGEST_RESTART_S)):
        keeper._took_s = took
        assert keeper._patience_s == patience


OWNER = """
import asyncio, sys, time
from model.hosted.engine import HostedEngine

async def main():
    engine = HostedEngine("echo", {})
    await engine.start()
    print(engine.pid, flush=True)
    time.sleep(3600)  # even the loop stands still

asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_with_its_owner_whatever_it_is_doing(stopped: bool) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    if stopped:  # it cannot see that the connection is closed; the kernel ends it
        child.suspend()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    child.wait(timeout=60)
    assert not child.is_running()


def test_our_side_loads_no_torch() -> None:
    code = """
    import asyncio, sys
    from model.hosted.engine import HostedEngine
    from model.engine import ChatMessage, GenerationRequest, Part, Sampling

    async def main():
        engine = HostedEngine("echo", {})
        await engine.start()
        prompt = engine.tokenizer.encode_chat([ChatMessage("user", (Part("hi"),))])
        await engine.generate(GenerationRequest("a", prompt, Sampling()))
        await engine.stop()

    asyncio.run(main())
    assert not {"torch", "transformers", "numpy"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert done.returncode == 0


POISON = """
import os
from model import host
from model.echo import EchoEngine

class Brittle(EchoEngine):
    "Dies of a certain prompt."
    def _submit(self, request):
        if b"poison" in bytes(i % 256 for i in request.prompt.token_ids):
            os.kill(os.getpid(), 11)
        return super()._submit(request)

host.build_engine = lambda name, **settings: Brittle(**settings)
host.main()
"""


@pytest.mark.slow  # starts several processes
async def test_a_prompt_that_kills_the_process_harms_the_others_twice_and_then_only_itself() -> (
    None
):
    """As a worker would: each request is made again until it is answered or has had five tries."""
    command = (sys.executable, "-c", textwrap.dedent(POISON))
    engine = HostedEngine("echo", {"latency_ms": 50}, care=Care(restarts=SOON, command=command))
    await engine.start()
    tries: dict[str, int] = {}

    async def one(name: str) -> bool:
        for _ in range(5):
            tries[name] = tries.get(name, 0) + 1
            await until(lambda: engine.stats().state == "up")
            with contextlib.suppress(EngineUnavailable):
                return bool((await engine.generate(ask(engine, name, name))).token_ids)
        return False

    names = ["poison", *(f"good {n}" for n in range(20))]
    ends = dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
    assert [name for name, answered in ends.items() if not answered] == ["poison"]
    assert tries["poison"] == 5
    assert max(count for name, count in tries.items() if name != "poison") <= 3
    await engine.stop()


RAISING = """
from model import host
from model.echo import EchoEngine
from model.engine import StepFailed

class Fragile(EchoEngine):
    "A step that has a certain prompt raises, and with it all requests that are there."
    def __init__(self, **settings):
        super().__init__(**settings)
        self.here = []
        self.broken = 0
    async def generate(self, request):
        self.here.append(request)
        try:
            broken = self.broken
            bad = any(b"poison" in bytes(i % 256 for i in r.prompt.token_ids) for r in self.here)
            self.broken += bad
            made = await super().generate(request)
            if bad or self.broken != broken:
                raise StepFailed("The engine's step failed: ValueError.")
            return made
        finally:
            self.here.remove(request)

host.build_engine = lambda name, **settings: Fragile(**settings)
host.main()
"""


async def test_a_prompt_at_which_steps_raise_harms_the_others_twice_and_then_only_itself() -> None:
    command = (sys.executable, "-c", textwrap.dedent(RAISING))
    engine = HostedEngine("echo", {"latency_ms": 20}, care=Care(command=command))
    await engine.start()
    for attempt in range(4):
        names = ["poison", *(f"good {n}" for n in range(5))]
        asked = (engine.generate(ask(engine, name, name)) for name in names)
        poison, *good = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(poison, StepFailed)
        assert any(isinstance(end, StepFailed) for end in good) == (attempt < 2)
    assert engine.stats().restarts == 0
    await engine.stop()


@pytest.mark.slow  # starts several processes
async def test_a_new_process_that_never_gets_ready_is_not_waited_for(tmp_path: Path) -> None:
    flag = tmp_path / "stuck"
    code = f"""
    import os, time
    while os.path.exists({str(flag)!r}):
        time.sleep(0.01)
    from model import host
    host.main()
    """
    command = (sys.executable, "-c", textwrap.dedent(code))
    engine = HostedEngine("echo", {}, care=Care(restarts=SOON, restart_s=0.1, command=command))
    await engine.start()
    flag.touch()
    with capture_logs() as logs:
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(lambda: "engine_process_failed_to_start" in {line["event"] for line in logs})
    flag.unlink()
    await until(lambda: engine.stats().state == "up")
    assert (await engine.generate(ask(engine, "a"))).token_ids
    await engine.stop()
