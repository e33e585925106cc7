from typing import Any

import pytest
from pydantic import ValidationError

from schemas.feed import Visibility
from schemas.replies import ActivityState, DirectActivity, ReplyCorrected, ReplyCreated
from tests.schemas.samples import CORRECTED, REPLY


def test_a_reply_is_labelled_as_automated_unless_it_says_otherwise() -> None:
    assert ReplyCreated.model_validate(REPLY).labels == ("automated",)
    assert ReplyCorrected.model_validate(CORRECTED).labels == ("automated",)
    assert ReplyCreated.model_validate({**REPLY, "labels": []}).labels == ()


def test_the_visibility_of_a_reply_is_one_of_four() -> None:
    assert ReplyCreated.model_validate(REPLY).visibility is Visibility.PUBLIC
    with pytest.raises(ValidationError):
        ReplyCreated.model_validate({**REPLY, "visibility": "circle"})


@pytest.mark.parametrize(
    "changed",
    [{"part": 0}, {"part": 2}, {"parts": 0}, {"hops": 256}, {"part": "1"}, {"root": None}],
)
def test_a_wrong_reply_is_an_error(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReplyCreated.model_validate({**REPLY, **changed})


def test_facets_of_a_reply_are_checked_against_its_text() -> None:
    link = {"type": "link", "url": "https://a.example", "byte_start": 0, "byte_end": 5}
    beyond = {**link, "byte_end": 6}
    reply = ReplyCreated.model_validate({**REPLY, "text": "hello", "facets": [link, beyond]})
    assert [facet.byte_end for facet in reply.facets] == [5]


def test_activity_may_lack_its_text() -> None:
    activity = DirectActivity(conversation_id="c", decision_id="d", state=ActivityState.TYPING)
    assert activity.text is None
