"""The rules of moving targets between slots, without a proxy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borealis.endpoints.haproxy import (
    HELD,
    HOLD_ADDRESS,
    HOLD_PORT,
    Endpoint,
    Moves,
    ProxySpec,
    Slot,
    first_line,
    moves,
    parse_state,
    render,
)

A, B, C = "127.9.0.2", "127.9.0.3", "127.9.0.4"
PORT, MAXCONN = 5432, 1000


def writer(*targets: str) -> Endpoint:
    return Endpoint("writer", "127.9.0.1", PORT, 3, targets)


def pool(*targets: str, slots: int = 4) -> Endpoint:
    return Endpoint("reader", "127.9.0.1", PORT, slots, targets)


def initial(endpoint: Endpoint) -> list[Slot]:
    """The slots of a proxy that was started without targets."""
    return [Slot(f"s{n + 1}", HOLD_ADDRESS, HOLD_PORT, n == 0, 0) for n in range(endpoint.slots)]


def apply(slots: list[Slot], commands: list[str]) -> tuple[list[Slot], dict[str, int], list[str]]:
    """Carry out commands as HAProxy does: (slots, limits that were set, cut addresses)."""
    named = {slot.name: slot for slot in slots}
    limits: dict[str, int] = {}
    cut: list[str] = []
    for command in commands:
        match command.split():
            case ["set", "server", server, "addr", address, "port", port]:
                name = server.split("/")[1]
                named[name] = replace(named[name], address=address, port=int(port))
            case ["set", "server", server, "state", state]:
                name = server.split("/")[1]
                named[name] = replace(named[name], ready=state == "ready")
            case ["set", "maxconn", "server", server, limit]:
                limits[server.split("/")[1]] = int(limit)
            case ["shutdown", "sessions", "server", server]:
                cut.append(server.split("/")[1])
            case _:
                raise AssertionError(command)
    return list(named.values()), limits, cut


def always(_address: str) -> bool:
    return True


def never(_address: str) -> bool:
    return False


def serving(slots: list[Slot]) -> list[str]:
    return [slot.address for slot in slots if slot.ready and slot.used]


def carry_out(slots: list[Slot], wanted: Moves) -> tuple[list[Slot], dict[str, int], list[str]]:
    return apply(slots, [*wanted.now, *wanted.later])


def test_a_writer_appears() -> None:
    slots, limits, cut = carry_out(initial(writer()), moves(writer(A), initial(writer()), MAXCONN, always))
    assert [(s.address, s.port) for s in slots if s.ready] == [(A, PORT)]
    assert limits == {"s2": MAXCONN}
    assert cut == []


def test_a_writer_goes_and_connections_are_held() -> None:
    before, _, _ = carry_out(initial(writer()), moves(writer(A), initial(writer()), MAXCONN, always))
    wanted = moves(writer(), before, MAXCONN, always)
    slots, limits, cut = carry_out(before, wanted)
    assert [(s.address, limits[s.name]) for s in slots if s.ready] == [(HOLD_ADDRESS, HELD)]
    assert cut == ["s2"]
    assert not any(slot.used for slot in slots)


def test_the_next_writer_has_another_slot_and_the_cut_comes_later() -> None:
    before, _, _ = carry_out(initial(writer()), moves(writer(A), initial(writer()), MAXCONN, always))
    wanted = moves(writer(B), before, MAXCONN, always)
    slots, _, cut = apply(before, list(wanted.now))
    assert serving(slots) == [B]
    assert cut == []
    assert next(s for s in slots if s.address == A).name == "s2"
    slots, _, cut = apply(slots, list(wanted.later))
    assert cut == ["s2"]
    assert serving(slots) == [B]


def test_a_cut_that_was_missed_is_made_up_for() -> None:
    before, _, _ = carry_out(initial(writer()), moves(writer(A), initial(writer()), MAXCONN, always))
    slots, _, _ = apply(before, list(moves(writer(B), before, MAXCONN, always).now))
    again = moves(writer(B), slots, MAXCONN, always)
    assert again.now == ()
    slots, _, cut = apply(slots, list(again.later))
    assert cut == ["s2"]
    assert moves(writer(B), slots, MAXCONN, always) == Moves((), ())


def test_nothing_to_do() -> None:
    assert moves(writer(), initial(writer()), MAXCONN, always) == Moves((), ())


def test_readers_keep_their_slots() -> None:
    slots, _, _ = carry_out(initial(pool()), moves(pool(A, B), initial(pool()), MAXCONN, never))
    place = {s.address: s.name for s in slots if s.ready}
    assert set(place) == {A, B}
    slots, _, cut = carry_out(slots, moves(pool(B, C), slots, MAXCONN, always))
    assert set(serving(slots)) == {B, C}
    assert next(s for s in slots if s.address == B).name == place[B]
    assert cut == [place[A]]


def test_a_reader_that_changed_its_role_keeps_its_sessions() -> None:
    before = [
        Slot("s1", A, PORT, True),
        Slot("s2", B, PORT, True),
        Slot("s3", HOLD_ADDRESS, HOLD_PORT, False),
    ]
    _, _, cut = carry_out(before, moves(pool(B, slots=3), before, MAXCONN, never))
    assert cut == []


def test_the_clean_slot_that_was_off_longest_is_used_first() -> None:
    before = [
        Slot("s1", A, PORT, True, 5),
        Slot("s2", HOLD_ADDRESS, HOLD_PORT, False, 10),
        Slot("s3", HOLD_ADDRESS, HOLD_PORT, False, 99),
        Slot("s4", C, PORT, False, 999),
    ]
    slots, _, _ = carry_out(before, moves(pool(A, B, slots=4), before, MAXCONN, never))
    assert slots[2].address == B


@given(
    st.lists(st.lists(st.sampled_from([A, B, C, "127.9.0.5"]), unique=True), min_size=1, max_size=12),
    st.booleans(),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_any_sequence_ends_where_it_should(plans: list[list[str]], cuts: bool, missed: list[bool]) -> None:
    slots = initial(pool())
    limits = {slot.name: MAXCONN for slot in slots} | {"s1": HELD}
    for plan, skip in zip(plans, missed, strict=False):
        endpoint = pool(*plan)
        wanted = moves(endpoint, slots, MAXCONN, always if cuts else never)
        slots, changed, _ = apply(slots, [*wanted.now, *(() if skip else wanted.later)])
        limits |= changed
        assert sorted(serving(slots)) == sorted(plan)
        ready = [slot for slot in slots if slot.ready]
        assert all(limits[slot.name] == (MAXCONN if slot.used else HELD) for slot in ready)
        assert len(ready) == max(1, len(plan))
        assert moves(endpoint, slots, MAXCONN, never) == Moves((), ())


def test_the_first_line_tells_the_structure_and_not_the_targets() -> None:
    def spec(*endpoints: Endpoint) -> ProxySpec:
        return ProxySpec("p", Path("/run/x"), MAXCONN, ("haproxy", "haproxy"), endpoints)

    assert first_line(spec(writer())) == first_line(spec(writer(A)))
    assert first_line(spec(writer())) != first_line(spec(writer(), pool()))
    assert first_line(spec(writer())) != first_line(spec(replace(writer(), address=B)))
    assert render(spec(writer(A))).startswith(first_line(spec(writer())))


def test_parsing_the_state() -> None:
    text = (
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
        "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state "
        "srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n"
        "2 writer 1 s1 127.9.0.2 2 0 1 1 17 1 0 0 0 0 0 0 - 5432 -\n"
        "2 writer 2 s2 127.9.0.3 0 5 1 1 3 1 0 0 0 0 0 0 - 5432 -\n"
        "2 writer 3 s3 127.9.0.4 2 4 1 1 3 1 0 0 0 0 0 0 - 5432 -\n\n"
    )
    assert parse_state(text)["writer"] == [
        Slot("s1", A, PORT, True, 17),
        Slot("s2", B, PORT, False, 3),
        Slot("s3", C, PORT, True, 3),  # disabled in the configuration, made ready since
    ]
    with pytest.raises(ValueError, match="not a list"):
        parse_state("Unknown command")
