"""No released contract may be broken, and none may change afterwards.

``RELEASED_DIGESTS`` is the one place that knows what was released: add a line when a contract
is frozen, never change one.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas import compatibility
from schemas.compatibility import (
    RELEASED,
    digest,
    freeze,
    incompatible_contract,
    incompatible_schema,
    released,
)
from schemas.names import DECISION_RECORDED, MENTION_CREATED, REPLY_CREATED
from schemas.publish import contract

Json = dict[str, Any]

RELEASED_DIGESTS = {
    "0.1.0": "2b760b6a0d3cf19e039293f8684c976fa6ebc9a8e3838c3e6f58e926245f2ba0",
}


def test_released_contracts_are_all_there_and_unchanged() -> None:
    found = {path.stem: digest(path) for path in RELEASED.glob("*.json")}
    assert found == RELEASED_DIGESTS


@pytest.mark.parametrize("version", RELEASED_DIGESTS)
def test_the_present_contract_breaks_nobody_who_knows_a_released_one(version: str) -> None:
    changes = incompatible_contract(released()[version], contract())
    assert [str(change) for change in changes] == []


def mention(new: Json) -> Json:
    schema: Json = new["schemas"][MENTION_CREATED]
    return schema


def post(new: Json) -> Json:
    definition: Json = mention(new)["$defs"]["Post"]
    return definition


def decision(new: Json) -> Json:
    schema: Json = new["schemas"][DECISION_RECORDED]
    return schema


def reply(new: Json) -> Json:
    schema: Json = new["schemas"][REPLY_CREATED]
    return schema


BREAKING: dict[str, tuple[str, Callable[[Json], Any]]] = {
    "type removed": (
        "the type is gone",
        lambda new: new["schemas"].pop(MENTION_CREATED),
    ),
    "topic removed": ("the topic is gone", lambda new: new["topics"].pop("feed.posts")),
    "key of a topic": (
        "conversation became account",
        lambda new: new["topics"]["feed.mentions"].update(key="account"),
    ),
    "cleanup of a topic": (
        "delete became compact",
        lambda new: new["topics"]["bot.replies"].update(cleanup="compact"),
    ),
    "partitions of a topic": (
        "conversation became own",
        lambda new: new["topics"]["bot.audit"].update(partitioned="own"),
    ),
    "type off its topic": (
        "may not stand here any more",
        lambda new: new["topics"]["feed.mentions"].update(types=[]),
    ),
    "member removed": ("the member is gone", lambda new: post(new)["properties"].pop("langs")),
    "member renamed": (
        "the member is gone",
        lambda new: post(new)["properties"].update(body=post(new)["properties"].pop("text")),
    ),
    "type changed": (
        "type integer is not taken",
        lambda new: post(new)["properties"].update(hops={"type": "string", "default": 0}),
    ),
    "null refused": (
        "type null is not taken",
        lambda new: post(new)["properties"].update(root={"$ref": "#/$defs/Ref", "default": None}),
    ),
    "one became many": (
        "type object is not taken",
        lambda new: post(new)["properties"].update(author={"type": "array"}),
    ),
    "items changed": (
        "type string is not taken",
        lambda new: post(new)["properties"]["langs"].update(items={"type": "integer"}),
    ),
    "new required member": (
        "the member is required now",
        lambda new: post(new)["required"].append("signature"),
    ),
    "optional became required": (
        "the member is required now",
        lambda new: post(new)["required"].append("langs"),
    ),
    "value not taken any more": (
        'value "quote" is not taken',
        lambda new: mention(new)["$defs"]["MentionReason"]["enum"].remove("quote"),
    ),
    "free word became a list": (
        "only some values are taken now",
        lambda new: post(new)["properties"]["visibility"].update(enum=["public"]),
    ),
    "upper bound tightened": (
        "maximum is tighter",
        lambda new: post(new)["properties"]["hops"].update(maximum=10),
    ),
    "upper bound added": (
        "maxLength is tighter",
        lambda new: post(new)["properties"]["text"].update(maxLength=300),
    ),
    "lower bound tightened": (
        "minimum is tighter",
        lambda new: post(new)["properties"]["version"].update(minimum=2),
    ),
    "fewer items": (
        "maxItems is tighter",
        lambda new: mention(new)["properties"]["ancestors"].update(maxItems=50),
    ),
    "pattern added": (
        "pattern changed",
        lambda new: post(new)["properties"]["visibility"].update(pattern="^p"),
    ),
    "pattern of an id": (
        "not changed",
        lambda new: post(new)["properties"]["uri"].update({"not": {"pattern": ":"}}),
    ),
    "default changed": (
        "the default changed",
        lambda new: mention(new)["properties"]["reason"].update(default="reply"),
    ),
    "default removed": (
        "the default is gone",
        lambda new: post(new)["properties"]["hops"].pop("default"),
    ),
    "unknown members refused": (
        "additionalProperties changed",
        lambda new: post(new).update(additionalProperties=False),
    ),
    "unknown keyword": (
        "dependentRequired changed",
        lambda new: post(new).update(dependentRequired={"quote": ["root"]}),
    ),
    "writer: new value": (
        'value "shadow" is new',
        lambda new: reply(new)["$defs"]["Visibility"]["enum"].append("shadow"),
    ),
    "writer: list of values opened": (
        "any value may be written now",
        lambda new: decision(new)["$defs"]["Outcome"].pop("enum"),
    ),
    "writer: new type": (
        "type null is new",
        lambda new: reply(new)["properties"].update(
            text={"anyOf": [{"type": "string"}, {"type": "null"}]}
        ),
    ),
    "writer: member may be left out": (
        "may be left out now",
        lambda new: reply(new)["required"].remove("decision_id"),
    ),
    "writer: bound loosened": (
        "maximum is looser",
        lambda new: reply(new)["properties"]["hops"].pop("maximum"),
    ),
    "writer: values of a mapping": (
        "type integer is not taken",
        lambda new: decision(new)["properties"]["positions"].update(
            additionalProperties={"type": "string"}
        ),
    ),
}


@pytest.mark.parametrize("case", BREAKING)
def test_an_incompatible_change_is_found(case: str) -> None:
    what, change = BREAKING[case]
    new = copy.deepcopy(contract())
    change(new)
    found = [str(c) for c in incompatible_contract(contract(), new)]
    assert [text for text in found if what in text], found


HARMLESS: dict[str, Callable[[Json], Any]] = {
    "nothing": lambda new: None,
    "new type": lambda new: new["schemas"].update({"twite.feed.poll.v1": {"type": "object"}}),
    "new topic": lambda new: new["topics"].update({"feed.polls": {}}),
    "type on one more topic": lambda new: new["topics"]["feed.posts"]["types"].append("x"),
    "new optional member": lambda new: post(new)["properties"].update(
        poll={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    ),
    "words": lambda new: post(new).update(title="A post", description="…", examples=[]),
    "reader: optional now": lambda new: post(new)["required"].remove("author"),
    "reader: bound loosened": lambda new: post(new)["properties"]["hops"].update(maximum=999),
    "reader: new value": lambda new: mention(new)["$defs"]["MentionReason"]["enum"].append("x"),
    "reader: one more type": lambda new: post(new)["properties"].update(
        text={"anyOf": [{"type": "string"}, {"type": "null"}]}
    ),
    "writer: new member": lambda new: reply(new)["properties"].update(mood={"type": "string"}),
    "definition moved in place": lambda new: post(new)["properties"].update(
        author=mention(new)["$defs"]["Account"]
    ),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_compatible_change_is_let_through(case: str) -> None:
    new = copy.deepcopy(contract())
    HARMLESS[case](new)
    assert incompatible_contract(contract(), new) == []


def test_readers_and_writers_ask_for_opposite_things() -> None:
    narrow: Json = {"type": "string", "maxLength": 5, "enum": ["a"]}
    wide: Json = {"type": "string", "maxLength": 9, "enum": ["a", "b"]}
    assert incompatible_schema(narrow, wide, reads=True, writes=False) == []
    assert len(incompatible_schema(wide, narrow, reads=True, writes=False)) == 2
    assert incompatible_schema(wide, narrow, reads=False, writes=True) == []
    assert len(incompatible_schema(narrow, wide, reads=False, writes=True)) == 2


def test_schemas_within_themselves_end() -> None:
    tree: Json = {
        "$defs": {
            "Tree": {
                "type": "object",
                "properties": {"more": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
            }
        },
        "$ref": "#/$defs/Tree",
    }
    other = copy.deepcopy(tree)
    other["$defs"]["Tree"]["properties"]["more"]["maxItems"] = 3
    assert incompatible_schema(tree, tree, reads=True, writes=True) == []
    assert len(incompatible_schema(tree, other, reads=True, writes=True)) == 1


def test_two_alternatives_of_one_type_are_refused_rather_than_guessed_at() -> None:
    twice: Json = {"anyOf": [{"type": "string"}, {"type": "string", "maxLength": 1}]}
    with pytest.raises(ValueError, match="cannot be compared"):
        incompatible_schema(twice, twice, reads=True, writes=True)


def test_a_version_is_frozen_once_and_read_back(tmp_path: Path) -> None:
    path = freeze("1.0.0", tmp_path)
    assert released(tmp_path) == {"1.0.0": contract()}
    before = digest(path)
    with pytest.raises(FileExistsError):
        freeze("1.0.0", tmp_path)
    assert digest(path) == before != digest(Path(__file__))


def test_an_incompatible_contract_is_not_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze("1.0.0", tmp_path)
    new = copy.deepcopy(contract())
    new["schemas"].pop(MENTION_CREATED)
    monkeypatch.setattr(compatibility, "contract", lambda: new)
    with pytest.raises(ValueError, match=r"incompatible with 1\.0\.0"):
        freeze("1.1.0", tmp_path)
    assert list(released(tmp_path)) == ["1.0.0"]
