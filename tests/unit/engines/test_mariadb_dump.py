"""The conversation with a replica and the stream of events, without sockets: what is sent of which log."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from borealis.engines.mariadb import protocol as p
from borealis.engines.mariadb.binlog import EventHeader, EventType
from borealis.engines.mariadb.dump import ReplicaConversation, Served
from borealis.engines.mariadb.gtid import Gtid
from borealis.engines.mariadb.handshake import ServerHandshake
from borealis.engines.mariadb.history import LogPoint, TimelineHistory
from borealis.engines.mariadb.logindex import LogIndex
from borealis.engines.mariadb.positions import PositionMap
from borealis.engines.mariadb.queries import ReplicaQueries

from .binlogs import TIMESTAMP_LIKE_MAGIC, FakeBinlog
from .mariadb_replica_client import SETTINGS, ReplicaClient, command, dump_request, login, query
from .memory_feed import MemoryFeed

MIB = 1 << 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Room:
    """A feed, the index, and a conversation with its client."""

    def __init__(self, directory: Path, feed: MemoryFeed) -> None:
        self.feed = feed
        self.index = LogIndex(feed, PositionMap())
        self.served = Served(feed, self.index, directory, "10.11.19-MariaDB", "me", "secret")
        self.clock = Clock()
        self.begins = 0
        self.connect()

    def connect(self) -> None:
        self.talk = ReplicaConversation(self.served, 1, self.clock)
        self.client = ReplicaClient()

    def say(self, data: bytes, expected: int = 1) -> list[bytes]:
        self.client.expected = expected
        self.client.messages.clear()
        self.talk.receive(data)
        self.pump()
        return list(self.client.messages)

    def pump(self) -> None:
        """Everything that can be done now; old log is given in pieces of odd sizes."""
        while True:
            more = self.index.advance()
            while (output := self.talk.next_output()) is not None:
                self.client.feed(output)
            for side in (self.index, self.talk):
                if side.wanted is not None:
                    start, end = side.wanted
                    stop = min(end, start + 7001)
                    side.provide(
                        start, bytes(self.feed.log[start - self.feed.start : stop - self.feed.start])
                    )
                    more = True
            if not more and self.index.wanted is None and self.begins == self.index.begins:
                return
            self.begins = self.index.begins

    def dump(self, gtid: str = "") -> None:
        self.pump()
        assert self.say(login(self.client.messages[0], "me", "secret"), 2) == [p.OK]
        for setting in SETTINGS:
            assert self.say(query(setting.format(gtid=gtid))) == [p.OK]
        self.client.dumping = True
        self.say(dump_request())


def feed_of(log: FakeBinlog, gtid: Gtid | None = None) -> MemoryFeed:
    feed = MemoryFeed("m", log.start)
    feed.timelines = {1: (log.start, None, history(log, gtid))}
    return feed


def history(log: FakeBinlog, gtid: Gtid | None = None) -> str:
    length = EventHeader.parse(log.data, 4).length
    return TimelineHistory(7, gtid, log.data[4 : 4 + length]).to_text()


def groups(log: FakeBinlog, after: int = 0) -> bytes:
    found = [log.data[s - log.start : e - log.start] for kind, s, e in log.units if kind == "GROUP"]
    return b"".join(found[after:])


def some_log() -> FakeBinlog:
    log = FakeBinlog()
    log.begin_file()
    for number in range(20):
        log.transaction(10, 300 + number)
        log.statement(b"CREATE TABLE t (a INT)")
        if number % 6 == 5:
            log.rotate()
    log.transaction(1, timestamp=TIMESTAMP_LIKE_MAGIC)
    log.transaction(200_000, 5, 70_000, 100, ending=b"COMMIT")
    log.transaction(5)
    return log


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_whole_groups_wherever_the_log_is_cut(tmp_path: Path, seed: int, forgotten: bool) -> None:
    log = some_log()
    room = Room(tmp_path, feed_of(log))
    if forgotten:
        room.feed.forgotten = log.end
    room.feed.append(log.data, durable=False)
    room.dump()
    for cut in sorted(random.Random(seed).randint(log.start, log.end) for _ in range(200)):
        room.feed.advance(cut)
        room.pump()
        assert room.client.whole
        whole = [e for kind, s, e in log.units if kind == "GROUP" and e <= cut]
        expected = sum(e - s for kind, s, e in log.units if kind == "GROUP" and e <= cut)
        assert len(room.client.log) == expected
        assert room.index.positions.gtid_at(cut) == (Gtid(0, 7, len(whole)) if whole else None)
    room.feed.advance(log.end)
    room.pump()
    assert room.client.log == groups(log)
    assert room.talk.sent == log.end
    starts = [s for kind, s, _ in log.units if kind == "MAGIC"]
    assert room.client.file_names == [f"borealis.{lsn:016x}" for lsn in (log.start, *starts)]
    descriptions = [e for e in room.client.events if e[4] == EventType.FORMAT_DESCRIPTION]
    assert len(descriptions) == 1 + len(starts)
    assert not any(e[17] & 1 for e in descriptions), "no file is said to be in use"


@pytest.mark.parametrize("length", [2**24 - 3, 2**24 - 2, 2**24 - 1, 2**24, 2 * (2**24 - 1) - 1, 40_000_000])
def test_events_that_fill_packets(tmp_path: Path, length: int) -> None:
    """`length`: of one event; with a byte before it, it is the message."""
    log = FakeBinlog()
    log.begin_file()
    log.transaction(length - 23)
    log.transaction(10)
    room = Room(tmp_path, feed_of(log))
    room.feed.append(log.data)
    room.dump()
    assert room.client.whole
    assert room.client.log == groups(log)


def test_output_is_made_piece_by_piece(tmp_path: Path) -> None:
    log = FakeBinlog()
    log.begin_file()
    log.transaction(20 * MIB)
    log.transaction(*([1000] * 3000))
    room = Room(tmp_path, feed_of(log))
    room.dump()
    room.feed.append(log.data)
    while room.index.advance():
        pass
    sizes = []
    while (output := room.talk.next_output()) is not None:
        sizes.append(len(output))
        room.client.feed(output)
        assert len(room.talk._stream._held if room.talk._stream else b"") <= MIB
    assert max(sizes) < MIB
    assert room.client.log == groups(log)


def test_a_replica_gets_what_comes_after_its_own(tmp_path: Path) -> None:
    log = some_log()
    room = Room(tmp_path, feed_of(log))
    room.feed.append(log.data)
    for known in (0, 1, 2, 17, log.sequence - 1, log.sequence):
        room.connect()
        room.dump(f"0-7-{known}" if known else "")
        assert room.client.log == groups(log, known)
        assert not room.client.error


def test_a_replica_begins_at_the_nearest_place(tmp_path: Path) -> None:
    log = some_log()
    ends = [e for kind, _, e in log.units if kind == "GROUP"]
    (tmp_path / "attached.json").write_text(LogPoint(ends[9], Gtid(0, 7, 10)).to_text())
    room = Room(tmp_path, feed_of(log))
    room.feed.append(log.data)
    room.dump("0-7-12")
    assert room.client.log == groups(log, 12)
    assert room.index.start == ends[9]
    room.connect()
    room.dump("0-7-5")
    assert room.client.log == groups(log, 5)
    assert room.index.start == log.start


def test_a_replica_that_is_ahead_waits(tmp_path: Path) -> None:
    log = some_log()
    room = Room(tmp_path, feed_of(log))
    room.dump("0-7-30")
    ends = [e for kind, _, e in log.units if kind == "GROUP"]
    room.feed.append(log.data, durable=False)
    room.feed.advance(ends[10])
    room.pump()
    room.clock.now += 2
    room.talk.tick()
    room.pump()
    assert room.client.events[-1][4] == EventType.HEARTBEAT
    assert not room.client.log
    room.feed.advance(log.end)
    room.pump()
    assert room.client.log == groups(log, 30)


@pytest.mark.parametrize("gtid", ["0-8-30", "0-8-1"])
def test_a_replica_that_has_another_groups_place_is_stopped(tmp_path: Path, gtid: str) -> None:
    log = some_log()
    room = Room(tmp_path, feed_of(log))
    room.feed.append(log.data)
    room.dump(gtid)
    assert gtid in room.client.error
    assert "made again from an image" in room.client.error
    assert not room.client.log
    assert room.talk.closed


def test_a_replica_that_is_older_than_the_log_is_stopped(tmp_path: Path) -> None:
    log = some_log()
    log.sequence = 100
    room = Room(tmp_path, feed_of(log, Gtid(0, 7, 100)))
    room.dump("0-7-99")
    assert "older than the volume's log" in room.client.error
    assert "0-7-100" in room.client.error


@pytest.mark.parametrize("early", [False, True])
def test_a_torn_group_is_cut_off(tmp_path: Path, early: bool) -> None:
    """`early`: the timeline is known to end before what it tore was looked at."""
    old = FakeBinlog()
    old.begin_file()
    old.transaction(10)
    switch = old.end
    old.transaction(100, 200)
    torn = switch + 150
    new = FakeBinlog(switch)
    new.begin_file()
    new.sequence = 1
    new.transaction(77)
    new.statement(b"DROP TABLE t")
    room = Room(tmp_path, feed_of(old))
    room.dump()
    room.feed.append(old.data[: torn - old.start], durable=False)
    if not early:
        room.feed.advance(torn)
        room.pump()
    room.feed.cut(switch)
    room.feed.begin_timeline(2, switch, history(new, Gtid(0, 7, 1)))
    room.feed.append(new.data)
    room.pump()
    assert room.client.log == groups(old)[: -(old.end - switch)] + groups(new)
    assert room.index.positions.newest.gtid == Gtid(0, 7, 3)
    assert room.client.file_names[-1] == f"borealis.{switch:016x}"
    # Another one begins on the newer timeline.
    room.connect()
    room.dump("0-7-2")
    assert room.client.log == groups(new, 1)


def test_a_torn_group_that_stays_in_the_log_is_left_out(tmp_path: Path) -> None:
    old = FakeBinlog()
    old.begin_file()
    old.transaction(10)
    before = old.end
    old.transaction(100, 200)
    torn = before + 150
    new = FakeBinlog(torn)
    new.begin_file()
    new.sequence = 1
    new.transaction(77)
    room = Room(tmp_path, feed_of(old))
    room.dump()
    room.feed.append(old.data[: torn - old.start])
    room.pump()
    room.feed.begin_timeline(2, torn, history(new, Gtid(0, 7, 1)))
    room.feed.append(new.data)
    room.pump()
    assert room.client.log == groups(old)[: -(old.end - before)] + groups(new)


def test_a_damaged_log_is_not_served(tmp_path: Path) -> None:
    log = FakeBinlog()
    log.begin_file()
    log.transaction(10)
    room = Room(tmp_path, feed_of(log))
    room.dump()
    room.feed.append(log.data)
    room.feed.append(bytes(100))
    room.pump()
    assert room.client.log == groups(log)
    assert room.index.failure is not None
    assert not room.index.begun


def test_heartbeats_name_the_file(tmp_path: Path) -> None:
    log = some_log()
    room = Room(tmp_path, feed_of(log))
    room.feed.append(log.data)
    room.dump()
    sent = len(room.client.events)
    room.talk.tick()
    room.pump()
    assert len(room.client.events) == sent, "not before it is due"
    room.clock.now += 2.1
    room.talk.tick()
    room.pump()
    beat = room.client.events[-1]
    assert beat[4] == EventType.HEARTBEAT
    assert beat[19:-4].decode() == room.client.file_names[-1]
    assert beat[13:17] == b"\xff" * 4


def test_the_log_may_come_later(tmp_path: Path) -> None:
    log = some_log()
    feed = feed_of(log)
    known, feed.timelines = feed.timelines, {}
    room = Room(tmp_path, feed)
    room.dump()
    assert not room.client.events
    assert not room.talk.streaming
    feed.timelines = known
    feed.append(log.data)
    room.pump()
    assert room.client.log == groups(log)
    feed.timelines = {}
    room.connect()
    room.dump()
    room.clock.now += 3
    room.talk.tick()
    assert room.talk.closed, "it asks again"


# ---- the conversation ------------------------------------------------------------------------------------


def test_only_the_engine_is_let_in(tmp_path: Path) -> None:
    room = Room(tmp_path, feed_of(some_log()))
    for user, password in (("me", "wrong"), ("you", "secret"), ("", "")):
        room.connect()
        room.pump()
        (answer,) = room.say(login(room.client.messages[0], user, password), 2)
        assert answer.startswith(b"\xff" + (1045).to_bytes(2, "little"))
        assert room.talk.closed
        assert b"secret" not in answer
    assert "secret" not in repr(room.served)


def test_another_method_is_changed_for_ours(tmp_path: Path) -> None:
    room = Room(tmp_path, feed_of(some_log()))
    room.pump()
    greeting = room.client.messages[0]
    (answer,) = room.say(login(greeting, "me", "secret", b"caching_sha2_password"), 2)
    assert answer.startswith(b"\xfemysql_native_password\0")
    proof = login(greeting, "me", "secret")
    at = 4 + 32 + 3 + 1
    assert room.say(p.packets(3, proof[at : at + 20]), 4) == [p.OK]


def test_old_and_encrypted_clients_are_refused() -> None:
    for body in (bytes(32), (0x800 | 0x8200).to_bytes(4, "little") + bytes(28), b"short"):
        with pytest.raises(p.ProtocolError):
            ServerHandshake("10.11", "me", "secret").receive(body)


def test_questions_and_answers(tmp_path: Path) -> None:
    room = Room(tmp_path, feed_of(some_log()))
    room.pump()
    room.say(login(room.client.messages[0], "me", "secret"), 2)
    assert room.say(query("SHOW VARIABLES LIKE 'SERVER_ID'"))[4] == b"\x09SERVER_ID\x0a4000000000"
    assert len(room.say(query("SHOW VARIABLES LIKE 'rpl_semi_sync_master_enabled'"))) == 5, "no row"
    assert room.say(query("SELECT @master_binlog_checksum"))[3] == b"\x05CRC32"
    assert room.say(query("SELECT @@GLOBAL.gtid_domain_id"))[3] == b"\x010"
    assert room.say(query("SELECT UNIX_TIMESTAMP()"))[3][1:].isdigit()
    assert room.say(query("SET NAMES utf8")) == [p.OK]
    assert room.say(query("DROP TABLE x"))[0][0] == 0xFF
    assert room.say(command(p.COM_PING)) == [p.OK]
    assert room.say(command(p.COM_REGISTER_REPLICA, (77).to_bytes(4, "little") + bytes(14))) == [p.OK]
    assert room.talk.name == "engine 77"
    assert room.say(command(0x1B))[0][0] == 0xFF
    (refusal,) = room.say(dump_request())
    assert b"MASTER_USE_GTID" in refusal
    room.connect()
    room.dump()
    with pytest.raises(p.ProtocolError):
        room.talk.receive(query("SELECT 1"))
    room.talk.receive(command(p.COM_QUIT))
    assert room.talk.closed


def test_what_a_replica_sets() -> None:
    queries = ReplicaQueries("10.11")
    assert queries.connect_state is None
    assert queries.heartbeat_seconds == 10
    for setting in SETTINGS:
        queries.answer(setting.format(gtid="0-1-2"))
    assert queries.connect_state == "0-1-2"
    assert queries.heartbeat_seconds == 2
    assert queries.knows_gtid
    assert queries.knows_checksums


def test_impossible_packets() -> None:
    reader = p.PacketReader()
    reader.feed(b"GET / HTTP/1.1")
    with pytest.raises(p.ProtocolError):
        reader.next()
    for data in (b"", b"\xfb", b"\x05ab"):
        with pytest.raises(p.ProtocolError):
            p.take_length_encoded(data, 0)
    for size in (0, 250, 251, 65535, 65536):
        assert p.take_length_encoded(p.length_encoded(bytes(size)), 0)[0] == bytes(size)
