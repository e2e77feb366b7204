"""No library, no writer: an engine whose log would pass by the volume is never promoted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from borealis.rpc import RpcError
from tests.support.minicluster import MiniCluster


async def test_engine_without_the_library_stays_a_reader(cluster: MiniCluster) -> None:
    writer = await cluster.add_instance("writer")
    await cluster.open_volume(writer)
    writer.target.sql("CREATE TABLE kept (n int PRIMARY KEY)")
    writer.target.sql("INSERT INTO kept VALUES (1)")
    bare, whole = await cluster.add_instance("bare"), await cluster.add_instance("whole")
    cluster.kill_engine(bare)
    bare.settings = replace(bare.settings, lib_path=None)
    cluster.start_engine(bare)
    assert bare.engine is not None
    pid = bare.engine.pid
    await cluster.wait_status(bare, lambda s: s["engine"]["up"] and s["engine"]["silent_seconds"] < 1)
    cluster.kill_engine(writer)
    with pytest.raises(RpcError, match="preloaded") as refused:
        await cluster.open_volume(bare)
    assert refused.value.code == "PromotionFailed"
    status = await cluster.status(bare)
    assert status["role"] == "reader"
    assert bare.engine.pid == pid
    assert bare.engine.poll() is None
    with pytest.raises(cluster.edition.Error) as error:
        bare.target.sql("INSERT INTO kept VALUES (2)")
    assert cluster.edition.refused_as_read_only(error.value)
    # Nothing was spoilt: another one takes over with all that was acknowledged.
    await cluster.open_volume(whole)
    whole.target.sql("INSERT INTO kept VALUES (2)")
    assert whole.target.sql("SELECT count(*) FROM kept") == [(2,)]
