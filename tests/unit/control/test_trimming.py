"""Which old log may go: none that an image, a reader or a promotion may need, and in the end all other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borealis.control.actions import TrimLog
from borealis.control.planner import plan
from borealis.control.records import Image, Incarnation, IncarnationPhase, Instance, Opening, now_utc
from borealis.control.settings import ControlSettings
from borealis.control.trimming import KEPT_BYTES, trim_due, trim_point
from borealis.control.view import DriverEngine, DriverStatus, EngineLife, Seen, SegmentSeen, View, VolumeSeen
from borealis.engines.registry import get_engine

from .fakes import LOG_FILE
from .region import FakeRegion
from .test_lifecycle import live, three
from .test_rules import instance, view, well

T = TypeVar("T")


def image(files: int) -> Image:
    return Image(name=f"image-{files}", lsn=files * LOG_FILE, timeline=1, created_at=now_utc())


def segment(number: int, end: int, images: list[Image], up: bool = True, base: int = 0) -> SegmentSeen:
    names = frozenset(i.name for i in images)
    return SegmentSeen(f"n{number}", "a", up, end, end, base, images=names)


def shown(
    members: list[Instance],
    seen: dict[str, Seen],
    images: list[Image],
    end: int = 100,
    held: list[Image] | None = None,
) -> View:
    made = view(members, seen)
    volume = made.cluster.volume.but(images=tuple(images))
    segments = tuple(
        segment(n, end * LOG_FILE, images if n < 4 or held is None else held) for n in range(1, 7)
    )
    return replace(
        made, cluster=made.cluster.but(volume=volume), volume=VolumeSeen(segments, known=True, write_quorum=4)
    )


def at(files: float, received: float | None = None) -> Seen:
    """A reader that has replayed so many log files, and received more or fewer."""
    engine = DriverEngine(
        up=True,
        replay_lsn=int(files * LOG_FILE),
        receive_lsn=None if received is None else int(received * LOG_FILE),
    )
    return Seen(engine=EngineLife.ALIVE, status=DriverStatus(engine=engine))


def attaching(name: str, files: int, phase: IncarnationPhase = IncarnationPhase.STARTING) -> Instance:
    return instance(name, incarnation=Incarnation(id=f"i-{name}", phase=phase, image_lsn=files * LOG_FILE))


def point(shown: View) -> float | None:
    found = trim_point(shown, LOG_FILE)
    return None if found is None else found / LOG_FILE


IMAGES = [image(10), image(30), image(50)]
WRITER = instance("w")


def test_engines_files_are_what_these_tests_count_in() -> None:
    assert get_engine("aurora-postgresql").log_file_bytes == LOG_FILE


def test_log_of_every_recorded_image_is_kept() -> None:
    assert point(shown([WRITER], {"i-w": well()}, IMAGES)) == 10
    assert point(shown([WRITER], {"i-w": well()}, IMAGES[1:])) == 30


def test_nothing_goes_before_two_images_are_safe() -> None:
    assert point(shown([WRITER], {"i-w": well()}, [])) is None
    assert point(shown([WRITER], {"i-w": well()}, IMAGES[:1])) is None
    # The newest, or the one before it, is on three nodes only, which is no write quorum.
    assert point(shown([WRITER], {"i-w": well()}, IMAGES, held=IMAGES[:2])) is None
    assert point(shown([WRITER], {"i-w": well()}, IMAGES, held=[IMAGES[0], IMAGES[2]])) is None
    assert point(shown([WRITER], {"i-w": well()}, IMAGES, held=IMAGES[1:])) == 10


def test_images_on_nodes_that_do_not_answer_do_not_count() -> None:
    made = shown([WRITER], {"i-w": well()}, IMAGES)
    away = tuple(replace(s, connected=s.node > "n3") for s in made.volume.segments)
    assert point(replace(made, volume=replace(made.volume, segments=away))) is None


def test_reader_that_is_behind_keeps_its_log() -> None:
    members = [WRITER, instance("rr")]
    images = [image(40), image(50)]
    for seen, expected in ((at(20.7), 20), (at(90, 20.2), 20), (at(20.2, 90), 20), (at(60), 40)):
        assert point(shown(members, {"i-w": well(), "i-rr": seen}, images)) == expected


def test_reader_of_an_engine_whose_log_files_have_any_size() -> None:
    """It goes on at a place that it has kept, or, too far behind for those, at its image."""
    files = KEPT_BYTES // LOG_FILE
    members = [WRITER, attaching("rr", 5, IncarnationPhase.SERVING)]
    images = [image(95), image(98)]
    for position, expected in ((100, 100 - files), (100 - files, 100 - 2 * files), (100 - files - 1, 5)):
        made = shown(members, {"i-w": well(), "i-rr": at(position)}, images)
        found = trim_point(made, 0)
        assert found is not None
        assert found / LOG_FILE == max(5, expected)


def test_reader_that_was_never_heard_of_counts_from_its_image() -> None:
    serving = attaching("rr", 15, IncarnationPhase.SERVING)
    images = [image(40), image(50)]
    assert point(shown([WRITER, serving], {"i-w": well()}, images)) == 15
    assert point(shown([WRITER, serving], {"i-w": well(), "i-rr": Seen()}, images)) == 15


@pytest.mark.parametrize("phase", [IncarnationPhase.PREPARING, IncarnationPhase.STARTING])
def test_reader_that_attaches_from_an_older_image_counts(phase: IncarnationPhase) -> None:
    """Also one that is to be deleted, and whatever its engine says already."""
    members = [WRITER, attaching("rr", 5, phase)]
    assert point(shown(members, {"i-w": well(), "i-rr": at(90)}, IMAGES)) == 5


def test_nothing_goes_while_the_volume_is_opened() -> None:
    made = shown([WRITER], {"i-w": well()}, IMAGES)
    opening = Opening(instance="db-w", incarnation="i-w", term1=4, term2=5, started_at=now_utc())
    assert point(replace(made, cluster=made.cluster.but(opening=opening))) is None


def test_it_is_done_in_steps_and_only_where_it_can_be() -> None:
    made = shown([WRITER], {"i-w": well()}, IMAGES)
    step = 9 * LOG_FILE
    assert trim_due(made, LOG_FILE, step) == 10 * LOG_FILE
    assert trim_due(made, LOG_FILE, 11 * LOG_FILE) is None
    assert trim_due(made, LOG_FILE, 0) is None
    behind = tuple(replace(s, scl=5 * LOG_FILE) for s in made.volume.segments)
    assert trim_due(replace(made, volume=replace(made.volume, segments=behind)), LOG_FILE, step) is None
    [*trimmed] = (replace(s, base=10 * LOG_FILE) for s in made.volume.segments)
    done = replace(made, volume=replace(made.volume, segments=tuple(trimmed)))
    assert trim_due(done, LOG_FILE, step) is None
    # One node was away meanwhile and comes back with all of its log.
    trimmed[2] = made.volume.segments[2]
    late = replace(made, volume=replace(made.volume, segments=tuple(trimmed)))
    assert trim_due(late, LOG_FILE, step) == 10 * LOG_FILE
    settings = ControlSettings(trim_log_bytes=step)
    assert [a for a in plan(late, settings) if isinstance(a, TrimLog)] == [TrimLog(10 * LOG_FILE)]


positions = st.integers(0, 99).map(lambda files: files * LOG_FILE + 5000)


def mostly(usual: T, other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.integers(0, 9).flatmap(lambda n: other if n == 9 else st.just(usual))


@st.composite
def readers(draw: st.DrawFn) -> tuple[Instance, Seen]:
    name = "r" + draw(st.text("abcdef", min_size=4, max_size=8))
    files = draw(st.integers(0, 60))
    life = attaching(name, files, draw(st.sampled_from(IncarnationPhase)))
    engine = DriverEngine(
        up=draw(st.booleans()),
        replay_lsn=draw(positions | st.none()),
        receive_lsn=draw(positions | st.none()),
    )
    status = draw(mostly(DriverStatus(engine=engine), st.none()))
    return life, Seen(engine=draw(st.sampled_from(EngineLife)), status=status)


@given(
    st.lists(readers(), min_size=1, max_size=3, unique_by=lambda pair: pair[0].identifier),
    st.lists(st.integers(60, 100), min_size=2, max_size=5, unique=True),
    st.lists(mostly(frozenset(range(5)), st.frozensets(st.integers(0, 4))), min_size=6, max_size=6),
    st.lists(mostly(True, st.just(False)), min_size=6, max_size=6),
)
def test_nobody_ever_misses_log(
    members: list[tuple[Instance, Seen]], files: list[int], held: list[frozenset[int]], up: list[bool]
) -> None:
    images = [image(number) for number in files]
    seen = {"i-w": well(), **{f"i-{i.identifier}": s for i, s in members}}
    made = shown([WRITER, *(i for i, _ in members)], seen, images)
    segments = tuple(
        segment(n, 100 * LOG_FILE, [images[k] for k in held[n] if k < len(images)], up[n]) for n in range(6)
    )
    below = trim_point(replace(made, volume=replace(made.volume, segments=segments)), LOG_FILE)
    if below is None:
        return
    safe = [i for i in images if sum(s.connected and i.name in s.images for s in segments) >= 4]
    assert len([i for i in safe if i.lsn >= below]) >= 2
    assert all(i.lsn >= below for i in images)
    for reader, its in members:
        life = reader.incarnation
        assert life is not None
        has = its.status.engine if its.status else DriverEngine()
        serves = life.phase is IncarnationPhase.SERVING
        if not serves or has.replay_lsn is None:
            assert below <= life.image_lsn
            continue
        restart = min(has.replay_lsn, has.replay_lsn if has.receive_lsn is None else has.receive_lsn)
        assert below <= max(life.image_lsn, restart // LOG_FILE * LOG_FILE)


def test_log_and_images_stay_bounded_in_a_life_of_a_cluster(tmp_path: Path) -> None:
    """Although its instances live for ever and once began with the first image."""

    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        volume = region.world.volumes[region.cluster(key).volume.id]
        step = int(region.settings.image_log_bytes)
        for _ in range(6):
            volume.vdl += step
            end = volume.vdl
            await region.until(lambda: any(i.lsn == end for i in region.cluster(key).volume.images))  # noqa: B023
        await region.until(lambda: region.settled(key) and volume.base == end - step)
        assert len([line for line in region.world.log if " begins at " in line]) <= 6, "told again and again"
        assert len(volume.images) == len(region.cluster(key).volume.images) == 2
        added = await region.create_instance(key, "four")
        await region.until(lambda: region.settled(key))
        assert region.instance(added).incarnation is not None
        await region.stop()

    live(scenario())
