"""Block ids: none lost, none handed out twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.blocks import BlockAllocator
from tests.support.scheduler_run import check_blocks

MOVES = st.lists(
    st.tuples(st.sampled_from(["take", "give", "name", "share"]), st.integers(0, 8)), max_size=60
)


@given(blocks=st.integers(1, 12), moves=MOVES)
def test_names_and_holders_are_those_of_a_dictionary(
    blocks: int, moves: list[tuple[str, int]]
) -> None:
    """Whoever takes, names, shares and gives: each block is held, or free, and its name is one."""
    allocator = BlockAllocator(blocks)
    held: list[int] = []
    names: dict[int, bytes] = {}  # by block
    idle: list[int] = []  # named blocks that nobody holds, let go longest ago first
    for move, number in moves:
        name = bytes([number])
        if move == "take" and number <= allocator.free:
            plain = blocks - len(set(held)) - len(idle)
            gone, idle = idle[: max(0, number - plain)], idle[max(0, number - plain) :]
            for block in gone:
                del names[block]
            taken = allocator.allocate(number)
            assert set(gone) <= set(taken)
            assert not set(taken) & {*held, *idle}
            held += taken
        elif move == "give" and held:
            block = held.pop(number % len(held))
            allocator.release([block])
            if block not in held and block in names:
                idle.append(block)
        elif move == "name":
            alone = [block for block in held if held.count(block) == 1 and block not in names]
            if alone:
                allocator.name(alone[0], name)
                if name not in names.values():
                    names[alone[0]] = name
        elif move == "share" and (known := allocator.find(name)) is not None:
            allocator.share([known])
            held.append(known)
            idle = [block for block in idle if block != known]
        check_blocks(allocator, held)
        assert allocator._names == names
        assert list(allocator._idle) == idle
        assert {number: allocator.find(bytes([number])) for number in range(9)} == {
            number: next((b for b, own in names.items() if own == bytes([number])), None)
            for number in range(9)
        }


def test_misuse_of_names_is_refused() -> None:
    """Sharing what has no name, and naming what others hold or what has one, raises ValueError."""
    allocator = BlockAllocator(3)
    allocator.allocate(2)
    allocator.name(0, b"a")
    for wrong in ([1], [2], [0, 0], [-1]):
        with pytest.raises(ValueError, match="no name, or twice"):
            allocator.share(wrong)
    for block in (0, 2):
        with pytest.raises(ValueError, match="not its one holder's"):
            allocator.name(block, b"b")
    allocator.share([0])
    assert (allocator.holders(0), allocator.used) == (2, 2)


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
