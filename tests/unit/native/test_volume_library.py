"""The volume library in front of a stand-in engine: what waits, what does not, and what ends the engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from borealis.volume.device import DeviceMode, LogDevice, boottime_ns

from .conftest import Engine, EngineStarter
from .waiting import until, until_syncing

SEGMENT = 16 << 20
PAGE = "b'x' * 8192"


def test_the_engine_registers(engine: Engine, device: LogDevice) -> None:
    assert device.engine_pid == engine.process.pid
    assert device.attached == 1


def test_a_reader_never_waits(engine: Engine, device: LogDevice) -> None:
    engine.run(f"os.pwrite(log, {PAGE}, 0)")
    engine.run("os.fdatasync(log)")
    assert device.counters().syncs_waited == 0
    assert (device.write_seq, device.written_lsn, device.timeline) == (1, SEGMENT + 8192, 1)


def test_a_sync_waits_for_its_release(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start("os.fdatasync(log)")
    seq = until_syncing(device)
    assert seq == 1
    assert writer.busy
    assert device.release(seq) == 1
    assert writer.answer() is None
    assert device.waiters == 0


def test_a_second_version_of_the_same_page_waits_again(writer: Engine, device: LogDevice) -> None:
    for seq in (1, 2, 3):
        writer.run(f"os.pwrite(log, {PAGE}, 8192)")
        writer.start("os.fdatasync(log)")
        until_syncing(device, seq)
        assert device.written_lsn == SEGMENT + 16384
        assert writer.busy
        device.release(seq)
        writer.answer()


def test_a_sync_after_the_release_does_not_wait(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    device.release(1)
    writer.run("os.fdatasync(log)")
    assert device.counters().syncs_waited == 0


def test_a_release_below_the_last_write_is_not_enough(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.run(f"os.pwrite(log, {PAGE}, 8192)")
    writer.start("os.fdatasync(log)")
    until_syncing(device, 2)
    device.release(1)
    until_syncing(device, 2)
    assert writer.busy
    device.release(2)
    writer.answer()


@pytest.mark.parametrize(
    "call",
    [
        "os.fdatasync(log)",
        "os.fsync(log)",
        "call('syncfs', log)",
        "os.sync()",
        "os.fsync(os.dup(log))",
        "os.fsync(os.dup2(log, 200))",
        "os.fsync(os.dup2(log, 200, inheritable=False))",
        "call('fsync', call('fcntl', log, 0, 300)[0])",
        "call('fsync', call('fcntl64', log, 1030, 300)[0])",
        "os.fsync(os.open('pg_wal/000000010000000000000001', os.O_RDONLY))",
        "os.fsync(os.open('../data/pg_wal/000000010000000000000001', os.O_RDWR))",
        "os.fsync(os.open('000000010000000000000001', os.O_RDWR, dir_fd=os.open('pg_wal', os.O_RDONLY)))",
        "call('fsync', call('open', b'pg_wal/000000010000000000000001', 2)[0])",
        "call('fsync', call('__open_2', b'pg_wal/000000010000000000000001', 2)[0])",
        "call('fsync', call('__open64_2', b'pg_wal/000000010000000000000001', 2)[0])",
        "call('fsync', call('__openat_2', -100, b'pg_wal/000000010000000000000001', 2)[0])",
        "call('fsync', call('openat', -100, b'pg_wal/000000010000000000000001', 2)[0])",
        "call('fsync', call('creat', b'pg_wal/000000010000000000000001', 384)[0])",
        "call('fsync', call('creat64', b'pg_wal/000000010000000000000001', 384)[0])",
    ],
)
def test_every_way_to_sync_the_log_waits(writer: Engine, device: LogDevice, call: str) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start(call)
    until_syncing(device, 1)
    device.release(1)
    writer.answer()


@pytest.mark.parametrize(
    ("call", "end"),
    [
        ("os.write(log, b'x' * 100)", 100),
        ("os.pwrite(log, b'x' * 100, 5000)", 5100),
        ("os.writev(log, [b'x' * 100, b'y' * 50])", 150),
        ("os.pwritev(log, [b'x' * 100, b'y' * 50], 1000)", 1150),
        ("os.pwritev(log, [b'x' * 100], 1000, 0)", 1100),
        ("call('pwrite', log, b'x' * 100, 100, ctypes.c_long(300))", 400),
        ("call('pwrite64', log, b'x' * 100, 100, ctypes.c_long(300))", 400),
        ("(os.lseek(log, 500, 0), os.write(log, b'x' * 100))", 600),
    ],
)
def test_every_way_to_write_the_log_is_counted(
    engine: Engine, device: LogDevice, call: str, end: int
) -> None:
    engine.run(call)
    assert (device.write_seq, device.written_lsn) == (1, SEGMENT + end)


@pytest.mark.parametrize(
    "path",
    ["base_1", "pg_wal/xlogtemp.77", "pg_wal/00000002.history", "000000010000000000000001", "my_pg_wal_1"],
)
def test_other_files_neither_count_nor_wait(writer: Engine, device: LogDevice, path: str) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.run(f"other = os.open({path!r}, os.O_RDWR | os.O_CREAT)")
    writer.run(f"os.write(other, {PAGE})")
    for call in ("os.fsync(other)", "os.fdatasync(other)", "call('sync_file_range', other, 0, 0, 7)"):
        writer.run(call)
    assert device.write_seq == 1
    assert device.counters().syncs_waited == 0


@pytest.mark.parametrize(
    "close",
    ["os.close(log)", "os.closerange(log, log + 1)", "call('close_range', log, log, 0)", "os.dup2(0, log)"],
)
def test_a_number_that_was_closed_is_not_the_log_any_more(
    writer: Engine, device: LogDevice, close: str
) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.run(f"number = log; {close}; other = os.open('other', os.O_RDWR | os.O_CREAT)")
    writer.run("other == number or os.dup2(other, number)")
    writer.run("os.write(number, b'x'); os.fsync(number)")
    assert device.write_seq == 1


def test_a_failed_dup2_leaves_the_log_the_log(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    assert writer.run("call('dup2', 999, log)") == (-1, 9)
    writer.start("os.fsync(log)")
    until_syncing(device, 1)


def test_a_segment_without_writes_is_synced_at_once(writer: Engine, device: LogDevice) -> None:
    """A promotion depends on it: the new timeline's segment is synced before its history file is written."""
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    for name in ("000000010000000000000002", "000000020000000000000001"):
        writer.run(f"os.fsync(os.open('pg_wal/{name}', os.O_RDWR | os.O_CREAT))")
    assert device.counters().syncs_waited == 0
    assert device.counters().syncs_skipped == 2


