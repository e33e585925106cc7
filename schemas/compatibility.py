"""What of a released contract may not change.

In: two contracts as ``publish.contract`` gives them, the released and the present one. Out:
the list of incompatible changes, empty where every program written against the released
contract goes on working.

A **reader** must take whatever was right before: it may not ask for more, nor know less. A
**writer** must write only what was right before: it may not leave out what was always there,
nor come with values that nobody has heard of. Others write ``feed.*`` and ``bot.moderation``,
where Twite is the reader. Twite writes the other ``bot.*`` topics, and reads them again in
views and replays, so there both hold. New optional members, new types and new topics are
always fine; titles, descriptions and examples may change.

Released contracts are files ``released/<version>.json`` that no export touches. ``freeze``
adds one and never replaces one; their digests stand in ``tests/schemas/test_compatibility.py``,
so that a released contract cannot change, or go, without a change of that test.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.publish import PUBLISHED, contract, is_read

Json = dict[str, Any]

RELEASED: Final = PUBLISHED / "released"

_WORDS_ONLY: Final = frozenset({"title", "description", "examples", "$id", "$schema", "$defs"})
_HANDLED: Final = frozenset(
    {"type", "anyOf", "enum", "const", "properties", "required", "items", "additionalProperties"}
)
_LOWER: Final = ("minLength", "minItems", "minimum", "exclusiveMinimum", "minProperties")
_UPPER: Final = ("maxLength", "maxItems", "maximum", "exclusiveMaximum", "maxProperties")


@dataclass(frozen=True, slots=True)
class Change:
    """One incompatible change: where, and what it does to whom."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def incompatible_contract(old: Json, new: Json) -> list[Change]:
    """Every incompatible change from the released contract ``old`` to ``new``."""
    return [*_topic_changes(old["topics"], new["topics"]), *_schema_changes(old, new)]


def incompatible_schema(
    old: Json, new: Json, *, reads: bool, writes: bool, name: str = ""
) -> list[Change]:
    """Every incompatible change between two JSON Schemas of one event type.

    ``reads``: Twite reads the type; ``writes``: Twite writes it. The keywords are those that
    pydantic writes; any other one counts as incompatible as soon as it differs.
    """
    return list(_Comparison(old, new, reads, writes).compare(old, new, name))


