"""The wire format: every message survives the way, in any pieces; nothing else is believed."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.log import wire
from borealis.log.types import CommitPoint, WireError
from tests.unit.log.helpers import history

U64 = st.integers(0, (1 << 64) - 1)
TEXT = st.text(max_size=20)
BYTES = st.binary(max_size=300)
HISTORIES = st.sampled_from([history(), history((1, 0)), history((1, 0), (2, 100), (7, 100))])
BLOBS = st.builds(wire.BlobInfo, TEXT, U64, TEXT)
POINTS = st.builds(CommitPoint, U64, U64)
RANGES = st.lists(st.tuples(U64, U64), max_size=3).map(tuple)

MESSAGES: st.SearchStrategy[wire.Message] = st.one_of(
    st.builds(wire.Hello, TEXT, st.sampled_from(wire.Purpose), U64),
    st.builds(wire.HelloReply, TEXT, TEXT, st.booleans()),
    st.builds(wire.Error, TEXT, TEXT),
    st.builds(wire.Create, TEXT, HISTORIES),
    st.builds(wire.Created, U64, U64),
    st.builds(wire.Drop),
    st.builds(wire.Dropped),
    st.builds(wire.Status),
    st.builds(
        wire.StatusReply,
        *(TEXT, TEXT, TEXT, U64, HISTORIES, U64, U64, POINTS, U64),
        *(RANGES, st.lists(BLOBS, max_size=2).map(tuple), U64),
    ),
    st.builds(wire.Vote, U64, TEXT),
    st.builds(wire.VoteReply, st.booleans(), U64, HISTORIES, U64, POINTS),
    st.builds(wire.NewTerm, U64, HISTORIES),
    st.builds(wire.NewTermReply, st.booleans(), U64, HISTORIES, U64),
    st.builds(wire.Append, U64, U64, U64, U64, BYTES),
    st.builds(wire.Ack, U64, U64, U64, st.booleans()),
    st.builds(wire.Refused, st.sampled_from(wire.Reason), U64, U64, HISTORIES),
    st.builds(wire.Commit, U64, U64),
    st.builds(wire.Subscribe, U64),
    st.builds(wire.History, HISTORIES),
    st.builds(wire.Data, U64, BYTES, U64),
    st.builds(wire.Read, U64, U64, U64, U64),
    st.builds(wire.BlobPut, TEXT, U64, U64, TEXT, st.booleans(), BYTES),
    st.builds(wire.BlobOk, TEXT, U64),
    st.builds(wire.BlobData, TEXT, U64, U64, TEXT, BYTES),
    st.builds(wire.BlobGet, TEXT, U64, U64),
    st.builds(wire.BlobDelete, TEXT),
    st.builds(wire.Trim, U64),
    st.builds(wire.Trimmed, U64),
)


@settings(max_examples=300)
@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_messages_survive_any_cutting(messages: list[wire.Message], sizes: list[int]) -> None:
    stream = b"".join(message.encode() for message in messages)
    reader, received, position, turn = wire.FrameReader(), [], 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        received += [wire.decode(*item) for item in reader.feed(stream[position : position + size])]
        position, turn = position + size, turn + 1
    assert received == messages


@given(st.integers(0, 255), st.binary(max_size=80))
def test_noise_is_refused_with_one_error_only(kind: int, payload: bytes) -> None:
    try:
        wire.decode(kind, payload)
    except WireError:
        return


def test_every_kind_has_a_message() -> None:
    assert set(wire._CLASSES) == set(wire.Kind)


def test_damaged_data_is_noticed() -> None:
    for message in (wire.Append(1, 2, 3, 4, b"abc"), wire.Data(7, b"abc", 1)):
        damaged = bytearray(message.encode())
        damaged[-1] ^= 1
        ((kind, payload),) = wire.FrameReader().feed(damaged)
        with pytest.raises(WireError, match="damaged"):
            wire.decode(kind, payload)


@pytest.mark.parametrize("length", [0, wire.FRAME_BYTES_MAX + 1])
def test_impossible_lengths_end_the_stream(length: int) -> None:
    with pytest.raises(WireError, match="frame of"):
        wire.FrameReader().feed(struct.pack(">IB", length, 8))


def test_too_long_messages_are_not_sent() -> None:
    with pytest.raises(WireError, match="above the limit"):
        wire.Append(1, 1, 1, 1, bytes(wire.FRAME_BYTES_MAX)).encode()


def test_unknown_fields_are_ignored_and_missing_ones_refused() -> None:
    body = json.dumps({"term": 3, "writer": "w", "later": 1}).encode()
    assert wire.decode(wire.Kind.VOTE, body) == wire.Vote(3, "w")
    with pytest.raises(WireError, match="VOTE"):
        wire.decode(wire.Kind.VOTE, b'{"term":3}')


def test_payload_views_outlive_the_reader() -> None:
    reader = wire.FrameReader()
    ((kind, first),) = reader.feed(wire.Data(1, b"first").encode())
    reader.feed(wire.Data(1, b"other").encode())
    assert wire.decode(kind, first) == wire.Data(1, b"first")
