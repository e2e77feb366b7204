"""The ring of the newest log bytes against a plain byte string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from borealis.volume.ring import LogRing


@given(
    capacity=st.integers(1, 64),
    position=st.integers(0, 1000),
    pieces=st.lists(st.one_of(st.binary(max_size=100), st.integers(0, 120)), max_size=30),
)
def test_ring_holds_the_newest_bytes(capacity: int, position: int, pieces: list[bytes | int]) -> None:
    ring = LogRing(capacity, position)
    model = b""  # Everything since `position`.
    for piece in pieces:
        if isinstance(piece, bytes):
            ring.append(piece)
            model += piece
        else:
            end = max(position, ring.end - piece)
            if end < ring.start:
                position, model = end, b""
            else:
                model = model[: end - position]
            ring.truncate(end)
        assert ring.end == position + len(model)
        assert 0 <= ring.end - ring.start <= capacity
        assert ring.read(ring.start, ring.end) == model[ring.start - position :]


def test_ring_refuses_what_it_does_not_hold() -> None:
    ring = LogRing(8, 100)
    ring.append(b"0123456789")
    assert (ring.start, ring.end) == (102, 110)
    assert ring.read(102, 110) == b"23456789"
    assert ring.read(101, 110) is None
    assert ring.read(105, 111) is None
    assert ring.read(104, 104) == b""


def test_reset_forgets_everything() -> None:
    ring = LogRing(8, 0)
    ring.append(b"abc")
    ring.reset(40)
    assert ring.read(0, 3) is None
    ring.append(b"xyz")
    assert ring.read(40, 43) == b"xyz"