def released(directory: Path = RELEASED) -> dict[str, Json]:
    """Every released contract, by its version."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(directory.glob("*.json"))}


def digest(path: Path) -> str:
    """SHA-256 of a released contract, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def freeze(version: str, directory: Path = RELEASED) -> Path:
    """Add the present contract as released.

    Raises ``FileExistsError`` where the version is already there, and ``ValueError`` where the
    contract is not compatible with one released before.
    """
    present = contract()
    for earlier, old in released(directory).items():
        if changes := incompatible_contract(old, present):
            raise ValueError(f"incompatible with {earlier}: {changes[0]}")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{version}.json"
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(present, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return path


def _topic_changes(old: Json, new: Json) -> Iterator[Change]:
    for name, was in old.items():
        if name not in new:
            yield Change(name, "the topic is gone")
            continue
        for aspect in ("key", "cleanup", "partitioned"):
            if was[aspect] != new[name][aspect]:
                yield Change(f"{name}.{aspect}", f"{was[aspect]} became {new[name][aspect]}")
        for gone in sorted(set(was["types"]) - set(new[name]["types"])):
            yield Change(name, f"{gone} may not stand here any more")


def _schema_changes(old: Json, new: Json) -> Iterator[Change]:
    for name, schema in old["schemas"].items():
        if name not in new["schemas"]:
            yield Change(name, "the type is gone")
            continue
        topics = [topic for topic, row in old["topics"].items() if name in row["types"]]
        writes = not all(is_read(topic) for topic in topics)
        yield from incompatible_schema(
            schema, new["schemas"][name], reads=True, writes=writes, name=name
        )


@dataclass(slots=True)
class _Comparison:
    """Walks two documents side by side; ``seen`` ends the walk of schemas within themselves."""

    old_root: Json
    new_root: Json
    reads: bool
    writes: bool
    seen: set[tuple[str, str]] = field(default_factory=set)

    def compare(self, old: Json, new: Json, path: str) -> Iterator[Change]:
        yield from self._default(old, new, path)
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self.seen:
                return
            self.seen.add(pair)
        olds, news = self._kinds(old, self.old_root), self._kinds(new, self.new_root)
        yield from self._difference(set(olds), set(news), path, "type")
        for kind in olds.keys() & news.keys():
            yield from self._same_kind(olds[kind], news[kind], path)

    def _kinds(self, schema: Json, root: Json) -> dict[str, Json]:
        """The alternatives of a schema by their JSON type, references followed."""
        schema = _resolve(schema, root)
        if "anyOf" in schema:
            options = [self._kinds(option, root) for option in schema["anyOf"]]
            kinds = [kind for option in options for kind in option]
            if len(kinds) != len(set(kinds)):
                raise ValueError(f"two alternatives of one JSON type cannot be compared: {kinds}")
            return {kind: found for option in options for kind, found in option.items()}
        types = schema.get("type", "any")
        return dict.fromkeys([types] if isinstance(types, str) else types, schema)

    def _same_kind(self, old: Json, new: Json, path: str) -> Iterator[Change]:
        yield from self._values(old, new, path)
        yield from self._bounds(old, new, path)
        yield from self._members(old, new, path)
        for part in ("items", "additionalProperties"):
            was, now = old.get(part, {}), new.get(part, {})
            if was == now == {}:
                continue
            if isinstance(was, dict) and isinstance(now, dict):
                yield from self.compare(was, now, f"{path}[]")
            elif was != now:
                yield Change(path, f"{part} changed")
        known = {*_WORDS_ONLY, *_HANDLED, *_LOWER, *_UPPER, "default", "$ref"}
        for keyword in sorted((old.keys() | new.keys()) - known):
            if old.get(keyword) != new.get(keyword):
                yield Change(path, f"{keyword} changed")

    def _default(self, old: Json, new: Json, path: str) -> Iterator[Change]:
        if "default" in old and "default" in new and old["default"] != new["default"]:
            yield Change(path, "the default changed, so a missing member means something else")
        elif self.reads and "default" in old and "default" not in new:
            yield Change(path, "the default is gone")

    def _values(self, old: Json, new: Json, path: str) -> Iterator[Change]:
        was, now = _enum(old), _enum(new)
        if was is not None and now is not None:
            yield from self._difference(was, now, path, "value")
        elif now is not None and self.reads:
            yield Change(path, "only some values are taken now")
        elif was is not None and self.writes:
            yield Change(path, "any value may be written now")

    def _difference(self, was: set[str], now: set[str], path: str, what: str) -> Iterator[Change]:
        if self.reads:
            for gone in sorted(was - now):
                yield Change(path, f"the {what} {gone} is not taken any more")
        if self.writes:
            for added in sorted(now - was):
                yield Change(path, f"the {what} {added} is new to its readers")

    def _bounds(self, old: Json, new: Json, path: str) -> Iterator[Change]:
        for keyword in (*_LOWER, *_UPPER):
            was, now = old.get(keyword), new.get(keyword)
            if was == now:
                continue
            sign = 1 if keyword in _LOWER else -1
            tighter = was is None or (now is not None and now * sign > was * sign)
            if tighter and self.reads:
                yield Change(path, f"{keyword} is tighter, {was} became {now}")
            if not tighter and self.writes:
                yield Change(path, f"{keyword} is looser, {was} became {now}")

    def _members(self, old: Json, new: Json, path: str) -> Iterator[Change]:
        was, now = old.get("properties", {}), new.get("properties", {})
        for name in was:
            if name in now:
                yield from self.compare(was[name], now[name], f"{path}.{name}")
            else:
                yield Change(f"{path}.{name}", "the member is gone")
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        if self.reads:
            for name in sorted(needs - needed):
                yield Change(f"{path}.{name}", "the member is required now")
        if self.writes:
            for name in sorted((needed - needs) & now.keys()):
                yield Change(f"{path}.{name}", "the member may be left out now")


def _resolve(schema: Json, root: Json) -> Json:
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema


def _enum(schema: Json) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else {json.dumps(value) for value in values}
