import contextlib
import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.codec import SHORT, decode, encode, is_tombstone
from schemas.codes import ErrorCode
from schemas.envelope import Event
from schemas.faults import Undecodable
from schemas.feed import MentionCreated
from schemas.names import (
    ACCOUNT_CHANGED,
    DECISION_RECORDED,
    FEEDBACK_GIVEN,
    MENTION_CREATED,
    MESSAGE_CREATED,
    MODERATION_COMMANDED,
    POST_CREATED,
    REPLY_CREATED,
)
from schemas.record import Output, Record
from schemas.topics import MAX_VALUE_BYTES, TOPICS
from schemas.types import EVENT_TYPES
from tests.examples import examples
from tests.schemas.samples import DECISION, SAMPLES, headers, record, sample

SECRET = "S3CRET"


def refused(given_record: Record) -> Undecodable:
    with pytest.raises(Undecodable) as error:
        decode(given_record)
    return error.value


def back(output: Output) -> Record:
    return record(
        POST_CREATED,
        topic=output.topic,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


def with_member(name: str, raw: bytes) -> bytes:
    """A right mention with one more member, written as it stands."""
    value = json.dumps(SAMPLES[MENTION_CREATED]).encode()
    return value[:-1] + b',"' + name.encode() + b'":' + raw + b"}"


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_event_comes_back_from_its_own_bytes(name: str) -> None:
    event = decode(record(name))
    assert type(event.data) is EVENT_TYPES[name].model
    for topic in EVENT_TYPES[name].topics:
        output = encode(topic, record(name).key, event.envelope, event.data)
        assert decode(back(output)) == event
        assert encode(topic, output.key, event.envelope, event.data) == output


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_unknown_members_change_nothing(name: str) -> None:
    assert decode(record(name, {**SAMPLES[name], "unknown": {"a": [1]}})) == decode(record(name))


def test_of_a_doubled_member_the_last_wins() -> None:
    last = decode(record(MENTION_CREATED, value=with_member("reason", b'"quote"')))
    assert last.data.reason == "quote"


CASES: dict[str, tuple[ErrorCode, dict[str, Any]]] = {
    "null": (ErrorCode.NO_VALUE, {"value": None}),
    "null and no headers": (ErrorCode.NO_VALUE, {"value": None, "headers": ()}),
    "null on an unknown topic": (ErrorCode.NO_VALUE, {"value": None, "topic": "x"}),
    "null on a compacted topic": (ErrorCode.TOMBSTONE, {"value": None, "topic": "feed.accounts"}),
    "too large": (ErrorCode.TOO_LARGE, {"value": b" " * (MAX_VALUE_BYTES + 1), "headers": ()}),
    "no headers": (ErrorCode.HEADER_MISSING, {"headers": ()}),
    "doubled": (ErrorCode.HEADER_DOUBLED, {"headers": headers(MENTION_CREATED) * 2}),
    "long header": (
        ErrorCode.HEADER_TOO_LARGE,
        {"headers": headers(MENTION_CREATED, ce_id=b"a" * 9000)},
    ),
    "bad header": (
        ErrorCode.HEADER_ENCODING,
        {"headers": headers(MENTION_CREATED, ce_source=b"\xff")},
    ),
    "old spec": (
        ErrorCode.UNSUPPORTED_SPECVERSION,
        {"headers": headers(MENTION_CREATED, ce_specversion=b"0.3")},
    ),
    "xml": (
        ErrorCode.UNSUPPORTED_CONTENT_TYPE,
        {"headers": headers(MENTION_CREATED, content_type=b"text/xml")},
    ),
    "year 0": (
        ErrorCode.HEADER_VALUE,
        {"headers": headers(MENTION_CREATED, ce_time=b"0000-01-01T00:00:00Z")},
    ),
    "other version": (
        ErrorCode.UNSUPPORTED_VERSION,
        {"headers": headers("twite.feed.mention.created.v2")},
    ),
    "unknown type": (ErrorCode.UNKNOWN_TYPE, {"headers": headers("nobody.knows.this")}),
    "type of another topic": (ErrorCode.WRONG_TOPIC, {"headers": headers(MESSAGE_CREATED)}),
    "topic of nobody": (ErrorCode.WRONG_TOPIC, {"topic": "x"}),
    "topic of dead letters": (ErrorCode.WRONG_TOPIC, {"topic": "bot.dead-letters"}),
    "bad utf-8": (ErrorCode.VALUE_ENCODING, {"value": b"\xff"}),
    "bom": (ErrorCode.BYTE_ORDER_MARK, {"value": b"\xef\xbb\xbf{}"}),
    "deep": (ErrorCode.TOO_DEEP, {"value": b"[" * 10_000}),
    "deep elsewhere": (
        ErrorCode.TOO_DEEP,
        {"value": with_member("x", b"[" * 10_000 + b"]" * 10_000)},
    ),
    "empty": (ErrorCode.NOT_JSON, {"value": b""}),
    "garbage": (ErrorCode.NOT_JSON, {"value": b"\x00\x01garbage"}),
    "nan": (ErrorCode.NOT_A_NUMBER, {"value": with_member("x", b"NaN")}),
    "5,000 digits": (ErrorCode.NUMBER_TOO_LARGE, {"value": with_member("x", b"1" * 5000)}),
    "1e999": (ErrorCode.NUMBER_TOO_LARGE, {"value": with_member("x", b"1e999")}),
    "surrogate": (ErrorCode.LONE_SURROGATE, {"value": with_member("x", rb'"\ud800"')}),
    "surrogate name": (ErrorCode.LONE_SURROGATE, {"value": with_member(r"\udfff", b"1")}),
    "no object": (ErrorCode.SCHEMA, {"value": b"[]"}),
    "nothing in it": (ErrorCode.SCHEMA, {"value": b"{}"}),
    "wrong type": (ErrorCode.SCHEMA, {"value": with_member("post", b"[1]")}),
    "null key": (ErrorCode.KEY_MISMATCH, {"key": None}),
    "bad key": (ErrorCode.KEY_MISMATCH, {"key": b"\xff"}),
    "other key": (ErrorCode.KEY_MISMATCH, {"key": b"conv:2"}),
    "empty key": (ErrorCode.KEY_MISMATCH, {"key": b""}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_fault_has_its_code(case: str) -> None:
    expected, changed = CASES[case]
    error = refused(record(MENTION_CREATED, **changed))
    assert error.code is expected
    assert 5 < len(error.detail) < 200


def test_every_code_of_the_codec_is_shown() -> None:
    of_the_runtime = {
        ErrorCode.RETRIES_EXHAUSTED,
        ErrorCode.DEADLINE,
        ErrorCode.OUTPUT_TOO_LARGE,
        ErrorCode.HANDLER_ERROR,
    }
    assert {expected for expected, _ in CASES.values()} == set(ErrorCode) - of_the_runtime


def test_of_two_faults_the_one_that_is_checked_first_gives_the_code() -> None:
    order = list(ErrorCode)
    singles: dict[ErrorCode, dict[str, Any]] = {
        ErrorCode.TOO_LARGE: {"value": b"[" * (MAX_VALUE_BYTES + 1)},
        ErrorCode.UNKNOWN_TYPE: {"headers": headers("nobody.knows.this")},
        ErrorCode.WRONG_TOPIC: {"topic": "feed.posts"},
        ErrorCode.NOT_JSON: {"value": b"{"},
        ErrorCode.KEY_MISMATCH: {"key": None},
    }
    for one, changed in singles.items():
        for other, also in singles.items():
            first = min(one, other, key=order.index)
            if not changed.keys() & also.keys():
                assert refused(record(MENTION_CREATED, **changed, **also)).code is first


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("post", "version"), "1"),
        (("post", "version"), 1.0),
        (("post", "version"), True),
        (("post", "text"), 1),
        (("post", "author", "bot"), 1),
        (("post", "created_at"), "0000-01-01T00:00:00Z"),
        (("post", "hops"), 256),
        (("post", "uri"), ""),
        (("ancestors",), [SAMPLES[MENTION_CREATED]["post"]] * 101),
        (("mentioned_account_id",), None),
    ],
)
def test_a_wrong_value_anywhere_names_its_place(place: tuple[str, ...], value: Any) -> None:
    data = sample(MENTION_CREATED)
    inner = data
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    error = refused(record(MENTION_CREATED, data))
    assert (error.code, error.detail.split(":")[0]) == (ErrorCode.SCHEMA, ".".join(place))


