import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.codec import decode, encode
from schemas.codes import ErrorCode, Outcome, SkipReason
from schemas.dead_letters import REDRIVE_OF, RedriveMark, dead_letter, redrive_mark
from schemas.names import MENTION_CREATED
from schemas.publish import (
    DEAD_LETTER,
    PUBLISHED,
    REDRIVE_MARK,
    asyncapi,
    contract_page,
    documents,
    event_schemas,
    export,
)
from schemas.topics import TOPICS
from schemas.types import EVENT_TYPES
from tests.schemas.samples import SAMPLES, record, sample

DOCUMENT = asyncapi()


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for item in node for found in references(item)] if isinstance(node, list) else []


def at(pointer: str) -> Any:
    node: Any = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_schema_is_a_schema_that_its_samples_keep(name: str) -> None:
    schema = event_schemas()[name]
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(SAMPLES[name])
    event = decode(record(name))
    written = encode(EVENT_TYPES[name].topics[0], record(name).key, event.envelope, event.data)
    assert validator.is_valid(json.loads(written.value or b""))
    assert not validator.is_valid([])
    assert not validator.is_valid({})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("uri", ""),
        ("uri", "a\n"),
        ("uri", "a" * 513),
        ("created_at", "0000-01-01T00:00:00Z"),
        ("created_at", "2024-01-01T00:00:00+00:00"),
        ("hops", 256),
        ("version", 0),
        ("text", 1),
        ("langs", "en"),
        ("author", None),
    ],
)
def test_the_schema_refuses_what_the_models_refuse(place: str, value: Any) -> None:
    data = sample(MENTION_CREATED)
    data["post"][place] = value
    assert not Draft202012Validator(event_schemas()[MENTION_CREATED]).is_valid(data)


def test_what_is_committed_is_what_the_code_says() -> None:
    """If this fails: run ``twite schemas export schemas/published`` and look at the change."""
    committed = {
        str(path.relative_to(PUBLISHED)): path.read_text(encoding="utf-8")
        for path in PUBLISHED.rglob("*")
        if path.is_file() and path.parent.name != "released"
    }
    assert committed == documents()


def test_an_export_writes_every_document_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "0.json").write_text("{}")
    written = export(tmp_path / "deep")
    assert {str(p.relative_to(tmp_path / "deep")) for p in written} == set(documents())
    assert all(path.stat().st_size for path in written)
    export(tmp_path)
    assert (tmp_path / "released" / "0.json").read_text() == "{}"


def test_the_asyncapi_document_has_the_form_of_version_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for channel in DOCUMENT["channels"].values():
        assert channel["address"] == channel["bindings"]["kafka"]["topic"]
        configuration = channel["bindings"]["kafka"]["topicConfiguration"]
        assert configuration["cleanup.policy"] in (["delete"], ["compact"])
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert at(operation["channel"]["$ref"]) in DOCUMENT["channels"].values()
    for message in DOCUMENT["components"]["messages"].values():
        assert message["contentType"]
        assert message["headers"]["type"] == "object"
        assert message["bindings"]["kafka"]["key"]["type"] == "string"


def test_every_reference_of_the_document_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 40
    for reference in found:
        if reference.startswith("#"):
            assert at(reference)
        else:
            assert reference.removeprefix("./") in documents()


def test_channels_are_the_topics_with_their_types_and_twite_reads_or_writes_each() -> None:
    assert {name: set(channel["messages"]) for name, channel in DOCUMENT["channels"].items()} == {
        topic.name: {DEAD_LETTER, REDRIVE_MARK} if "dead" in topic.name else set(topic.types)
        for topic in TOPICS.values()
    }
    received = {n for n, o in DOCUMENT["operations"].items() if o["action"] == "receive"}
    assert received == {
        "receive-feed.posts",
        "receive-feed.mentions",
        "receive-feed.direct-messages",
        "receive-feed.accounts",
        "receive-feed.feedback",
        "receive-bot.moderation",
    }


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_header_schemas_take_right_headers_and_no_others(name: str) -> None:
    schema = DOCUMENT["components"]["messages"][name]["headers"]
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    right = {key: (value or b"").decode() for key, value in record(name).headers}
    assert validator.is_valid({**right, "ce_subject": "s", "other": "x"})
    for header in right:
        assert not validator.is_valid({k: v for k, v in right.items() if k != header})
        assert not validator.is_valid({**right, header: None})
    assert not validator.is_valid({**right, "ce_type": "another", "ce_causationid": ""})


def test_the_headers_of_a_dead_letter_are_those_of_the_document() -> None:
    schema = DOCUMENT["components"]["messages"][DEAD_LETTER]["headers"]
    Draft202012Validator.check_schema(schema)
    output = dead_letter(record(MENTION_CREATED), "bot.dead-letters", "c", "d", 1)
    written = {name: (value or b"").decode() for name, value in output.headers}
    assert Draft202012Validator(schema).is_valid(written)
    assert list(schema["properties"]) == [name for name, _ in output.headers[-4:]]


def test_the_headers_of_a_redrive_mark_are_those_of_the_document() -> None:
    schema = DOCUMENT["components"]["messages"][REDRIVE_MARK]["headers"]
    Draft202012Validator.check_schema(schema)
    mark = redrive_mark("bot.dead-letters", b"k", RedriveMark("a/0/1", "b/0/2", "a/0/3"))
    written = {name: (value or b"").decode() for name, value in mark.headers}
    assert Draft202012Validator(schema).is_valid(written)
    assert list(schema["properties"]) == list(written)


def test_the_page_for_people_has_every_topic_type_and_code() -> None:
    page = contract_page()
    words = [*TOPICS, *EVENT_TYPES, *ErrorCode, *SkipReason, *Outcome]
    assert [word for word in words if f"| `{word}` |" not in page] == []
    assert f"`{REDRIVE_OF}`" in page


def test_the_page_says_how_far_repeats_are_told() -> None:
    page = " ".join(contract_page().split())
    repeats = page[page.index("## Repeats") : page.index("## Outcomes")]
    assert "within one partition" in repeats
    assert "exactly one conversation" in repeats
