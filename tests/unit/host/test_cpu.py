"""CPU time is that of a process and of all that it has started, whoever leads their sessions."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from borealis.host.cpu import cpu_seconds

from .conftest import AgentUnderTest


def family() -> list[str]:
    lines = [
        "import os, time",
        "def burn():",
        "    while sum(os.times()[:2]) < 0.3: pass",
        "if os.fork() == 0:",
        "    burn(); os._exit(0)",
        "os.wait()",
        "if os.fork() == 0:",
        "    os.setsid(); burn(); print(os.getpid(), flush=True)",
        "time.sleep(1000)",
    ]
    return [sys.executable, "-c", "\n".join(lines)]


def test_children_count_also_those_that_have_ended() -> None:
    process = subprocess.Popen(family(), stdout=subprocess.PIPE, text=True)
    child = 0
    other = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        found = cpu_seconds([process.pid, other.pid, 2**22 + 1])
        assert set(found) == {process.pid, other.pid}
        assert found[process.pid] >= 0.55
        assert found[other.pid] < 0.3
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
        for started in (process, other):
            started.kill()
            started.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_agent_tells_the_time_of_what_runs(agent: AgentUnderTest) -> None:
    burn = "while True: pass"
    await agent.client.spawn(agent.spec("busy", sys.executable, "-c", burn))
    await agent.client.spawn(agent.spec("idle", "/bin/sleep", "1000"))
    await agent.client.spawn(agent.spec("over", "/bin/true"))
    await agent.event("exited", "over")
    first = await agent.client.cpu_times()
    assert set(first.seconds) == {"busy", "idle"}

    async def burnt() -> bool:
        return (await agent.client.cpu_times()).seconds["busy"] >= first.seconds["busy"] + 0.2

    while not await burnt():
        await asyncio.sleep(0.02)
    last = await agent.client.cpu_times()
    assert last.at > first.at
    assert last.seconds["idle"] < 0.1
