"""The checker: from what stands on the log to everything that is wrong with it.

In: ``Evidence``, plain values that any client library can give (``readers`` takes them with
confluent-kafka). Out: ``Violation``s, none where all of this holds:

- every input has exactly one decision, and no decision stands for anything else;
- reply ⇔ decision ⇔ offset past it; dead letter ⇔ decision, and it holds the input's bytes;
- ids are those that anybody can compute, places and topics those of the contract;
- inside a lane decisions stand in the order of their inputs;
- a repeat is skipped and names the first, whoever took over in between;
- replies stand, are corrected and taken back as ``revisions`` says;
- readers before and after agree, no transaction is open, commits never go back.

Checks that need everything to be finished run only where ``drained`` says so.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos import revisions
from tests.chaos.facts import (
    AUDITS,
    PRIVATE,
    REPLIES,
    Amended,
    Commit,
    Decision,
    Fact,
    Input,
    Key,
    Letter,
    Place,
    Reply,
    Told,
    Unreadable,
    decision_id,
    reply_id,
)

# What a runtime may make of a good input whose handler fails: only where the run says so.
SAYING = frozenset({"replied", "corrected", "retracted"})  # outcomes with something to publish
SPOILED = frozenset({"retries-exhausted", "deadline", "handler-error", "output-too-large"})


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong; ``kind`` is one of the words of ``KINDS``."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.detail}"


KINDS = {
    "lost": "an input without a decision",
    "twice": "a decision, reply or dead letter more than once",
    "torn": "reply, dead letter, decision and offset do not go together",
    "misordered": "a lane's decisions not in the order of its inputs",
    "stray": "an output that belongs to no committed input",
    "wrong": "another outcome than the input asks for",
    "repeat": "a repeat was answered, or does not name the first",
    "identity": "an id that is not the computed one",
    "place": "the wrong partition or topic",
    "private": "something private on a public topic",
    "changed": "a dead letter without the original's bytes",
    "readers": "a concurrent and a final reader saw different things",
    "open": "a transaction still open",
    "views": "a view that says something else than the log",
    "stale": "a reply stands that an edit or a deletion should have changed",
    "backwards": "a committed offset or map that went back",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A commit as it was seen during the run."""

    place: Place
    commit: Commit
    at_ms: int = 0


@dataclass(kw_only=True)
class Evidence:
    """Everything that is judged.

    ``ends``: last stable offset and high watermark of each output partition. ``seen``: what a
    reader saw during the run and ``final`` what one sees now, as offset and digest in order.
    ``told``: what the feed says of posts. ``spoiled``: how many inputs faults may have made dead
    letters. ``lost_commits``: how often the broker's own logs say that its group coordinator lost
    what it had; offsets may then go back, everything else must hold all the same.
    """

    bot: str
    cluster: str
    inputs: Sequence[Input]
    outputs: Sequence[Fact]
    committed: Mapping[Place, Commit]
    ends: Mapping[Place, tuple[int, int]]
    seen: Mapping[Place, Sequence[tuple[int, str]]] = field(default_factory=dict)
    final: Mapping[Place, Sequence[tuple[int, str]]] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    told: Sequence[Told] = ()
    spoiled: int = 0
    drained: bool = True
    lost_commits: int = 0


