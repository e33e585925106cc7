import re

import pytest

from schemas.codes import ErrorCode, Outcome, SkipReason

MEMBERS = [*ErrorCode, *SkipReason]


@pytest.mark.parametrize("member", [*MEMBERS, *Outcome])
def test_every_member_says_what_it_means(member: ErrorCode) -> None:
    assert re.fullmatch(r"\S.{10,}\.", member.meaning)


@pytest.mark.parametrize("member", MEMBERS)
def test_codes_are_words_joined_by_hyphens(member: ErrorCode) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", member.value)
    assert str(member) == member == member.value


def test_members_are_found_by_their_value() -> None:
    assert ErrorCode("not-json") is ErrorCode.NOT_JSON
    assert SkipReason("own-post") is SkipReason.OWN_POST


def test_reasons_and_outcomes_are_those_of_the_contract() -> None:
    assert {r.value for r in SkipReason} >= {
        "own-post",
        "duplicate",
        "edited",
        "not-addressed",
        "too-old",
        "quota",
        "opted-out",
        "blocked",
        "visibility",
        "loop",
        "deleted",
        "stopped",
        "no-answer",
    }
    assert {o.value for o in Outcome} == {
        "replied",
        "skipped",
        "dead_lettered",
        "corrected",
        "retracted",
    }


def test_a_reason_never_reads_like_an_error_code() -> None:
    assert not {r.value for r in SkipReason} & {c.value for c in ErrorCode}
