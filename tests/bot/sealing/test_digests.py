"""A digest sees every byte, but not whether texts were erased."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from bot.sealing.digests import digest_and_state, digest_of, erase
from schemas.audit import TEXTS, DecisionRecorded
from schemas.record import Record
from tests.bot.sealing.made import decision

# Members that hold no text of anybody: ids, numbers, names of ours, and words of our own code.
NO_TEXTS = {
    "decision_id", "outcome", "reason", "duplicate_of", "input.topic", "input.partition",
    "input.offset", "input.source", "input.id", "input.timestamp_ms", "input.redrive_of",
    "source_ref.uri", "source_ref.revision", "conversation_id", "reply_ids", "context[].ref.uri",
    "context[].ref.revision", "context[].author_id", "context[].trust", "context[].included",
    "context[].why", "prompt.template", "prompt.template_hash", "prompt.messages[].role",
    "prompt.messages[].ref.uri", "prompt.messages[].ref.revision", "prompt.messages[].trust",
    "prompt.segments[].start", "prompt.segments[].end", "prompt.segments[].trust", "engine.name",
    "engine.model", "engine.revision", "engine.weights_digest", "engine.precision",
    "engine.attention", "engine.versions", "engine.adapter", "engine.adapter_digest",
    "engine.context_length", "sampling.temperature", "sampling.top_k", "sampling.top_p",
    "sampling.min_p", "sampling.repetition_penalty", "sampling.max_tokens", "sampling.stop",
    "sampling.seed", "output.finish_reason", "rules[].name", "rules[].verdict", "rules[].detail",
    "positions", "timings_ms", "code_version", "settings_digest", "recorded_at", "salt",
    # What moderators command, and why they say they do, is to stand for good.
    "moderation.id", "moderation.command", "moderation.subject", "moderation.reason",
    "moderation.moderator",
}  # fmt: skip


def leaves(schema: dict[str, object], models: dict[str, dict[str, object]], path: str) -> set[str]:
    """Dotted paths of all members, ``[]`` for the items of a list of objects."""
    for option in schema.get("anyOf", []):  # type: ignore[attr-defined]
        if option.get("type") != "null":
            schema = option
    if "$ref" in schema:
        schema = models[str(schema["$ref"]).rpartition("/")[2]]
    if "properties" in schema:
        properties: dict[str, dict[str, object]] = schema["properties"]  # type: ignore[assignment]
        return {
            leaf
            for name, below in properties.items()
            for leaf in leaves(below, models, f"{path}.{name}" if path else name)
        }
    if schema.get("type") == "array" and "$ref" in (items := schema["items"]):  # type: ignore[operator]
        return leaves(items, models, f"{path}[]")  # type: ignore[arg-type]
    return {path}


def test_every_member_is_known_to_hold_text_or_none() -> None:
    """A new one goes to ``TEXTS``, or to the list above if no word of anybody can be in it."""
    model: type[BaseModel] = DecisionRecorded
    schema = model.model_json_schema()
    there = leaves(schema, schema["$defs"], "")
    assert set(TEXTS) <= there <= NO_TEXTS | set(TEXTS)
    assert not NO_TEXTS & set(TEXTS)


@given(st.data())
def test_any_changed_byte_changes_the_digest(data: st.DataObject) -> None:
    record = decision(7)
    assert record.value is not None
    at = data.draw(st.integers(0, len(record.value) - 1))
    byte = (record.value[at] + data.draw(st.integers(1, 255))) % 256
    changed = record.value[:at] + bytes([byte]) + record.value[at + 1 :]
    assert digest_of(replace(record, value=changed)) != digest_of(record)


@pytest.mark.parametrize(
    "changed",
    [
        {"topic": "bot.audit-private"},
        {"partition": 2},
        {"offset": 8},
        {"timestamp_ms": 1},
        {"key": None},
        {"key": b""},
        {"key": b"conv:2"},
        {"value": None},
        {"headers": ()},
        {"headers": (("a", None),)},
        {"headers": (("a", b""),)},
        {"headers": (("\udcff", b""),)},
    ],
)
def test_everything_around_the_value_counts(changed: dict[str, Any]) -> None:
    record = decision(7)
    assert digest_of(replace(record, **changed)) != digest_of(record)


def test_an_erased_record_has_the_digest_that_it_had_and_no_text() -> None:
    record = decision(7, 'a secret \\ " { word')
    erased = erase(record)
    assert erased.value is not None
    assert digest_and_state(erased) == (digest_of(record), True)
    assert digest_and_state(record)[1] is False
    assert erase(erased) == erased
    data = json.loads(erased.value)
    assert data["salt"] is None
    assert b"secret" not in erased.value
    shown = [data["prompt"]["messages"][0]["content"], data["prompt"]["token_ids"], data["output"]]
    assert [list(one)[:1] for one in shown[:2]] == [["erased"], ["erased"]]
    assert all(list(data["output"][name]) == ["erased"] for name in ("text", "token_ids"))
    assert data["outcome"] == "replied"


def test_another_digest_in_place_of_a_text_is_another_record() -> None:
    erased = erase(decision(7))
    assert erased.value is not None
    mark = erased.value.index(b'{"erased":"') + len(b'{"erased":"')
    other = b"0" if erased.value[mark : mark + 1] != b"0" else b"1"
    value = erased.value[:mark] + other + erased.value[mark + 1 :]
    assert digest_of(replace(erased, value=value)) != digest_of(erased)


def test_the_salt_is_what_keeps_texts_from_being_guessed() -> None:
    one, other = erase(decision(7, salt="00")), erase(decision(7, salt="01"))
    assert one.value != other.value


@given(st.none() | st.binary() | st.from_regex(rb"[ \[\]{}:,\"a0nsalt]*"))
def test_any_bytes_have_a_digest_and_erasing_keeps_it(value: bytes | None) -> None:
    record = replace(decision(7), value=value)
    assert digest_of(erase(record)) == digest_of(record)


@pytest.mark.parametrize(
    "value",
    [
        b'{"prompt":"text","output":[1],"salt":{"a":1}}',
        b'{"prompt":{"messages":{"content":"x"}},"output":null}',
        b'{"output":{"text":"a"},"output":{"text":"b"}}',
        b'{"prompt":{"messages":["x",{"content":"y"}]}} ',
        b"[" * 100_000,
        b'{"a":' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_odd_values_lose_no_digest_by_erasing(value: bytes) -> None:
    record = Record("bot.audit", 0, 0, 0, None, value)
    erased = erase(record)
    assert digest_of(erased) == digest_of(record)
    assert digest_of(replace(record, value=value + b" ")) != digest_of(record)