def test_a_new_timeline_may_begin_below_the_old_end(writer: Engine, device: LogDevice) -> None:
    writer.run("os.pwrite(log, b'x' * 8192, 81920)")
    writer.run("new = os.open('pg_wal/000000020000000000000001', os.O_RDWR | os.O_CREAT)")
    writer.run("os.pwrite(new, b'x' * 8192, 8192)")
    view = device.view()
    assert (view.timeline, view.written_lsn, view.write_seq) == (2, SEGMENT + 16384, 2)
    writer.start("os.fdatasync(new)")
    until_syncing(device, 2)


def test_a_renamed_open_file_becomes_the_log(writer: Engine, device: LogDevice) -> None:
    writer.run("new = os.open('pg_wal/xlogtemp.1', os.O_RDWR | os.O_CREAT)")
    writer.run("os.rename('pg_wal/xlogtemp.1', 'pg_wal/000000010000000000000003')")
    writer.run("os.pwrite(new, b'x' * 8192, 0)")
    assert device.written_lsn == 3 * SEGMENT + 8192
    writer.run("os.rename('pg_wal/000000010000000000000003', 'pg_wal/000000010000000000000005')")
    writer.run("os.pwrite(new, b'x' * 8192, 0)")
    assert device.written_lsn == 5 * SEGMENT + 8192
    writer.start("os.fdatasync(new)")
    until_syncing(device, 2)


def test_notices(writer: Engine, device: LogDevice) -> None:
    socket = device.bind_notices()
    socket.setblocking(True)
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    assert device.counters().notices == 0
    writer.start("os.fdatasync(log)")
    assert int.from_bytes(socket.recv(64), "little") == 1
    assert int.from_bytes(socket.recv(64), "little") == 1, "repeated while it waits"
    device.release(1)
    writer.answer()


def test_much_written_is_told_before_any_sync(writer: Engine, device: LogDevice) -> None:
    socket = device.bind_notices()
    writer.run("os.pwrite(log, b'x' * 65536, 0)")
    assert device.counters().notices == 0
    writer.run("os.pwrite(log, b'x' * 65536, 65536)")
    assert device.counters().notices == 1
    assert int.from_bytes(socket.recv(64), "little") == 2


