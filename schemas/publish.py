"""The contract as documents: a JSON Schema per event type, AsyncAPI 3.0, tables for people.

In: the models and tables of this room. Out: plain dicts and texts, and ``export``, which
writes them to a folder: ``schemas/published/`` is such a folder, committed. Other programs
read them; ``compatibility`` compares them with what was released before.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from schemas import codes, dead_letters, headers
from schemas.envelope import CONTENT_TYPE, SPECVERSION, Envelope
from schemas.names import BOT_MODERATION
from schemas.topics import BOT_DEAD_LETTERS, BOT_DEAD_LETTERS_PRIVATE, TOPICS, Topic
from schemas.types import EVENT_TYPES, EventType

PUBLISHED: Final = Path(__file__).parent / "published"
CONTRACT_VERSION: Final = "1.0.0"
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
DEAD_LETTER: Final = "dead-letter"
REDRIVE_MARK: Final = "redrive-mark"

_KAFKA_BINDING: Final = "0.5.0"
_DEAD_LETTER_TOPICS: Final = (BOT_DEAD_LETTERS, BOT_DEAD_LETTERS_PRIVATE)
_REPEATS: Final = """\
An input with the `ce_source` and `ce_id` of an earlier one, or about the same `uri` and
`revision`, repeats it and is skipped as `duplicate`. Repeats are told within one partition, where
all of a conversation is. A post belongs to exactly one conversation: the same ids under
conversations of different partitions are not told from the first, and each gets an answer."""
_DEAD_LETTERS: Final = f"""\
A dead letter is the original, its key, value and headers byte for byte, followed by four
headers: `{dead_letters.ERROR_CODE}`, `{dead_letters.ERROR_DETAIL}`, `{dead_letters.ATTEMPTS}`
and `{dead_letters.ORIGIN}` (`topic/partition/offset`).

When it is re-driven (`twite dead-letters redrive`), the original is published again to its own
topic and partition with one more header, the last: `{dead_letters.REDRIVE_OF}`, the place where
it failed (`topic/partition/offset`). `ce_source` and `ce_id` stay, so everybody else may take it
for the same event. In the same transaction a mark is appended to the dead letter's partition: the
same key, no value, and the headers `{dead_letters.REDRIVE_OF}`, `{dead_letters.REDRIVEN_LETTER}`
(the place of the dead letter) and `{dead_letters.REDRIVEN_AS}` (the place of the new record).
Readers of the dead-letter topics skip records that do not end in the four headers above."""
_TAGS: Final = {"public": "public and unlisted only", "private": "may hold private text"}

Json = dict[str, Any]


@cache
def _event_schema(name: str) -> str:
    schema = EVENT_TYPES[name].model.model_json_schema()
    return json.dumps({"$schema": DRAFT, "$id": f"urn:twite:schema:{name}", **schema})


def event_schemas() -> dict[str, Json]:
    """JSON Schema (draft 2020-12) of ``data``, by event type."""
    return {name: json.loads(_event_schema(name)) for name in EVENT_TYPES}


def header_schema(kind: EventType) -> Json:
    """JSON Schema of the headers of one type, as strings after decoding from UTF-8."""
    attributes = Envelope.model_json_schema()["properties"]
    properties: Json = {f"ce_{name}": _without_null(field) for name, field in attributes.items()}
    properties["ce_specversion"] = {"const": SPECVERSION}
    properties["ce_type"] = {"const": kind.name}
    properties["content-type"] = {"type": "string", "examples": [CONTENT_TYPE]}
    return {
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "required": sorted(headers.REQUIRED),
    }


def dead_letter_headers() -> Json:
    """JSON Schema of what is added to the original headers of a dead letter, always last."""
    texts = {
        dead_letters.ERROR_CODE: "One of the error codes, or a handler's own.",
        dead_letters.ERROR_DETAIL: "One line for people, without anything people wrote.",
        dead_letters.ATTEMPTS: "How often it was handled, decimal.",
        dead_letters.ORIGIN: "topic/partition/offset",
    }
    return _text_headers(texts)


def redrive_mark_headers() -> Json:
    """JSON Schema of the headers of a mark on a dead-letter topic: these and no others."""
    texts = {
        dead_letters.REDRIVE_OF: "topic/partition/offset of the record that failed.",
        dead_letters.REDRIVEN_LETTER: "topic/partition/offset of its dead letter.",
        dead_letters.REDRIVEN_AS: "topic/partition/offset where it was published again.",
    }
    return {**_text_headers(texts), "additionalProperties": False}


def _text_headers(texts: Mapping[str, str]) -> Json:
    properties = {name: {"type": "string", "description": text} for name, text in texts.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}


def asyncapi() -> Json:
    """The AsyncAPI 3.0 document. Payloads refer to the JSON Schemas in ``json/`` beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Twite",
            "version": CONTRACT_VERSION,
            "description": "CloudEvents 1.0 in Kafka binary mode. Missing and null optional "
            "members mean the same; unknown members are ignored.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {name: _channel(topic) for name, topic in TOPICS.items()},
        "operations": {_operation_name(t): _operation(t) for t in TOPICS.values()},
        "components": {
            "messages": {
                **{name: _message(kind) for name, kind in EVENT_TYPES.items()},
                DEAD_LETTER: _dead_letter_message(),
                REDRIVE_MARK: _redrive_mark_message(),
            }
        },
    }


