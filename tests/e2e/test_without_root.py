"""A region of a user without root rights: the same service, with what that user may do."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.processes import wait_until
from tests.support.region import BOREALIS, Region

USER = "postgres"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="all other tests run without root rights already")


class OthersRegion(Region):
    """Its commands are run by another user."""

    def borealis(
        self, *arguments: str, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        entry = pwd.getpwnam(USER)
        done = subprocess.run(
            [str(BOREALIS), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": os.environ["PATH"], "BOREALIS_DATA": str(self.data), "HOME": str(self.data)},
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd="/",
        )
        assert not check or done.returncode == 0, f"borealis {arguments}:\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        pytest.skip(f"there is no user {USER}")
    made = OthersRegion()
    try:
        os.chown(made.data, entry.pw_uid, entry.pw_gid)
        if made.borealis("--version", check=False).returncode:
            pytest.skip(f"{USER} cannot run {BOREALIS}")
        made.up()
        yield made
        loud = made.unexpected_log_lines(())
        assert not loud, "unexpected errors in the logs:\n" + "\n".join(loud[:40])
        made.down()
    finally:
        made.destroy()


def test_cluster_of_a_user_without_root_rights(region: Region) -> None:
    cluster = region.create_cluster(readers=1)
    owner = pwd.getpwnam(USER).pw_uid
    for name in cluster.members():
        assert os.stat(f"/proc/{cluster.main_process(name)}").st_uid == owner
    cluster.sql("CREATE TABLE kept (n int)")
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        before = cluster.writer
        region.borealis("chaos", "kill", before)
        wait_until(lambda: cluster.writer != before, 30, "another writer")
        rows = load.count
        wait_until(lambda: load.count > rows + 100, 30, "writes to go on")
        load.stop()
        assert not load.lost_on(cluster.endpoint)
    cluster.wait_healthy()
    assert cluster.sql("SELECT count(*) FROM kept", cluster.reader_conninfo()) == [(0,)]
    cluster.delete()


def test_another_user_for_the_engines_is_refused(region: Region) -> None:
    done = region.borealis(
        "up", "--detach", "--data", str(region.data / "other"), "--engine-user", "nobody", check=False
    )
    assert done.returncode == 1
    assert "only root can run engines as another user" in done.stdout + done.stderr
