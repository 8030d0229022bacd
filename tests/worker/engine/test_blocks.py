"""Block ids: none lost, none handed out twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.blocks import BlockAllocator


@given(
    blocks=st.integers(1, 20),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=40),
)
def test_blocks_are_conserved(blocks: int, steps: list[tuple[bool, int]]) -> None:
    """Whatever is allocated and freed, every block is free or held once."""
    allocator = BlockAllocator(blocks)
    held: list[int] = []
    for allocate, count in steps:
        if allocate and count <= allocator.free:
            held += allocator.allocate(count)
        elif not allocate:
            allocator.release(held[:count])
            del held[:count]
        assert sorted(set(held)) == sorted(held)
        assert set(held) <= set(range(blocks))
        assert allocator.free == blocks - len(held)
        assert allocator.used == len(held)
    rest = allocator.allocate(allocator.free)
    assert sorted(rest + held) == list(range(blocks))


@pytest.mark.parametrize("wrong", [[0], [2], [1, 1], [-1], [4], [1, 3]])
def test_wrong_frees_are_refused_whole(wrong: list[int]) -> None:
    """A block that is free, unknown or named twice raises, and nothing has been freed then."""
    allocator = BlockAllocator(4)
    held = allocator.allocate(2)
    allocator.release([0])
    held.remove(0)
    with pytest.raises(ValueError, match="freed twice or never allocated"):
        allocator.release(wrong)
    assert allocator.used == 1
    allocator.release(held)
    assert allocator.free == 4


def test_more_than_free_is_refused() -> None:
    """Asking for more than there is raises with the numbers and takes nothing."""
    allocator = BlockAllocator(3)
    allocator.allocate(1)
    with pytest.raises(ValueError, match="3 blocks asked, 2 of 3 free"):
        allocator.allocate(3)
    assert allocator.free == 2
    with pytest.raises(ValueError, match="at least one block"):
        BlockAllocator(0)
