"""The checker is checked: it finds nothing in a correct log, and every corruption of one.

A correct log is made by a small model of the bot, from the same feed that runs use. Each
corruption is what one kind of bug would leave behind, at a place drawn from a seed.
"""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from consumers.offsets import encode_map
from tests.chaos.checker import Evidence, Sample, Violation, check, counts
from tests.chaos.facts import (
    AUDITS,
    LETTERS,
    REPLIES,
    Commit,
    Input,
    Raw,
    Told,
    decision_id,
    digest,
    input_fact,
    output_fact,
    reply_id,
)
from tests.chaos.feed import BOT, Feed

CLUSTER = "cluster"
PARTITIONS = 3
SEEDS = range(3)


class Log:
    """Raw records as they would stand on the topics, and how to make evidence of them."""

    def __init__(self, seed: int, count: int = 300) -> None:
        self.inputs: list[Raw] = []
        self.outputs: list[Raw] = []
        self.commits: dict[tuple[str, int], Commit] = {}
        self.samples: list[Sample] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._first: dict[object, str] = {}
        for item in Feed(seed, PARTITIONS).items(count):
            place = (item.topic, item.partition)
            self._answer(self._append(self.inputs, place, item.key, item.value, item.headers))
            self.commits[place] = Commit(self._ends[place])
            self.samples.append(Sample(place, self.commits[place]))

    def _append(
        self,
        log: list[Raw],
        place: tuple[str, int],
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...],
    ) -> Raw:
        offset = self._ends.get(place, 0)
        self._ends[place] = offset + 1
        log.append(Raw(*place, offset, key, value, headers, timestamp_ms=len(log)))
        return log[-1]

    def _answer(self, raw: Raw) -> None:
        """What the bot would publish, in the order in which it would."""
        one = input_fact(raw)
        decision = decision_id(BOT, CLUSTER, one.key)
        seen = [self._first[i] for i in one.identities if i in self._first]
        for identity in one.identities:
            self._first.setdefault(identity, decision)
        outcome, _, reason = one.expect.partition(":")
        if seen:
            outcome, reason = "skipped", "duplicate"
        replies: list[str] = []
        if outcome == "replied":
            replies.append(self._reply(raw, one, decision))
        if outcome == "dead_lettered":
            self._letter(raw, one)
        data = {
            "decision_id": decision,
            "outcome": outcome,
            "reason": reason or None,
            "duplicate_of": seen[0] if seen else None,
            "input": {"topic": raw.topic, "partition": raw.partition, "offset": raw.offset},
            "reply_ids": replies,
        }
        self._event(AUDITS[bool(one.private)], raw.partition, decision, one, data)

    def _reply(self, raw: Raw, one: Input, decision: str) -> str:
        post = next(iter(json.loads(raw.value or b"").values()))
        post = post if isinstance(post, dict) else {}
        name = reply_id(BOT, post["uri"], post["revision"], 1)
        ref = {"uri": post["uri"], "revision": post["revision"]}
        data = {"reply_id": name, "decision_id": decision, "in_reply_to": ref, "part": 1}
        self._event(REPLIES[bool(one.private)], raw.partition, name, one, data)
        return name

    def _event(self, topic: str, partition: int, name: str, one: Input, data: object) -> None:
        headers: list[tuple[str, bytes | None]] = [("ce_id", name.encode())]
        if one.event_id:
            headers.append(("ce_causationid", one.event_id.encode()))
        place = (topic, partition)
        self._append(self.outputs, place, b"key", json.dumps(data).encode(), tuple(headers))

    def _letter(self, raw: Raw, one: Input) -> None:
        origin = f"{raw.topic}/{raw.partition}/{raw.offset}".encode()
        ours = (
            ("twite_error_code", b"schema"),
            ("twite_error_detail", b"bad"),
            ("twite_attempts", b"1"),
            ("twite_origin", origin),
        )
        place = (LETTERS[bool(one.private)], raw.partition)
        self._append(self.outputs, place, raw.key, raw.value, (*raw.headers, *ours))

    # Finding and changing things.

    def pick(self, dice: random.Random, topics: tuple[str, ...], **wanted: object) -> Raw:
        """An output on one of these topics whose JSON has these values."""
        fits = [
            raw
            for raw in self.outputs
            if raw.topic in topics
            and all(json.loads(raw.value or b"").get(k) == v for k, v in wanted.items())
        ]
        return dice.choice(fits)

    def change(self, raw: Raw, **changes: object) -> None:
        self.outputs[self.outputs.index(raw)] = replace(raw, **changes)  # type: ignore[arg-type]

    def edit(self, raw: Raw, **values: object) -> None:
        """Other values in its JSON."""
        data = json.loads(raw.value or b"") | values
        self.change(raw, value=json.dumps(data).encode())

    def again(self, raw: Raw) -> None:
        """The same record once more, at the end of its partition."""
        place = (raw.topic, raw.partition)
        self._append(self.outputs, place, raw.key, raw.value, raw.headers)

    def evidence(self, **changes: object) -> Evidence:
        final: dict[tuple[str, int], list[tuple[int, str]]] = {}
        for raw in sorted(self.outputs, key=lambda raw: raw.offset):
            final.setdefault((raw.topic, raw.partition), []).append((raw.offset, digest(raw)))
        evidence = Evidence(
            bot=BOT,
            cluster=CLUSTER,
            inputs=[input_fact(raw) for raw in self.inputs],
            outputs=[output_fact(raw) for raw in self.outputs],
            committed=self.commits,
            ends={place: (len(seen), len(seen)) for place, seen in final.items()},
            seen={place: list(seen) for place, seen in final.items()},
            final=final,
            samples=self.samples,
        )
        return replace(evidence, **changes)  # type: ignore[arg-type]


