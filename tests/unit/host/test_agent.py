"""The agent with real small processes: starts, ends, restarts, and being killed itself."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from borealis.host import proc
from borealis.host.records import ProcessRecord
from borealis.rpc import RpcError

from .conftest import AgentUnderTest, until


def running(pid: int) -> bool:
    stat = proc.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


async def info(agent: AgentUnderTest, name: str):
    return next(process for process in await agent.client.list() if process.name == name)


async def test_spawn_is_idempotent_and_tells(agent: AgentUnderTest) -> None:
    spec = agent.spec("sleeper", "/bin/sleep", "1000")
    pid = await agent.client.spawn(spec)
    assert running(pid)
    assert await agent.client.spawn(spec) == pid
    assert (await agent.event("started", "sleeper"))["pid"] == pid
    with pytest.raises(RpcError) as caught:
        await agent.client.spawn(agent.spec("sleeper", "/bin/sleep", "2000"))
    assert caught.value.code == "ProcessConflict"
    assert await agent.client.stop("sleeper") == -signal.SIGTERM
    assert await agent.event("exited", "sleeper") == {"name": "sleeper", "pid": pid, "status": -15}
    assert not running(pid)
    assert not (await info(agent, "sleeper")).alive


async def test_output_environment_and_input(agent: AgentUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'echo "shown $SHOWN secret=$AWS_SECRET_ACCESS_KEY"; cat; umask; exit 3'
    spec = agent.spec("script", "/bin/sh", "-c", script, env={"SHOWN": "yes", "PATH": "/bin:/usr/bin"})
    await agent.client.spawn(spec, stdin="given\n")
    assert (await agent.event("exited", "script"))["status"] == 3
    assert agent.log_of("script").splitlines() == ["shown yes secret=", "given", "0077"]
    assert "given" not in (agent.paths.process_dir / "script.json").read_text()
    assert (agent.paths.process_dir / "script.json").stat().st_mode & 0o777 == 0o600


async def test_a_killed_agent_finds_its_processes_again(agent: AgentUnderTest) -> None:
    first = await agent.client.spawn(agent.spec("first", "/bin/sleep", "1000"))
    second = await agent.client.spawn(agent.spec("second", "/bin/sleep", "1000", restart="always"))
    await agent.restart()
    assert running(first)
    assert running(second)
    assert (await info(agent, "first")).pid == first
    assert await agent.client.spawn(agent.spec("first", "/bin/sleep", "1000")) == first
    os.kill(first, signal.SIGKILL)
    assert (await agent.event("exited", "first"))["status"] is None  # Not its child: no one told it.
    os.kill(second, signal.SIGKILL)
    again = (await agent.event("restarted", "second"))["pid"]
    assert again != second
    assert running(again)


async def test_what_should_run_is_started_by_the_next_agent(agent: AgentUnderTest) -> None:
    pid = await agent.client.spawn(agent.spec("node", "/bin/sleep", "1000", restart="always"))
    once = await agent.client.spawn(agent.spec("engine", "/bin/sleep", "1000"))
    await agent.crash()
    for victim in (pid, once):
        os.kill(victim, signal.SIGKILL)
        await until(lambda victim=victim: not running(victim))
    await agent.start("--hold")
    assert not any(process.alive for process in await agent.client.list())
    await agent.restart()
    await until_alive(agent, "node")
    assert not (await info(agent, "engine")).alive


async def until_alive(agent: AgentUnderTest, name: str) -> None:
    async with asyncio.timeout(20):
        while not (await info(agent, name)).alive:
            await asyncio.sleep(0.01)


async def test_an_agent_that_died_while_it_started_something(agent: AgentUnderTest) -> None:
    pid = await agent.client.spawn(agent.spec("half", "/bin/sleep", "1000"))
    await agent.crash()
    # As it stands on disk between the start of the process and the second write of its record.
    path = agent.paths.process_dir / "half.json"
    record = msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
    record.pid = record.start_time = None
    path.write_bytes(msgspec.json.encode(record))
    await agent.start()
    assert (await info(agent, "half")).alive
    assert (await info(agent, "half")).pid == pid


async def test_a_reused_pid_is_never_touched(agent: AgentUnderTest) -> None:
    pid = await agent.client.spawn(agent.spec("old", "/bin/sleep", "1000"))
    await agent.crash()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not running(pid))
    stranger = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        path = agent.paths.process_dir / "old.json"
        record = msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
        record.pid = (
            stranger.pid
        )  # The same pid, but another start time (which counts in hundredths of a second).
        record.start_time = (record.start_time or 0) - 1
        path.write_bytes(msgspec.json.encode(record))
        await agent.start()
        assert not (await info(agent, "old")).alive
        await agent.client.kill("old")
        assert await agent.client.signal("old", "KILL") == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_records_of_another_boot_mean_nothing(agent: AgentUnderTest) -> None:
    pid = await agent.client.spawn(agent.spec("old", "/bin/sleep", "1000"))
    await agent.crash()
    path = agent.paths.process_dir / "old.json"
    record = msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
    record.boot = "another"
    path.write_bytes(msgspec.json.encode(record))
    await agent.start()
    assert not (await info(agent, "old")).alive
    assert running(pid)


async def test_a_record_that_cannot_be_read_is_set_aside(agent: AgentUnderTest) -> None:
    await agent.crash()
    (agent.paths.process_dir / "broken.json").write_text('{"version": 1, "spec"')
    await agent.start()
    assert await agent.client.list() == ()
    assert (agent.paths.process_dir / "broken.bad").exists()


TREE = """
cd {place}
setsid /bin/sleep 1001 &
setsid /bin/sh -c 'trap "" TERM INT; while :; do /bin/sleep 1002; done' &
setsid /bin/sleep 1003 & kill -STOP $!
/bin/sleep 1004
"""


def sweepable(agent: AgentUnderTest) -> Path:
    place = agent.paths.root / "instances" / "i1" / "data"
    place.mkdir(parents=True)
    return place


async def test_kill_ends_a_whole_tree_stopped_ones_too(agent: AgentUnderTest) -> None:
    place = sweepable(agent)
    elsewhere = await agent.client.spawn(agent.spec("other", "/bin/sleep", "1000"))
    spec = agent.spec("engine", "/bin/sh", "-c", TREE.format(place=place), sweep_dir=str(place))
    await agent.client.spawn(spec)
    await until(lambda: len(proc.working_in(place)) == 6)
    assert await agent.client.kill("engine") == -signal.SIGKILL
    assert proc.working_in(place) == []
    assert running(elsewhere)


async def test_orphans_of_a_dead_engine_are_swept(agent: AgentUnderTest) -> None:
    place = sweepable(agent)
    spec = agent.spec("engine", "/bin/sh", "-c", TREE.format(place=place), sweep_dir=str(place))
    pid = await agent.client.spawn(spec)
    await until(lambda: len(proc.working_in(place)) == 6)
    os.kill(pid, signal.SIGKILL)
    await agent.event("exited", "engine")
    assert proc.working_in(place)
    await agent.restart()
    await agent.client.kill("engine")
    assert proc.working_in(place) == []


async def test_stop_and_continue_a_tree(agent: AgentUnderTest) -> None:
    place = sweepable(agent)
    script = f"cd {place}; setsid /bin/sleep 1001 & exec /bin/sleep 1002"
    await agent.client.spawn(agent.spec("engine", "/bin/sh", "-c", script, sweep_dir=str(place)))
    await until(lambda: len(proc.working_in(place)) == 2)
    reached = await agent.client.signal("engine", "STOP", tree=True)
    assert len(reached) == 2
    await until(lambda: all(proc.read_stat(pid).state == "T" for pid in reached))
    await agent.client.signal("engine", "CONT", tree=True)
    await until(lambda: all(proc.read_stat(pid).state == "S" for pid in reached))


async def test_stop_kills_what_will_not_end(agent: AgentUnderTest) -> None:
    script = 'trap "" TERM; echo ready; while :; do /bin/sleep 0.1; done'
    await agent.client.spawn(agent.spec("deaf", "/bin/sh", "-c", script))
    await until(lambda: "ready" in agent.log_of("deaf"))
    assert await agent.client.stop("deaf", wait=0.2) == -signal.SIGKILL


async def test_stop_wakes_a_stopped_process(agent: AgentUnderTest) -> None:
    pid = await agent.client.spawn(agent.spec("frozen", "/bin/sleep", "1000"))
    await agent.client.signal("frozen", "STOP")
    await until(lambda: proc.read_stat(pid).state == "T")
    assert await agent.client.stop("frozen", wait=30) == -signal.SIGTERM


async def test_restart_backs_off_and_stop_ends_it(agent: AgentUnderTest) -> None:
    await agent.client.spawn(agent.spec("loop", "/bin/false", restart="always"))
    await agent.event("restarted", "loop", count=4)
    await agent.client.stop("loop")
    starts = (await info(agent, "loop")).starts
    await agent.client.forget("loop")
    assert await agent.client.list() == ()
    assert starts >= 4
    assert not (agent.paths.process_dir / "loop.json").exists()


async def test_a_stopped_process_stays_stopped_after_a_crash_of_the_agent(agent: AgentUnderTest) -> None:
    await agent.client.spawn(agent.spec("node", "/bin/sleep", "1000", restart="always"))
    await agent.client.stop("node")
    await agent.restart()
    assert not (await info(agent, "node")).alive


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
async def test_runs_as_another_user(agent: AgentUnderTest) -> None:
    user = pwd.getpwnam("nobody")
    await agent.client.spawn(agent.spec("who", "/usr/bin/id", "-u", user="nobody", cwd="/"))
    assert (await agent.event("exited", "who"))["status"] == 0
    assert agent.log_of("who").strip() == str(user.pw_uid)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"argv": ("/no/such/program",)}, "SpawnFailed"),
        ({"cwd": "/no/such/folder"}, "SpawnFailed"),
        ({"user": "no-such-user"}, "InvalidSpec"),
        ({"name": "../evil"}, "InvalidSpec"),
        ({"sweep_dir": "/tmp"}, "InvalidSpec"),
        ({"argv": ()}, "InvalidSpec"),
    ],
)
async def test_bad_specs(agent: AgentUnderTest, change: dict[str, object], code: str) -> None:
    spec = msgspec.structs.replace(agent.spec("bad", "/bin/true"), **change)
    with pytest.raises(RpcError) as caught:
        await agent.client.spawn(spec)
    assert caught.value.code == code
    assert not any(process.alive for process in await agent.client.list())


async def test_unknown_names_and_signals(agent: AgentUnderTest) -> None:
    with pytest.raises(RpcError, match="there is no process 'x'"):
        await agent.client.kill("x")
    await agent.client.spawn(agent.spec("sleeper", "/bin/sleep", "1000"))
    with pytest.raises(RpcError, match="not a signal"):
        await agent.client.signal("sleeper", "NONSENSE")
    with pytest.raises(RpcError) as caught:
        await agent.client.forget("sleeper")
    assert caught.value.code == "ProcessConflict"


async def test_a_second_agent_gives_way(agent: AgentUnderTest) -> None:
    import sys

    command = [sys.executable, "-m", "borealis.host.main", "--data", str(agent.paths.root)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30)
    assert second.returncode == 3
    assert (await agent.client.ping())["pid"] == agent.process.pid


async def test_shutdown_leaves_processes_running(agent: AgentUnderTest) -> None:
    pid = await agent.client.spawn(agent.spec("sleeper", "/bin/sleep", "1000"))
    await agent.client.shutdown()
    assert await asyncio.to_thread(agent.process.wait, 20) == 0
    assert running(pid)