def test_what_was_decoded_lately_is_checked_anew_where_anything_else_differs() -> None:
    right = record(MENTION_CREATED)
    assert decode(right) is decode(dataclasses.replace(right, partition=1, offset=99))
    assert refused(record(MENTION_CREATED, key=b"another")).code is ErrorCode.KEY_MISMATCH
    assert refused(record(MENTION_CREATED, topic="feed.posts")).code is ErrorCode.WRONG_TOPIC
    assert refused(record(MENTION_CREATED, headers=())).code is ErrorCode.HEADER_MISSING


def test_large_events_are_not_kept() -> None:
    large = record(MENTION_CREATED, value=with_member("x", b'"%s"' % (b"x" * SHORT)))
    assert decode(large) == decode(record(MENTION_CREATED))
    assert decode(large) is not decode(large)


def test_the_value_may_have_exactly_1_mib() -> None:
    right = json.dumps(SAMPLES[MENTION_CREATED]).encode()
    full = right + b" " * (MAX_VALUE_BYTES - len(right))
    assert decode(record(MENTION_CREATED, value=full)) == decode(record(MENTION_CREATED))


def test_keys_follow_what_the_topic_is_keyed_by() -> None:
    assert refused(record(ACCOUNT_CHANGED, key=b"conv:1")).code is ErrorCode.KEY_MISMATCH
    assert refused(record(MODERATION_COMMANDED, key=b"conv:1")).code is ErrorCode.KEY_MISMATCH
    assert decode(record(FEEDBACK_GIVEN, key=b"any conversation")).data.kind == "like"
    for key in (None, b"", b"\xff", b"a\n"):
        assert refused(record(FEEDBACK_GIVEN, key=key)).code is ErrorCode.KEY_MISMATCH