def test_an_awake_driver_is_not_told(writer: Engine, device: LogDevice) -> None:
    device.bind_notices()
    assert device.set_awake(True) is False
    writer.run("os.pwrite(log, b'x' * 262144, 0)")
    assert device.counters().notices == 0
    writer.start("os.fdatasync(log)")
    until_syncing(device, 1)
    assert device.set_awake(False) is True, "look again before sleeping"
    device.release(1)
    writer.answer()


def test_a_driver_that_comes_back(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start("os.fdatasync(log)")
    until(lambda: device.counters().notices_failed >= 2)
    assert writer.busy
    again = LogDevice.open(device.path)
    socket = again.bind_notices()
    socket.setblocking(True)
    assert int.from_bytes(socket.recv(64), "little") == 1
    again.release(again.view().write_seq)
    writer.answer()
    again.close()


def test_forked_children_wait_and_notify_on_their_own(writer: Engine, device: LogDevice) -> None:
    device.bind_notices()
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start("os.fdatasync(log)")
    until_syncing(device, 1)
    device.release(1)
    writer.answer()
    writer.run(f'child = fork("os.pwrite(log, {PAGE}, 0); os.fdatasync(log)")')
    until_syncing(device, 2)
    notices = device.counters().notices
    until(lambda: device.counters().notices > notices)
    device.release(2)
    assert writer.run("os.waitpid(child, 0)[1]") == 0
    writer.start(f"(os.pwrite(log, {PAGE}, 0), os.fdatasync(log))")
    until_syncing(device, 3)
    device.release(3)
    writer.answer()
    assert device.counters().notices_failed == 0


def test_threads(writer: Engine, device: LogDevice) -> None:
    writer.run(
        "threads = [threading.Thread(target=lambda n=n: "
        f"[(os.pwrite(log, {PAGE}, n * 8192), os.fdatasync(log)) for _ in range(50)]) for n in range(8)]"
    )
    writer.start("([t.start() for t in threads], [t.join() for t in threads]) and None")

    def all_done() -> bool:
        device.release(device.view().write_seq)
        return not writer.busy

    until(all_done)
    writer.answer()
    assert device.write_seq == 400
    assert device.waiters == 0


def test_a_wait_outlives_signals(writer: Engine, device: LogDevice) -> None:
    writer.run("libc.signal(signal.SIGTERM, ctypes.CFUNCTYPE(None, ctypes.c_int)(('abs', libc)))")
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start("os.fdatasync(log)")
    until_syncing(device, 1)
    failed = device.counters().notices_failed
    writer.process.send_signal(signal.SIGTERM)
    until(lambda: device.counters().notices_failed > failed + 1)
    assert writer.busy
    device.release(1)
    writer.answer()


def test_a_wait_does_not_outlive_sigquit(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start("os.fdatasync(log)")
    until_syncing(device, 1)
    writer.process.send_signal(signal.SIGQUIT)
    assert writer.ended()[0] == -signal.SIGQUIT


def test_fencing_ends_a_waiting_engine(writer: Engine, device: LogDevice) -> None:
    writer.run(f"os.pwrite(log, {PAGE}, 0)")
    writer.start("os.fdatasync(log)")
    until_syncing(device, 1)
    device.fence()
    status, errors = writer.ended()
    assert status == -signal.SIGKILL
    assert "another writer has taken over" in errors
    assert device.end_reason == 1


@pytest.mark.parametrize(
    "touch",
    [
        "os.pwrite(log, b'x', 0)",
        "os.fdatasync(log)",
        "socket.socketpair()[0].send(b'x')",
        "os.waitpid(fork(\"os.pwrite(log, b'x', 0)\"), 0)",
    ],
)
def test_a_fenced_engine_ends_at_its_next_touch(writer: Engine, device: LogDevice, touch: str) -> None:
    device.fence()
    writer.start(touch)
    assert writer.ended()[0] == -signal.SIGKILL


def test_children_end_when_the_engine_is_gone(writer: Engine, device: LogDevice) -> None:
    writer.run("ends, told = os.pipe()")
    writer.run(f'child = fork("os.close(ends); os.pwrite(log, {PAGE}, 0); os.fdatasync(log)")')
    until_syncing(device, 1)
    child = writer.run("child")
    assert isinstance(child, int)
    writer.process.kill()
    writer.process.wait()
    until(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def test_answers_wait_for_the_lease(writer: Engine, device: LogDevice) -> None:
    writer.run("ours, theirs = socket.socketpair()")
    writer.run("ours.send(b'no lease yet')")
    device.set_lease(boottime_ns() + 3600 * 10**9)
    writer.run("ours.send(b'in time')")
    assert device.counters().lease_waits == 0
    for call in (
        "ours.send(b'late')",
        "ours.sendmsg([b'late'])",
        "call('sendto', ours.fileno(), b'x', 1, 0, 0, 0)",
    ):
        held = device.counters().lease_waits
        device.set_lease(1)
        writer.start(call)
        until(lambda held=held: device.counters().lease_waits > held)  # type: ignore[misc]
        assert writer.busy
        device.set_lease(boottime_ns() + 3600 * 10**9)
        writer.answer()
    device.set_lease(1)
    writer.run("pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)")
    writer.run("pair[0].send(b'no client')")


@pytest.mark.parametrize("call", ["os.write(ours.fileno(), b'late')", "os.writev(ours.fileno(), [b'late'])"])
def test_encrypted_answers_wait_for_the_lease(binlog: Engine, device: LogDevice, call: str) -> None:
    """OpenSSL writes to a socket as to a file."""
    binlog.run("ours, theirs = socket.socketpair()")
    device.set_mode(DeviceMode.ON)
    device.set_lease(1)
    binlog.run("os.write(log, b'more')")
    binlog.start(call)
    until(lambda: device.counters().lease_waits > 0)
    assert binlog.busy
    device.set_lease(boottime_ns() + 3600 * 10**9)
    binlog.answer()


def test_an_answer_held_back_ends_with_the_fence(writer: Engine, device: LogDevice) -> None:
    device.set_lease(1)
    writer.start("socket.socketpair()[0].send(b'late')")
    until(lambda: device.counters().lease_waits > 0)
    device.fence()
    assert writer.ended()[0] == -signal.SIGKILL


@pytest.mark.parametrize("flags", ["os.O_DSYNC", "os.O_SYNC"])
def test_a_log_that_the_kernel_syncs_is_refused(engine: Engine, device: LogDevice, flags: str) -> None:
    engine.start(f"os.open('pg_wal/000000010000000000000001', os.O_RDWR | {flags})")
    status, errors = engine.ended()
    assert status == -signal.SIGKILL
    assert "O_DSYNC" in errors
    assert device.end_reason == 2


def test_a_write_that_the_kernel_syncs_is_refused(engine: Engine, device: LogDevice) -> None:
    engine.start("os.pwritev(log, [b'x'], 0, os.RWF_DSYNC)")
    assert engine.ended()[0] == -signal.SIGKILL
    assert device.end_reason == 2


def test_errno_is_as_the_call_left_it(writer: Engine, device: LogDevice) -> None:
    assert writer.run("call('open', b'pg_wal/missing', 0)") == (-1, 2)
    assert writer.run("call('pwrite', 999, b'x', 1, ctypes.c_long(0))") == (-1, 9)
    assert writer.run("call('close', 999)") == (-1, 9)
    assert writer.run("call('pwrite', log, b'x', 1, ctypes.c_long(0))") == (1, 0)
    writer.start("call('fdatasync', log)")
    until_syncing(device)
    device.release(device.write_seq)
    assert writer.answer() == (0, 0)
    assert writer.run("call('open', b'pg_wal/000000010000000000000001', 2)[1]") == 0


def test_the_notice_socket_is_replaced_when_it_is_closed(writer: Engine, device: LogDevice) -> None:
    device.bind_notices()
    for seq in (1, 2):
        writer.run("os.pwrite(log, b'x', 0)")
        writer.start("os.fdatasync(log)")
        until_syncing(device, seq)
        device.release(seq)
        writer.answer()
        writer.run("os.closerange(log + 1, 1000)")
    assert device.counters().notices_failed == 0


@pytest.fixture
def binlog(start_engine: EngineStarter) -> Engine:
    """Attached, device off, with `log` open: binlog.000007, with nine bytes in it."""
    engine = start_engine(BOREALIS_LOG_KIND="binlog:/var/lib/binlog")
    engine.run("log = os.open('./binlog.000007', os.O_RDWR | os.O_CREAT)")
    engine.run("os.write(log, b'ninebytes')")
    return engine


def test_binlog_files(binlog: Engine, device: LogDevice) -> None:
    device.set_mode(DeviceMode.ON)
    binlog.run("index = os.open('binlog.index', os.O_RDWR | os.O_CREAT)")
    binlog.run("(os.write(log, b'abc'), os.write(log, b'def'), os.write(index, b'x'), os.fsync(index))")
    assert (device.write_seq, device.written_lsn) == (3, (7 << 40) + 15)
    binlog.run("(os.ftruncate(index, 0), os.truncate('binlog.index', 0), os.pwrite(index, b'x', 0))")
    binlog.start("os.fdatasync(log)")
    until_syncing(device, 3)


def test_a_binlog_is_followed_by_the_next_one(binlog: Engine, device: LogDevice) -> None:
    device.set_mode(DeviceMode.ON)
    binlog.run("os.write(log, bytes(50))")
    binlog.run("next = os.open('binlog.000008', os.O_RDWR | os.O_CREAT)")
    binlog.run("os.fdatasync(next)")  # Nothing was written to it.
    binlog.run("os.write(next, b'head')")
    assert device.written_lsn == (8 << 40) + 4
    binlog.run("os.pwrite(log, b'x', 21)")  # The flag that says that the file is in use.
    assert (device.write_seq, device.written_lsn) == (4, (8 << 40) + 4)
    binlog.start("os.fdatasync(log)")
    until_syncing(device, 4)
    device.release(4)
    binlog.answer()


@pytest.mark.parametrize(
    "change",
    [
        "os.pwrite(log, b'x', 3)",
        "os.pwrite(log, b'xyz', 8)",
        "os.ftruncate(log, 4)",
        "os.truncate('binlog.000007', 0)",
        "os.write(os.open('binlog.000001', os.O_RDWR | os.O_CREAT), bytes(5))",
    ],
)
def test_a_binlog_of_a_writer_only_grows(binlog: Engine, device: LogDevice, change: str) -> None:
    device.set_mode(DeviceMode.ON)
    binlog.start(change)
    status, said = binlog.ended()
    assert status in (3, -9)
    assert "what was written before is in the volume" in said
    assert device.end_reason == 2


def test_a_reader_may_begin_its_binlog_anew(binlog: Engine, device: LogDevice) -> None:
    binlog.run("(os.ftruncate(log, 4), os.unlink('binlog.000007'))")
    binlog.run("log = os.open('binlog.000001', os.O_RDWR | os.O_CREAT)")
    binlog.run("os.write(log, b'abc')")
    assert device.written_lsn == (1 << 40) + 3
    device.arm()
    binlog.run("os.write(log, b'abc')")
    assert device.written_lsn == (1 << 40) + 6


def test_nothing_happens_without_a_device(start_engine: EngineStarter, device: LogDevice) -> None:
    engine = start_engine(BOREALIS_LOG_DEVICE="")
    engine.run("log = os.open('pg_wal/000000010000000000000001', os.O_RDWR | os.O_CREAT | os.O_DSYNC)")
    engine.run("(os.write(log, b'x'), os.fsync(log), os.sync())")
    assert device.engine_pid is None
    assert device.write_seq == 0


def test_other_programs_do_not_attach(start_engine: EngineStarter, device: LogDevice) -> None:
    engine = start_engine(BOREALIS_LOG_PROGRAM="postgres")
    engine.run("1")
    assert device.engine_pid is None


def test_programs_started_by_the_engine_do_not_attach(engine: Engine, device: LogDevice) -> None:
    engine.run("import subprocess; subprocess.run([sys.executable, '-S', '-c', 'pass'], check=True)")
    assert device.attached == 1
    assert device.engine_pid == engine.process.pid


def _wrong_version(path: Path) -> None:
    page = bytearray(path.read_bytes())
    page[8] = 99
    path.write_bytes(page)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (os.unlink, "cannot open"),
        (lambda path: os.truncate(path, 100), "size"),
        (lambda path: path.write_bytes(bytes(4096)), "version"),
        (_wrong_version, "version"),
    ],
)
def test_a_device_that_cannot_be_used_ends_the_engine(
    start_engine: EngineStarter, tmp_path: Path, damage: object, message: str
) -> None:
    path = tmp_path / "other.shm"
    LogDevice.create(path).close()
    damage(path)  # type: ignore[operator]
    status, errors = start_engine(BOREALIS_LOG_DEVICE=str(path)).ended()
    assert status == 3
    assert message in errors


def test_an_unknown_kind_of_log_ends_the_engine(start_engine: EngineStarter) -> None:
    status, errors = start_engine(BOREALIS_LOG_KIND="oracle").ended()
    assert status != 0
    assert "BOREALIS_LOG_KIND" in errors
