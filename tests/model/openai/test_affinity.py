"""Which prefix is warm where."""

from model.openai.affinity import BLOCK, SeenPrefixes, block_keys


def test_the_longest_known_run_from_the_start_counts() -> None:
    seen = SeenPrefixes()
    system, talk = list(range(5 * BLOCK)), [7] * (3 * BLOCK)
    seen.add(block_keys([*system, *talk]))
    assert seen.warm(block_keys([*system, *talk, 1, 2, 3])) == 8
    assert seen.warm(block_keys([*system, *[9] * 100])) == 5
    assert seen.warm(block_keys(talk)) == 0  # the same block elsewhere is another one
    assert seen.warm([]) == 0


def test_a_key_covers_all_that_stands_before_it() -> None:
    first, second = block_keys([1] * 2 * BLOCK), block_keys([2] * BLOCK + [1] * BLOCK)
    assert not {*first} & {*second}
    assert len(block_keys([1] * (BLOCK - 1))) == 0


def test_what_was_unused_longest_is_forgotten() -> None:
    seen = SeenPrefixes(kept=4)
    old, new = block_keys([1] * 2 * BLOCK), block_keys([2] * 2 * BLOCK)
    seen.add(old)
    seen.add(new)
    seen.add(old)  # used again
    seen.add(block_keys([3] * 2 * BLOCK))
    assert (seen.warm(old), seen.warm(new)) == (2, 0)
    seen.forget()
    assert seen.warm(old) == 0