@pytest.mark.parametrize("key", [None, b"\xff", b"conv:1"])
def test_a_decision_without_conversation_takes_the_key_of_its_source(key: bytes | None) -> None:
    event = decode(record(DECISION_RECORDED, {**DECISION, "conversation_id": None}, key=key))
    assert encode("bot.audit", key, event.envelope, event.data).key == key
    assert refused(record(DECISION_RECORDED, key=b"other")).code is ErrorCode.KEY_MISMATCH


def test_a_tombstone_is_told_from_a_missing_value() -> None:
    compacted = {n for n in TOPICS if is_tombstone(record(POST_CREATED, value=None, topic=n))}
    assert compacted == {"feed.accounts", "bot.moderation"}
    assert not is_tombstone(record(ACCOUNT_CHANGED))
    assert not is_tombstone(record(ACCOUNT_CHANGED, value=None, topic="unknown"))


def test_a_fault_says_whether_the_record_may_be_private() -> None:
    assert refused(record(MESSAGE_CREATED, key=None)).private
    assert not refused(record(MENTION_CREATED, key=None)).private
    assert refused(record(MENTION_CREATED, value=b"{")).private


def spoilt(node: Any) -> list[Any]:
    """Copies of a JSON value, each with the secret in one place where it does not belong."""
    found: list[Any] = [{SECRET: SECRET}, [SECRET]] if not isinstance(node, dict | list) else []
    for place in node if isinstance(node, dict) else range(len(node)) if found == [] else ():
        for inner in spoilt(node[place]):
            other = copy.copy(node)
            other[place] = inner
            found.append(other)
    return found


@pytest.mark.parametrize("name", [MENTION_CREATED, MESSAGE_CREATED, DECISION_RECORDED])
def test_no_fault_repeats_what_people_wrote(name: str) -> None:
    errors = [refused(record(name, data)) for data in spoilt(SAMPLES[name])]
    assert len(errors) > 40
    assert not [e for e in errors if SECRET in str(e) or SECRET in e.detail]
    assert all(error.__cause__ is None and error.__suppress_context__ for error in errors)


def test_a_fault_of_the_whole_payload_says_so() -> None:
    error = refused(record(REPLY_CREATED, {**SAMPLES[REPLY_CREATED], "part": 2}))
    assert error.detail == "data: part"


def test_the_name_of_a_member_in_a_mapping_is_not_repeated() -> None:
    error = refused(record(DECISION_RECORDED, {**DECISION, "positions": {SECRET: "1"}}))
    assert error.detail == "positions.?: int_type"