def check(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong, or nothing."""
    log = _Log(evidence)
    checks = (
        log.unreadable,
        log.one_decision_each,
        log.replies_and_decisions,
        log.letters_and_decisions,
        log.ids,
        log.places,
        log.outcomes,
        log.repeats,
        log.order,
        log.offsets,
    )
    found = [violation for one in checks for violation in one()]
    found += [
        Violation(*wrong)
        for wrong in revisions.check(evidence.outputs, log.heard(), drained=evidence.drained)
    ]
    found += _readers_agree(evidence)
    found += _nothing_open(evidence)
    if not evidence.lost_commits:
        found += _never_back(evidence)
    return found


def counts(violations: Iterable[Violation]) -> Counter[str]:
    """How many of each kind."""
    return Counter(violation.kind for violation in violations)


def _is_spoiled(decision: Decision) -> bool:
    return decision.outcome == "dead_lettered" and decision.reason in SPOILED


def _at(key: Key) -> str:
    return "/".join(map(str, key))


class _Log:
    """The facts by what they belong to."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._inputs = {one.key: one for one in evidence.inputs}
        self._decisions: dict[Key, list[Decision]] = defaultdict(list)
        # By the decision that they name.
        self._replies: dict[str, list[Reply | Amended]] = defaultdict(list)
        self._letters: dict[Key, list[Letter]] = defaultdict(list)
        self._unreadable: list[Unreadable] = []
        for fact in evidence.outputs:
            self._sort_in(fact)
        self._by_id = {d.id: d for many in self._decisions.values() for d in many}

    def _sort_in(self, fact: Fact) -> None:
        match fact:
            case Decision():
                self._decisions[fact.input].append(fact)
            case Reply() | Amended():
                self._replies[fact.decision].append(fact)
            case Letter():
                self._letters[fact.input].append(fact)
            case Unreadable():
                self._unreadable.append(fact)

    def unreadable(self) -> Iterator[Violation]:
        for fact in self._unreadable:
            yield Violation("stray", _at(fact.at), f"no output of the contract: {fact.why}")

    def one_decision_each(self) -> Iterator[Violation]:
        for key in self._inputs:
            found = self._decisions.get(key, [])
            if not found and self._evidence.drained:
                yield Violation("lost", _at(key), "no decision")
            if len(found) > 1:
                yield Violation("twice", _at(key), f"decided {len(found)} times")
        for key in self._decisions.keys() - self._inputs.keys():
            yield Violation("stray", _at(key), "decided, but no committed input stands there")

    def replies_and_decisions(self) -> Iterator[Violation]:
        for decision, replies in self._replies.items():
            if decision not in self._by_id:
                at = ", ".join(_at(reply.at) for reply in replies)
                yield Violation("torn", at, f"a reply without its decision {decision}")
        for decided in self._by_id.values():
            there = Counter(reply.id for reply in self._replies.get(decided.id, []))
            if set(there) != set(decided.replies):
                what = f"names replies {sorted(decided.replies)}, there are {sorted(there)}"
                yield Violation("torn", _at(decided.input), what)
            if (decided.outcome in SAYING) != bool(decided.replies):
                yield Violation("torn", _at(decided.input), f"{decided.outcome}, with replies")
            for name, times in there.items():
                if times > 1:
                    yield Violation("twice", _at(decided.input), f"reply {name} {times} times")

    def letters_and_decisions(self) -> Iterator[Violation]:
        for key in self._letters.keys() | self._decisions.keys():
            letters = self._letters.get(key, [])
            wanted = any(d.outcome == "dead_lettered" for d in self._decisions.get(key, []))
            if wanted != bool(letters):
                yield Violation("torn", _at(key), "dead letter without decision, or the reverse")
            if len(letters) > 1:
                yield Violation("twice", _at(key), f"{len(letters)} dead letters")
            original = self._inputs.get(key)
            if original and any(letter.digest != original.digest for letter in letters):
                yield Violation("changed", _at(key), "the dead letter holds other bytes")

    def ids(self) -> Iterator[Violation]:
        bot, cluster = self._evidence.bot, self._evidence.cluster
        for decision in self._all_decisions():
            if {decision.id, decision.header_id} != {decision_id(bot, cluster, decision.input)}:
                yield Violation("identity", _at(decision.at), f"decision {decision.id}")
            original = self._inputs.get(decision.input)
            if original and original.event_id and decision.cause != original.event_id:
                yield Violation("identity", _at(decision.at), f"caused by {decision.cause}")
        for reply in self._all_replies():
            if reply.header_id != _event_of(reply) or not _is_own(bot, reply):
                yield Violation("identity", _at(reply.at), f"reply {reply.id}")
            decided = self._by_id.get(reply.decision)
            if decided and decided.cause != reply.cause:
                yield Violation("identity", _at(reply.at), f"caused by {reply.cause}")

    def places(self) -> Iterator[Violation]:
        for at, key in self._outputs_with_inputs():
            if at[1] != key[1]:
                yield Violation("place", _at(at), f"not the partition of {_at(key)}")
            original = self._inputs.get(key)
            private = original.private if original else None
            if private is not None and PRIVATE[at[0]] != private:
                kind = "private" if private else "place"
                yield Violation(kind, _at(at), f"not the topic for {_at(key)}")
        for key, letters in self._letters.items():
            for decision in self._decisions.get(key, []):
                if any(PRIVATE[x.at[0]] != PRIVATE[decision.at[0]] for x in letters):
                    yield Violation("private", _at(key), "letter and decision differ in privacy")

    def _outputs_with_inputs(self) -> Iterator[tuple[Key, Key]]:
        for decision in self._all_decisions():
            yield decision.at, decision.input
        for reply in self._all_replies():
            if reply.decision in self._by_id:
                yield reply.at, self._by_id[reply.decision].input
        for letters in self._letters.values():
            for letter in letters:
                yield letter.at, letter.input

    def outcomes(self) -> Iterator[Violation]:
        spoiled = 0
        for decision in self._all_decisions():
            original = self._inputs.get(decision.input)
            if original is None or decision.reason == "duplicate":
                continue
            if _is_spoiled(decision):
                spoiled += 1
            elif not _is_expected(decision, original.expect):
                got = f"{decision.outcome} {decision.reason or ''}".strip()
                yield Violation("wrong", _at(decision.input), f"{got}, not {original.expect}")
        if spoiled > self._evidence.spoiled:
            detail = (
                f"{spoiled} good inputs are dead letters, faults spoiled {self._evidence.spoiled}"
            )
            yield Violation("wrong", "all", detail)

    def heard(self) -> list[Told]:
        """What the feed says of posts, but for records that faults have made dead letters, and
        repeats of these: an edit corrects nothing as long as it is a dead letter."""
        dead = {d.id for d in self._all_decisions() if _is_spoiled(d)}
        deaf = {d.input for d in self._all_decisions() if d.id in dead or d.duplicate_of in dead}
        return [one for one in self._evidence.told if one.key not in deaf]

    def repeats(self) -> Iterator[Violation]:
        first: dict[tuple[object, ...], Input] = {}
        for one in sorted(self._inputs.values(), key=lambda one: one.key):
            earlier = [first[(one.key[:2], i)] for i in one.identities if (one.key[:2], i) in first]
            for identity in one.identities:
                first.setdefault((one.key[:2], identity), one)
            for decision in self._decisions.get(one.key, []):
                yield from self._repeat(decision, earlier)

    def _repeat(self, decision: Decision, earlier: Sequence[Input]) -> Iterator[Violation]:
        bot, cluster = self._evidence.bot, self._evidence.cluster
        names = {decision_id(bot, cluster, one.key) for one in earlier}
        if not earlier:
            if decision.reason == "duplicate":
                yield Violation("wrong", _at(decision.input), "the first of its kind was skipped")
        elif decision.outcome == "dead_lettered" and decision.reason in SPOILED:
            return  # its handler failed, for all that it is a repeat; ``outcomes`` counts it
        elif decision.reason != "duplicate":
            yield Violation("repeat", _at(decision.input), f"a repeat was {decision.outcome}")
        elif decision.duplicate_of not in names:
            yield Violation("repeat", _at(decision.input), "names another first decision")

    def order(self) -> Iterator[Violation]:
        last: dict[tuple[object, ...], tuple[int, Key]] = {}
        for decision in sorted(self._all_decisions(), key=lambda one: one.at):
            original = self._inputs.get(decision.input)
            if original is None or not original.lane:
                continue
            lane = (decision.at[:2], decision.input[:2], original.lane)
            before = last.get(lane)
            if before is not None and decision.input[2] < before[0]:
                yield Violation("misordered", _at(decision.input), f"behind {_at(before[1])}")
            last[lane] = (decision.input[2], decision.input)

    def offsets(self) -> Iterator[Violation]:
        """What the commit says is finished is exactly what is decided."""
        by_place: dict[Place, list[int]] = defaultdict(list)
        for key in self._inputs:
            by_place[key[:2]].append(key[2])
        for place, offsets in by_place.items():
            covered = self._evidence.committed.get(place, Commit(0)).covered(offsets)
            decided = {o for o in offsets if (*place, o) in self._decisions}
            for offset in sorted(covered - decided):
                yield Violation("torn", _at((*place, offset)), "the offset is past it, undecided")
            for offset in sorted(decided - covered):
                yield Violation("torn", _at((*place, offset)), "decided, the offset is not past it")

    def _all_decisions(self) -> Iterator[Decision]:
        return (one for many in self._decisions.values() for one in many)

    def _all_replies(self) -> Iterator[Reply | Amended]:
        return (one for many in self._replies.values() for one in many)


def _is_expected(decision: Decision, expect: str) -> bool:
    """Whether it is one of the outcomes that the feed allows; an empty text allows all."""
    allowed = [one.partition(":") for one in expect.split("|") if one]
    return not allowed or any(
        decision.outcome == outcome and (not reason or decision.reason == reason)
        for outcome, _, reason in allowed
    )


def _event_of(reply: Reply | Amended) -> str:
    return reply.id if isinstance(reply, Reply) else f"{reply.id}/{reply.decision}"


def _is_own(bot: str, reply: Reply | Amended) -> bool:
    """Whether the id is the one that its source asks for."""
    return isinstance(reply, Amended) or reply.id == reply_id(bot, *reply.source, reply.part)


def _readers_agree(evidence: Evidence) -> Iterator[Violation]:
    for place in evidence.seen.keys() | evidence.final.keys():
        before, now = evidence.seen.get(place, ()), evidence.final.get(place, ())
        if list(before) != list(now):
            differ = next(
                (i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b),
                min(len(before), len(now)),
            )
            detail = f"{len(before)} and {len(now)} records, different from number {differ}"
            yield Violation("readers", "/".join(map(str, place)), detail)


def _nothing_open(evidence: Evidence) -> Iterator[Violation]:
    for place, (stable, high) in evidence.ends.items():
        if stable != high:
            detail = f"last stable offset {stable}, high watermark {high}"
            yield Violation("open", "/".join(map(str, place)), detail)


def _never_back(evidence: Evidence) -> Iterator[Violation]:
    """Offsets only grow, and what was once finished stays so."""
    known = {one.key for one in evidence.inputs}
    last: dict[Place, tuple[int, frozenset[int]]] = {}
    for sample in evidence.samples:
        place, offset, ahead = sample.place, sample.commit.offset, sample.commit.ahead
        before, finished = last.get(place, (0, frozenset()))
        where = "/".join(map(str, place))
        forgotten = [o for o in sorted(finished - ahead) if o >= offset and (*place, o) in known]
        if offset < before:
            yield Violation("backwards", where, f"from {before} to {offset}")
        elif forgotten:
            yield Violation("backwards", where, f"at {offset} forgot {forgotten[:5]}")
        last[place] = (offset, ahead)


__all__ = ["AUDITS", "REPLIES", "Evidence", "Sample", "Violation", "check", "counts"]
