"""The checker's part on replies after they were made: corrected, and taken back.

In: all outputs, and what the feed tells of posts. Out: what is wrong, as (kind, where, detail):

- a reply is made once; what amends it comes after it, on the same topic;
- nothing follows its retraction, not a second one either; no two corrections are the same;
- of all replies to one source, whatever its revision, at most one stands.

And where everything is finished:

- no reply stands to a source that was deleted, nor any that was built on a deleted post;
- a reply whose source is there was not taken back;
- what stands was said to the newest revision of its source.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.facts import Amended, Fact, Key, Reply, Told

Wrong = tuple[str, str, str]


@dataclass
class Chain:
    """One part of a reply: how it was made, and what became of it in the order of the log."""

    made: list[Reply] = field(default_factory=list)
    amended: list[Amended] = field(default_factory=list)

    @property
    def taken_back(self) -> bool:
        return any(one.revision is None for one in self.amended)

    @property
    def latest(self) -> Reply | Amended:
        """As it reads now; only of one that was made."""
        return self.amended[-1] if self.amended else self.made[0]


def check(outputs: Iterable[Fact], told: Iterable[Told], *, drained: bool) -> Iterator[Wrong]:
    """Everything that is wrong."""
    chains = _chains(outputs)
    for name, chain in chains.items():
        yield from _chain(name, chain)
    standing = _standing(chains.values())
    yield from _one_each(standing)
    if drained:
        yield from _up_to_date(chains.values(), standing, list(told))


def _chains(outputs: Iterable[Fact]) -> dict[str, Chain]:
    chains: dict[str, Chain] = defaultdict(Chain)
    for fact in outputs:
        if isinstance(fact, Reply):
            chains[fact.id].made.append(fact)
        elif isinstance(fact, Amended):
            chains[fact.id].amended.append(fact)
    for chain in chains.values():
        chain.amended.sort(key=lambda one: one.at)
    return chains


def _chain(name: str, chain: Chain) -> Iterator[Wrong]:
    if len(chain.made) > 1:
        yield "twice", _at(chain.made[1].at), f"reply {name} was made {len(chain.made)} times"
    seen: set[str | None] = set()
    for one in chain.amended:
        if not chain.made:
            yield "torn", _at(one.at), "amends a reply that was never made"
        elif one.at[:2] != chain.made[0].at[:2]:
            yield "place", _at(one.at), f"amends the reply at {_at(chain.made[0].at)}"
        elif one.at < chain.made[0].at:
            yield "misordered", _at(one.at), "amends a reply that is made later"
        if None in seen:
            what = "taken back" if one.revision is None else "corrected"
            yield "twice", _at(one.at), f"{what} after it was taken back"
        elif one.revision in seen:
            yield "twice", _at(one.at), "the same correction again"
        seen.add(one.revision)


def _standing(chains: Iterable[Chain]) -> dict[str, list[Chain]]:
    """What was made and not taken back, by the URI of its source."""
    standing: dict[str, list[Chain]] = defaultdict(list)
    for chain in chains:
        if chain.made and not chain.taken_back:
            standing[chain.made[0].source[0]].append(chain)
    return standing


def _one_each(standing: Mapping[str, Sequence[Chain]]) -> Iterator[Wrong]:
    for uri, chains in standing.items():
        revisions = {chain.made[0].source[1] for chain in chains}
        if len(revisions) > 1:
            at = ", ".join(_at(chain.made[0].at) for chain in chains)
            yield "twice", at, f"replies to {len(revisions)} revisions of {uri} stand"


def _up_to_date(
    chains: Iterable[Chain], standing: Mapping[str, Sequence[Chain]], told: Sequence[Told]
) -> Iterator[Wrong]:
    deleted = {one.uri for one in told if one.deleted}
    newest: dict[str, Told] = {}
    for one in told:
        if not one.deleted and one.version >= newest.get(one.uri, one).version:
            newest[one.uri] = one
    for uri, many in standing.items():
        for chain in many:
            yield from _stale(uri, chain, deleted, newest)
    for chain in chains:
        if chain.made and chain.taken_back and chain.made[0].source[0] not in deleted:
            yield "wrong", _at(chain.made[0].at), "taken back, and its source is there"


def _stale(
    uri: str, chain: Chain, deleted: set[str], newest: Mapping[str, Told]
) -> Iterator[Wrong]:
    latest = chain.latest
    if uri in deleted:
        yield "stale", _at(latest.at), f"stands, and {uri} is deleted"
    elif gone := deleted.intersection(latest.built_on):
        yield "stale", _at(latest.at), f"is built on {sorted(gone)}, which is deleted"
    elif uri in newest and not latest.text.endswith(words(newest[uri].text)):
        yield "stale", _at(latest.at), f"was said to another revision of {uri}"


def words(text: str) -> str:
    """What the echo says back of a post: its text without the handle at its beginning."""
    return text.partition(" ")[2]


def _at(key: Key) -> str:
    return "/".join(map(str, key))
