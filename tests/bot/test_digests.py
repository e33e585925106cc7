"""Digests of ids: the same for the same, another one for anything else."""

import pytest

from bot.digests import digest_of


@pytest.mark.parametrize("size", [8, 16])
def test_it_has_its_size_whatever_the_ids(size: int) -> None:
    for parts in ((), ("",), ("a" * 10_000, "\U0001f600"), ("\ud800",)):
        assert len(digest_of(*parts, size=size)) == size
        assert digest_of(*parts, size=size) == digest_of(*parts, size=size)


def test_no_part_is_mistaken_for_its_neighbour() -> None:
    alike = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("c", "ab")]
    assert len({digest_of(*parts, size=8) for parts in alike}) == len(alike)
