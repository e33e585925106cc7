"""The suite itself (``pytest -m chaos``): a run under fire without a violation, and controls.

About eight minutes on two cores. The seed can be set with ``TWITE_CHAOS_SEED``; a failure
prints it.
"""

import os

import pytest

from tests.chaos.__main__ import summary
from tests.chaos.attacks import KINDS
from tests.chaos.controls import CONTROLS, hunt, is_caught
from tests.chaos.run import run
from tests.chaos.stage import Setting

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SEED = int(os.environ.get("TWITE_CHAOS_SEED", "1"))
MOST_MISSED = 10  # faults that may not come about, such as a step that nobody passes in time


async def test_nothing_is_lost_doubled_torn_or_out_of_order_under_fire() -> None:
    setting = Setting(seed=SEED, inputs=5000, faults=len(KINDS), seconds=130.0)
    result = await run(setting)
    told = "\n".join(summary(result))
    print(told)
    assert not result.violations, told
    assert result.fed == setting.inputs
    assert result.outcomes["corrected"] > 0
    assert result.outcomes["retracted"] > 0
    assert result.aborted > 0
    assert result.missed.total() <= MOST_MISSED, told


@pytest.mark.parametrize("flaw", CONTROLS)
async def test_a_planted_flaw_is_caught(flaw: str) -> None:
    result = await hunt(flaw, SEED)
    assert is_caught(flaw, result), "\n".join(summary(result))