def contract() -> Json:
    """Everything that must stay compatible, as one value: schemas and the topic table."""
    return {
        "schemas": event_schemas(),
        "topics": {
            topic.name: {
                "key": topic.key,
                "cleanup": topic.cleanup,
                "partitioned": topic.partitioned,
                "types": sorted(topic.types),
            }
            for topic in TOPICS.values()
        },
    }


def documents() -> dict[str, str]:
    """Every file of an export, by its path in the folder."""
    schemas = {f"json/{name}.json": _pretty(s) for name, s in event_schemas().items()}
    return {**schemas, "asyncapi.json": _pretty(asyncapi()), "contract.md": contract_page()}


def export(directory: Path) -> list[Path]:
    """Write every document below ``directory`` and say which files; others are left alone."""
    written = []
    for name, text in documents().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def contract_page() -> str:
    """Topics, event types and codes as Markdown tables."""
    return (
        "\n\n".join(
            (
                "# The event contract",
                "Made from the code by `twite schemas export`; do not edit.",
                "## Topics\n\nTopics partitioned by conversation have the same number of "
                "partitions.\n\n" + _topics_table(),
                "## Event types\n\n" + _types_table(),
                "## Dead letters\n\n" + _DEAD_LETTERS,
                "## Repeats\n\n" + _REPEATS,
                "## Outcomes\n\n" + _codes_table(codes.Outcome),
                "## Skip reasons\n\n" + _codes_table(codes.SkipReason),
                "## Error codes\n\nThe first that applies, in this order.\n\n"
                + _codes_table(codes.ErrorCode),
            )
        )
        + "\n"
    )


def _topics_table() -> str:
    rows = [
        (f"`{t.name}`", t.key, t.carries, t.cleanup, _days(t.retention_ms), t.partitioned)
        for t in TOPICS.values()
    ]
    return _table(("topic", "key", "carries", "cleanup", "kept", "partitioned by"), rows)


def _types_table() -> str:
    rows = [
        (f"`{kind.name}`", kind.model.__name__, ", ".join(f"`{t}`" for t in kind.topics))
        for kind in EVENT_TYPES.values()
    ]
    return _table(("type", "data", "on"), rows)


def _codes_table(members: Any) -> str:
    return _table(("code", "meaning"), [(f"`{m.value}`", m.meaning) for m in members])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _days(retention_ms: int) -> str:
    if retention_ms < 0:
        return "for ever"
    hours = retention_ms // 3_600_000
    return f"{hours // 24} days" if hours >= 24 else f"{hours} h"


def _channel(topic: Topic) -> Json:
    letters = (DEAD_LETTER, REDRIVE_MARK) if topic.name in _DEAD_LETTER_TOPICS else ()
    messages = topic.types or letters
    return {
        "address": topic.name,
        "description": topic.carries[0].upper() + topic.carries[1:] + ".",
        "messages": {name: {"$ref": _pointer("components", "messages", name)} for name in messages},
        "tags": [_tag(topic)],
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup],
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": topic.max_message_bytes,
                },
                "bindingVersion": _KAFKA_BINDING,
            }
        },
    }


def _tag(topic: Topic) -> Json:
    name = "private" if topic.private else "public"
    return {"name": name, "description": _TAGS[name]}


def _operation_name(topic: Topic) -> str:
    return f"{_action(topic)}-{topic.name}"


def _action(topic: Topic) -> str:
    """From Twite's side: it receives what platform and moderators say, and sends the rest."""
    return "receive" if is_read(topic.name) else "send"


def is_read(topic: str) -> bool:
    """Whether others write this topic and Twite reads it."""
    return topic.startswith("feed.") or topic == BOT_MODERATION


def _operation(topic: Topic) -> Json:
    channel = _pointer("channels", topic.name)
    return {"action": _action(topic), "channel": {"$ref": channel}, "summary": topic.carries}


def _message(kind: EventType) -> Json:
    topic = TOPICS[kind.topics[0]]
    return {
        "name": kind.name,
        "title": kind.model.__name__,
        "contentType": CONTENT_TYPE,
        "headers": header_schema(kind),
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./json/{kind.name}.json"},
        },
        "bindings": _key_binding(topic),
    }


def _dead_letter_message() -> Json:
    return {
        "name": DEAD_LETTER,
        "title": "Dead letter",
        "summary": "Key, value and headers of the original as they were, and four headers.",
        "contentType": "application/octet-stream",
        "headers": dead_letter_headers(),
        "bindings": _key_binding(TOPICS[BOT_DEAD_LETTERS]),
    }


def _redrive_mark_message() -> Json:
    return {
        "name": REDRIVE_MARK,
        "title": "Mark of a re-driven dead letter",
        "summary": "The key of the dead letter, no value, and three headers.",
        "contentType": "application/octet-stream",
        "headers": redrive_mark_headers(),
        "bindings": _key_binding(TOPICS[BOT_DEAD_LETTERS]),
    }


def _key_binding(topic: Topic) -> Json:
    key = {"type": "string", "description": f"The {topic.key}."}
    return {"kafka": {"key": key, "bindingVersion": _KAFKA_BINDING}}


def _without_null(field: Mapping[str, Any]) -> Json:
    """The schema of a header that is there: absence is said by ``required`` alone."""
    for option in field.get("anyOf", ()):
        if option != {"type": "null"}:
            return dict(option)
    return {name: value for name, value in field.items() if name not in ("default", "title")}


def _pointer(*parts: str) -> str:
    escaped = (part.replace("~", "~0").replace("/", "~1") for part in parts)
    return "#/" + "/".join(escaped)


def _pretty(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
