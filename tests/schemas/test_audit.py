from typing import Any

import pytest
from pydantic import ValidationError

from schemas.audit import DecisionRecorded
from schemas.codes import Outcome
from tests.schemas.samples import DECISION, TIME


def test_a_decision_on_unreadable_bytes_needs_no_more_than_where_they_stand() -> None:
    decision = DecisionRecorded.model_validate(
        {
            "decision_id": "d",
            "outcome": "dead_lettered",
            "reason": "not-json",
            "input": {"topic": "feed.mentions", "partition": 0, "offset": 0},
            "code_version": "0",
            "settings_digest": "0",
            "recorded_at": TIME,
        }
    )
    assert decision.outcome is Outcome.DEAD_LETTERED
    assert (decision.input.source, decision.prompt, decision.reply_ids) == (None, None, ())


@pytest.mark.parametrize(
    "changed",
    [
        {"outcome": "lost"},
        {"input": {"topic": "t", "partition": -1, "offset": 0}},
        {"positions": {"posts": "12"}},
        {"timings_ms": {"model": float("nan")}},
        {"recorded_at": "yesterday"},
    ],
)
def test_a_wrong_decision_is_an_error(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DecisionRecorded.model_validate({**DECISION, **changed})


def test_log_probabilities_are_numbers() -> None:
    output = {**DECISION["output"], "logprobs": [float("-inf")]}
    with pytest.raises(ValidationError):
        DecisionRecorded.model_validate({**DECISION, "output": output})
