"""What was done to the log, and what the seals say of it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bot.sealing.check import Fault, Wrong
from bot.sealing.digests import erase
from bot.sealing.seals import Head, output_of, seal_digest
from schemas.codec import decode
from schemas.record import Record
from schemas.seals import AuditSealed
from tests.bot.make import NOW
from tests.bot.sealing.made import chain_of, decision, judged, log_of


async def test_what_nobody_touched_holds() -> None:
    records = log_of(10)
    found = await judged(records, chain_of(records))
    assert (found.records, found.good, found.faulty, found.unsealed) == (10, 10, 0, 0)
    assert found.head == Head.of(chain_of(records)[-1])
    assert found.holds_from == 0


async def test_it_holds_without_its_texts() -> None:
    records = log_of(10)
    found = await judged([erase(one) for one in records], chain_of(records))
    assert (found.good, found.erased, found.faulty) == (10, 10, 0)


@given(at=st.integers(0, 9))
async def test_a_changed_record_is_named(at: int) -> None:
    records = log_of(10)
    seals = chain_of(records)
    records[at] = replace(records[at], timestamp_ms=7)
    found = await judged(records, seals)
    assert found.faults == [Fault(Wrong.CHANGED, f"bot.audit/1/{2 * at}")]
    assert found.good == 9


@given(at=st.integers(0, 9))
async def test_a_removed_record_is_named_also_the_last(at: int) -> None:
    records = log_of(10)
    seals = chain_of(records)
    del records[at]
    found = await judged(records, seals)
    assert found.faults == [Fault(Wrong.MISSING, f"bot.audit/1/{2 * at}")]


@given(at=st.integers(0, 8))
async def test_a_record_that_was_put_in_is_named(at: int) -> None:
    records = log_of(10)
    seals = chain_of(records)
    records.insert(at + 1, decision(2 * at + 1))
    found = await judged(records, seals)
    assert found.faults == [Fault(Wrong.ADDED, f"bot.audit/1/{2 * at + 1}")]
    assert found.good == 10


@given(at=st.integers(0, 8))
async def test_two_that_were_swapped_are_named(at: int) -> None:
    records = log_of(10)
    seals = chain_of(records)
    one, other = records[at : at + 2]
    records[at] = replace(other, offset=one.offset)
    records[at + 1] = replace(one, offset=other.offset)
    found = await judged(records, seals)
    places = [f"bot.audit/1/{2 * at}", f"bot.audit/1/{2 * at + 2}"]
    assert found.faults == [Fault(Wrong.CHANGED, place) for place in places]


@given(at=st.integers(0, 8))
async def test_another_order_is_found(at: int) -> None:
    records = log_of(10)
    seals = chain_of(records)
    records[at], records[at + 1] = records[at + 1], records[at]
    assert (await judged(records, seals)).faulty


@given(at=st.integers(1, 2))
async def test_a_seal_that_is_gone_breaks_the_chain(at: int) -> None:
    records = log_of(12)
    seals = chain_of(records)
    del seals[at]
    found = await judged(records, seals)
    assert found.faults == [Fault(Wrong.BROKEN_LINK, f"bot.audit/1 seal {at + 1}")]
    assert (found.good, found.unsealed) == (9, 3)


async def test_a_changed_seal_is_named_and_what_it_hid_as_well() -> None:
    records = log_of(12)
    seals = chain_of(records)
    records[4] = replace(records[4], key=b"other")
    lying = chain_of([records[3], records[4], records[5]])[0]
    seals[1] = seals[1].model_copy(update={"digests": lying.digests})
    found = await judged(records, seals)
    assert found.faults == [Fault(Wrong.BROKEN_SEAL, "bot.audit/1 seal 1")]


async def test_a_seal_that_was_made_anew_does_not_fit_the_next() -> None:
    records = log_of(12)
    seals = chain_of(records)
    anew = seals[1].model_copy(update={"offsets": seals[1].offsets[:2]})
    anew = anew.model_copy(update={"digests": anew.digests[:2]})
    seals[1] = anew.model_copy(update={"digest": seal_digest(anew)})
    del records[5]
    found = await judged(records, seals)
    assert found.faults == [Fault(Wrong.BROKEN_LINK, "bot.audit/1 seal 2")]


async def test_what_nobody_sealed_yet_is_told_and_no_fault() -> None:
    records = log_of(10)
    found = await judged(records, chain_of(records[:6]))
    assert (found.good, found.unsealed, found.unsealed_from, found.faulty) == (6, 4, 12, 0)
    bare = await judged(records, [])
    assert (bare.good, bare.unsealed, bare.head, bare.faulty) == (0, 10, None, 0)


async def test_retention_of_the_front_is_no_fault() -> None:
    records = log_of(10)
    seals = chain_of(records)
    found = await judged(records[4:], seals, first=8)
    assert (found.good, found.cut, found.holds_from, found.faulty) == (6, 4, 8, 0)
    both = await judged(records[7:], seals[2:], first=14)
    assert (both.good, both.cut, both.faulty) == (3, 1, 0)


async def test_seals_that_are_gone_before_their_records_are_a_fault() -> None:
    records = log_of(9)
    found = await judged(records, chain_of(records)[1:])
    assert found.faults == [Fault(Wrong.SEALS_GONE, "bot.audit/1 seal 0")]
    assert (found.good, found.unsealed) == (6, 3)


async def test_of_a_stretch_nothing_before_or_behind_is_missing() -> None:
    records = log_of(10)
    found = await judged(records[4:7], chain_of(records), first=8, end=14)
    assert (found.good, found.faulty) == (3, 0)


def test_a_seal_travels_and_its_end_can_be_read_back() -> None:
    made: AuditSealed = chain_of(log_of(3))[0]
    out = output_of(made, NOW)
    record = Record(out.topic, 1, 0, 0, out.key, out.value, out.headers)
    assert decode(record).data == made
    head = Head.of(made)
    assert Head.read(head.end, head.metadata) == head
    assert Head.read(5, "") is None
    assert Head.read(5, "x 00") is None