def found(evidence: Evidence) -> set[str]:
    return set(counts(check(evidence)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_correct_log_is_correct(seed: int) -> None:
    log = Log(seed)
    assert check(log.evidence()) == []
    kinds = {raw.topic for raw in log.outputs}
    assert kinds == {*REPLIES, *AUDITS, *LETTERS}, "the model shows every kind of output"


Corruption = Callable[[Log, random.Random], None]


def lost(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="skipped")
    log.outputs.remove(raw)


def doubled_reply(log: Log, dice: random.Random) -> None:
    log.again(log.pick(dice, REPLIES))


def doubled_decision(log: Log, dice: random.Random) -> None:
    log.again(log.pick(dice, AUDITS, outcome="skipped"))


def doubled_letter(log: Log, dice: random.Random) -> None:
    log.again(dice.choice([raw for raw in log.outputs if raw.topic in LETTERS]))


def decision_without_reply(log: Log, dice: random.Random) -> None:
    log.outputs.remove(log.pick(dice, REPLIES))


def reply_without_decision(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, REPLIES)
    decision = json.loads(raw.value or b"")["decision_id"]
    log.outputs.remove(log.pick(dice, AUDITS, decision_id=decision))


def skipped_with_a_reply(log: Log, dice: random.Random) -> None:
    log.edit(log.pick(dice, AUDITS, outcome="replied"), outcome="skipped", reason="no-answer")


def letter_without_decision(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="dead_lettered")
    log.outputs.remove(raw)


def decision_without_letter(log: Log, dice: random.Random) -> None:
    log.outputs.remove(dice.choice([raw for raw in log.outputs if raw.topic in LETTERS]))


def wrong_partition(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, REPLIES)
    log.change(raw, partition=(raw.partition + 1) % PARTITIONS, offset=10_000)


def misordered_lane(log: Log, dice: random.Random) -> None:
    """Two decisions of one lane change places."""
    lanes: dict[object, list[Raw]] = {}
    by_key = {one.key: one for one in map(input_fact, log.inputs)}
    for raw in log.outputs:
        if raw.topic in AUDITS:
            place = json.loads(raw.value or b"")["input"]
            lane = by_key[place["topic"], place["partition"], place["offset"]].lane
            if lane:
                lanes.setdefault((raw.topic, raw.partition, lane), []).append(raw)
    many = dice.choice([lane for lane in lanes.values() if len(lane) > 1])
    log.change(many[0], value=many[1].value, headers=many[1].headers)
    log.change(many[1], value=many[0].value, headers=many[0].headers)


def offset_behind(log: Log, dice: random.Random) -> None:
    place = dice.choice(list(log.commits))
    log.commits[place] = Commit(log.commits[place].offset - 1)


def offset_ahead_of_unfinished(log: Log, dice: random.Random) -> None:
    """An input that came in, was passed over by the commit and has no decision yet."""
    raw = dice.choice([raw for raw in log.inputs if input_fact(raw).lane])
    decision = decision_id(BOT, CLUSTER, input_fact(raw).key)
    log.outputs = [one for one in log.outputs if decision.encode() not in (one.value or b"")]


def wrong_decision_id(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="skipped")
    log.edit(raw, decision_id="00000000-0000-5000-8000-000000000000")


def wrong_reply_id(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, REPLIES)
    name = json.loads(raw.value or b"")["reply_id"]
    log.edit(raw, reply_id="another")
    for decision in log.outputs:
        if decision.topic in AUDITS and name.encode() in (decision.value or b""):
            log.edit(decision, reply_ids=["another"])


def private_on_a_public_topic(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, (REPLIES[1],))
    log.change(raw, topic=REPLIES[0], offset=10_000)


def letter_with_other_bytes(log: Log, dice: random.Random) -> None:
    raw = dice.choice([raw for raw in log.outputs if raw.topic in LETTERS])
    log.change(raw, value=(raw.value or b"") + b" ")


def letter_with_another_header(log: Log, dice: random.Random) -> None:
    raw = dice.choice([raw for raw in log.outputs if raw.topic in LETTERS])
    log.change(raw, headers=(("added", b"1"), *raw.headers))


def repeat_answered(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="skipped", reason="duplicate")
    log.edit(raw, reason="no-answer", duplicate_of=None)


def repeat_names_another(log: Log, dice: random.Random) -> None:
    log.edit(log.pick(dice, AUDITS, reason="duplicate"), duplicate_of="another")


def first_skipped(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="skipped", reason="own-post")
    log.edit(raw, reason="duplicate", duplicate_of="another")


def wrong_reason(log: Log, dice: random.Random) -> None:
    log.edit(log.pick(dice, AUDITS, outcome="skipped", reason="own-post"), reason="loop")


def good_input_dead(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="skipped", reason="own-post")
    log.edit(raw, outcome="dead_lettered", reason="deadline")


def trace_of_an_aborted_input(log: Log, dice: random.Random) -> None:
    raw = log.pick(dice, AUDITS, outcome="skipped")
    place = json.loads(raw.value or b"")["input"] | {"offset": 99_999}
    log.edit(raw, input=place)


def unreadable_output(log: Log, dice: random.Random) -> None:
    log.change(log.pick(dice, AUDITS, outcome="skipped"), value=b"not json")


def offset_went_back(log: Log, dice: random.Random) -> None:
    at = dice.randrange(len(log.samples) // 2, len(log.samples))
    sample = log.samples[at]
    log.samples.insert(at + 1, replace(sample, commit=Commit(sample.commit.offset - 1)))


def map_forgot(log: Log, dice: random.Random) -> None:
    """One offset was finished beyond the committed one; then it was not."""
    place = dice.choice(list(log.commits))
    finished = base64.b64encode(bytes([0b10])).decode()
    log.samples[:0] = [Sample(place, Commit(0, f"1b{finished}")), Sample(place, Commit(0))]


CORRUPTIONS: dict[Corruption, set[str]] = {
    lost: {"lost", "torn"},
    doubled_reply: {"twice"},
    doubled_decision: {"twice"},
    doubled_letter: {"twice"},
    decision_without_reply: {"torn"},
    reply_without_decision: {"torn", "lost"},
    skipped_with_a_reply: {"torn"},
    letter_without_decision: {"torn", "lost"},
    decision_without_letter: {"torn"},
    wrong_partition: {"place"},
    misordered_lane: {"misordered"},
    offset_behind: {"torn"},
    offset_ahead_of_unfinished: {"torn", "lost"},
    wrong_decision_id: {"identity"},
    wrong_reply_id: {"identity"},
    private_on_a_public_topic: {"private"},
    letter_with_other_bytes: {"changed"},
    letter_with_another_header: {"changed"},
    repeat_answered: {"repeat"},
    repeat_names_another: {"repeat"},
    first_skipped: {"wrong"},
    wrong_reason: {"wrong"},
    good_input_dead: {"wrong"},
    trace_of_an_aborted_input: {"stray", "lost"},
    unreadable_output: {"stray"},
    offset_went_back: {"backwards"},
    map_forgot: {"backwards"},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_every_corruption_is_caught(corrupt: Corruption, seed: int) -> None:
    log = Log(seed)
    corrupt(log, random.Random(seed))
    assert found(log.evidence()) >= CORRUPTIONS[corrupt]


@pytest.mark.parametrize("seed", SEEDS)
def test_readers_that_differ_and_open_transactions_are_caught(seed: int) -> None:
    evidence = Log(seed).evidence()
    place = random.Random(seed).choice(list(evidence.final))
    seen = {**evidence.seen, place: evidence.seen[place][:-1]}
    assert found(replace(evidence, seen=seen)) == {"readers"}
    ends = {**evidence.ends, place: (1, 2)}
    assert found(replace(evidence, ends=ends)) == {"open"}


def test_commits_that_the_broker_lost_excuse_offsets_and_nothing_else() -> None:
    log = Log(1)
    offset_went_back(log, random.Random(1))
    assert found(replace(log.evidence(), lost_commits=1)) == set()
    lost_reply = next(one for one in CORRUPTIONS if "lost" in CORRUPTIONS[one])
    lost_reply(log, random.Random(1))
    assert found(replace(log.evidence(), lost_commits=1)) >= CORRUPTIONS[lost_reply]


def test_an_unfinished_log_may_lack_decisions_but_must_go_together() -> None:
    log = Log(1)
    offset_ahead_of_unfinished(log, random.Random(1))
    evidence = log.evidence()
    assert found(replace(evidence, drained=False)) == {"torn"}
    place = ("feed.mentions", 0)
    behind = {**evidence.committed, place: Commit(0)}
    assert "torn" in found(replace(Log(1).evidence(), committed=behind, drained=False))


@pytest.mark.parametrize("reason", ["own-post", "duplicate"])
def test_what_faults_spoiled_may_be_a_dead_letter_and_no_more(reason: str) -> None:
    log = Log(1)
    raw = log.pick(random.Random(1), AUDITS, outcome="skipped", reason=reason)
    log.edit(raw, outcome="dead_lettered", reason="deadline", duplicate_of=None)
    kinds = [v.kind for v in check(log.evidence(spoiled=1))]
    assert kinds == ["torn"], "its dead letter is missing, but the outcome is allowed"
    assert "wrong" in {v.kind for v in check(log.evidence())}


def test_an_edit_that_faults_made_a_dead_letter_corrects_nothing() -> None:
    """Its newer revision reached nobody; one that was skipped as an edit must have corrected."""
    log = Log(1)
    reply = log.pick(random.Random(1), REPLIES, part=1)
    uri = json.loads(reply.value or b"")["in_reply_to"]["uri"]
    other = log.pick(random.Random(1), AUDITS, outcome="skipped", reason="own-post")
    where = json.loads(other.value or b"")["input"]
    key = (where["topic"], where["partition"], where["offset"])
    told = [Told(key, uri, 2, "@twite something else entirely")]
    assert "stale" in found(log.evidence(told=told))
    log.edit(other, outcome="dead_lettered", reason="retries-exhausted")
    assert "stale" not in found(log.evidence(told=told, spoiled=1))


def test_also_a_repeat_of_what_is_gone_names_the_first() -> None:
    log = Log(1)
    raw = log.pick(random.Random(1), AUDITS, outcome="skipped", reason="duplicate")
    first = json.loads(raw.value or b"")["duplicate_of"]
    log.edit(raw, reason="deleted", duplicate_of=None)
    before = log.pick(random.Random(1), AUDITS, decision_id=first)
    log.edit(before, reason="deleted", outcome="skipped")
    assert "repeat" in found(log.evidence())


@pytest.mark.parametrize("seed", range(20))
def test_the_map_is_read_as_the_runtime_writes_it(seed: int) -> None:
    """Two readers of one documented format; the writer is the runtime's."""
    dice = random.Random(seed)
    start, end = 1000, 1000 + dice.randrange(2, 400)
    share = dice.choice((0.02, 0.5, 0.98))
    unfinished = [start, *(o for o in range(start + 1, end) if dice.random() < share)]
    commit = Commit(start, encode_map(unfinished, end))
    expected = set(range(start, end)) - set(unfinished)
    assert commit.covered(range(start - 5, end + 5)) == expected | set(range(start - 5, start))


def test_a_map_of_an_unknown_kind_is_no_map() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        _ = Commit(1, "9x").ahead


def test_a_violation_says_where_and_what() -> None:
    assert str(Violation("lost", "feed.mentions/0/1", "no decision")) == (
        "lost: feed.mentions/0/1: no decision"
    )
