"""How long property tests look for a counter-example.

The plain run is quick and looks elsewhere each time; CI looks longer, always at the same. None
has a deadline: a machine that others use as well would break it.
"""

import os

from hypothesis import HealthCheck, settings

_IN_CI = bool(os.environ.get("CI"))
_QUICK_SHARE = 6  # the plain run looks at one of so many
_QUICK_LEAST = 20
_OF_TIME = HealthCheck.too_slow


def load_profile() -> None:
    """For tests that do not say how many examples they look at."""
    profile = settings(
        max_examples=_number(100),
        derandomize=_IN_CI,
        deadline=None,
        suppress_health_check=[_OF_TIME],
    )
    settings.register_profile("twite", profile)
    settings.load_profile("twite")


def examples(in_ci: int, *suppressed: HealthCheck) -> settings:
    """A decorator: look at so many examples in CI, and at fewer in the plain run."""
    return settings(max_examples=_number(in_ci), suppress_health_check=[_OF_TIME, *suppressed])


def _number(in_ci: int) -> int:
    return in_ci if _IN_CI else max(in_ci // _QUICK_SHARE, _QUICK_LEAST)