def test_text_around_broken_json_is_not_repeated() -> None:
    for tail in (b"\\x", b'"\x00', b"\\ud8", b"NaN", b"1" * 5000, b"\xff"):
        error = refused(record(MENTION_CREATED, value=b'{"' + SECRET.encode() + b'":"' + tail))
        assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("topic", "key", "name", "data"),
    [
        ("feed.mentions", "conv:2", MENTION_CREATED, MENTION_CREATED),
        ("feed.mentions", None, MENTION_CREATED, MENTION_CREATED),
        ("feed.mentions", "\ud800", MENTION_CREATED, MENTION_CREATED),
        ("feed.posts", "conv:1", MENTION_CREATED, MENTION_CREATED),
        ("nowhere", "conv:1", MENTION_CREATED, MENTION_CREATED),
        ("feed.mentions", "conv:1", MENTION_CREATED, POST_CREATED),
        ("feed.mentions", "conv:1", "unknown", MENTION_CREATED),
        ("feed.feedback", None, FEEDBACK_GIVEN, FEEDBACK_GIVEN),
    ],
)
def test_what_nobody_could_decode_is_never_encoded(
    topic: str, key: str | None, name: str, data: str
) -> None:
    event = decode(record(data))
    envelope = event.envelope.model_copy(update={"type": name})
    with pytest.raises(ValueError, match=r"may not stand on|the key is|surrogates not allowed"):
        encode(topic, key, envelope, event.data)


HEADER = st.tuples(
    st.sampled_from([*dict(headers(MENTION_CREATED)), "ce_subject", "other"]),
    st.binary(max_size=20) | st.sampled_from(list(dict(headers(MENTION_CREATED)).values())),
)
RECORDS = st.builds(
    Record,
    topic=st.sampled_from([*TOPICS, "unknown"]) | st.text(),
    partition=st.just(0),
    offset=st.just(0),
    timestamp_ms=st.integers(),
    key=st.none() | st.binary(max_size=10) | st.just(b"conv:1"),
    value=st.none() | st.binary() | st.just(record(MENTION_CREATED).value),
    headers=st.lists(HEADER).map(tuple) | st.sampled_from([headers(n) for n in EVENT_TYPES]),
)


@given(RECORDS)
@examples(300)
@example(record(MENTION_CREATED, value=b"[" * 900_000))
def test_whatever_arrives_it_is_an_event_or_undecodable(given_record: Record) -> None:
    ended: object
    try:
        ended = decode(given_record)
    except Undecodable as error:
        ended = error.code
    assert isinstance(ended, Event | ErrorCode)


@given(st.sampled_from(sorted(EVENT_TYPES)), st.data())
@examples(300)
def test_a_right_record_with_a_few_bytes_changed_is_an_event_or_undecodable(
    name: str, data: st.DataObject
) -> None:
    value = bytearray(record(name).value or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"]", b"\\ud800", b"9" * 400])
        )
        value = value or bytearray(b"{}")
    with contextlib.suppress(Undecodable):
        event = decode(record(name, value=bytes(value)))
        assert isinstance(event.data, EVENT_TYPES[name].model)
        output = encode(record(name).topic, record(name).key, event.envelope, event.data)
        assert decode(back(output)) == event


SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([])
)


@given(st.data(), SCALARS)
@examples(300)
def test_a_right_record_with_one_member_changed_is_an_event_or_undecodable(
    data: st.DataObject, value: Any
) -> None:
    name = data.draw(st.sampled_from(sorted(EVENT_TYPES)))
    payload = sample(name)
    inner: Any = payload
    while True:
        place = data.draw(st.sampled_from(sorted(inner)))
        if not isinstance(inner[place], dict) or not inner[place] or data.draw(st.booleans()):
            break
        inner = inner[place]
    inner[place] = value
    with contextlib.suppress(Undecodable):
        assert isinstance(decode(record(name, payload)).data, EVENT_TYPES[name].model)


def test_an_event_is_a_value() -> None:
    event = decode(record(MENTION_CREATED))
    assert isinstance(event.data, MentionCreated)
    with pytest.raises(AttributeError):
        event.data = None  # type: ignore[misc]
