"""Slots of the `triton` engine's cache, and how chains of them are read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from idetex_edge.triton.chunks import PARTS, SIZES, chunks_of
from idetex_edge.triton.slots import Chain, Slots


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 700)), min_size=1, max_size=12),
    st.integers(1, 60),
)
def test_every_token_of_every_chain_is_read_once(
    forks: list[tuple[int, int]], programs: int
) -> None:
    """Random trees of forks: chunks cover each chain exactly, and no two write one slot."""
    slots = Slots(2**15)
    chains = [Chain(slots)]
    written = {id(chains[0]): chains[0].append(3)}
    for parent, count in forks:
        source = chains[parent % len(chains)]
        child = source.fork(source.length + count // 2)
        written[id(child)] = [*written[id(source)], *child.append(count)]
        written[id(source)] += source.append(1)
        chains.append(child)
    chunks = chunks_of(chains, 4, programs)
    read: list[list[int]] = [[] for _ in chains]
    for start, count, first, members in (*chunks.single, *chunks.shared):
        assert 0 < count <= SIZES[-1]
        for row in chunks.rows[first : first + members]:
            read[row] += range(start, start + count)
    for row, chain in enumerate(chains):
        assert sorted(read[row]) == sorted(written[id(chain)])
        assert len(written[id(chain)]) == chain.length
        mine = chunks.parts[chunks.offsets[row] : chunks.offsets[row + 1]]
        assert (chunks.rows[mine] == row).all()
    assert all(len(set(w)) == len(w) for w in written.values())


def test_a_large_gpu_is_given_short_chunks() -> None:
    slots = Slots(1024)
    chain = Chain(slots)
    chain.append(1000)
    lengths = {
        programs: chunks_of([chain], 8, programs).single[0][1] for programs in (3, 4, 8, 16, 99)
    }
    assert lengths == {3: 256, 4: 256, 8: 128, 16: 64, 99: 64}


def test_short_chunks_leave_room_for_their_parts() -> None:
    """Where memory for parts is short, chunks are as long as it takes, and no longer."""
    slots = Slots(2**17)
    chains = [Chain(slots) for _ in range(16)]
    for chain in chains:
        chain.append(2048)
    both = [*chains, *(chain.fork(2049) for chain in chains)]
    chunks = chunks_of(both, 8, programs=10**6)
    assert len(chunks.rows) == 32 * 2048 // 64 == PARTS
    both[0].append(1)
    chunks = chunks_of(both, 8, programs=10**6)
    assert chunks.shared[:, 1].max() == 128
    assert len(chunks.rows) == 32 * 2048 // 128 + 1


def test_segments_are_free_again_when_no_chain_holds_them() -> None:
    slots = Slots(256)
    stem = Chain(slots)
    stem.append(20)
    fork = stem.fork(60)
    fork.append(40)
    assert slots.free == 256 - 32 - 48
    del stem
    assert slots.free == 256 - 32 - 48, "the fork still reads its parent's slots"
    assert len(fork.runs) == 2
    del fork
    assert slots.free == 256
    assert slots.take(256).room == 256, "what was given back is one piece again"
