import json
import uuid

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import NAMESPACE, decision_id, reply_id

DECISION = "57705b88-d3a7-5194-9175-f2c086cd7e7a"
REPLY = "ba9ddf50-354f-5935-b203-3dd2891a6f35"

Parts = tuple[str, str, str, int]


def test_ids_are_the_same_for_ever() -> None:
    assert str(NAMESPACE) == "6f0c8a52-3d1e-5b7a-9c44-7477697465b0"
    assert decision_id("bot", "cluster", "feed.mentions", 3, 17) == DECISION
    assert reply_id("bot", "post:é", "r1", 1) == REPLY


def test_ids_are_what_anybody_can_compute_from_the_contract() -> None:
    name = '["bot","cluster","feed.mentions",3,17]'
    assert decision_id("bot", "cluster", "feed.mentions", 3, 17) == str(uuid.uuid5(NAMESPACE, name))
    name = '["bot","post:é","r1",1]'
    assert reply_id("bot", "post:é", "r1", 1) == str(uuid.uuid5(NAMESPACE, name))


PARTS = st.tuples(st.text(), st.text(), st.text(), st.integers(1, 3))


@given(PARTS)
def test_ids_are_uuids_of_version_5(parts: Parts) -> None:
    name = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    assert reply_id(*parts) == str(uuid.uuid5(NAMESPACE, name))


@given(PARTS, PARTS)
def test_other_parts_give_another_id(one: Parts, other: Parts) -> None:
    ids = [reply_id(*parts) for parts in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
