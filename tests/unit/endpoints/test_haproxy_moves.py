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
    return Endpoint("writer", "127.9.0.1", PORT, 1, targets)


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


def test_a_writer_appears() -> None:
    slots, limits, cut = apply(initial(writer()), moves(writer(A), initial(writer()), MAXCONN, always))
    assert (slots[0].address, slots[0].port, slots[0].ready) == (A, PORT, True)
    assert limits == {"s1": MAXCONN}
    assert cut == []


def test_a_writer_goes_and_connections_are_held() -> None:
    serving = [Slot("s1", A, PORT, True)]
    slots, limits, cut = apply(serving, moves(writer(), serving, MAXCONN, always))
    assert slots[0].holds
    assert limits == {"s1": HELD}
    assert cut == ["s1"]


def test_sessions_are_cut_before_the_new_writer_has_any() -> None:
    serving = [Slot("s1", A, PORT, True)]
    commands = moves(writer(B), serving, MAXCONN, always)
    assert commands.index("shutdown sessions server writer/s1") < commands.index(
        f"set server writer/s1 addr {B} port {PORT}"
    )
    slots, limits, _ = apply(serving, commands)
    assert slots[0].address == B
    assert limits == {"s1": MAXCONN}


def test_nothing_to_do() -> None:
    serving = [Slot("s1", A, PORT, True)]
    assert moves(writer(A), serving, MAXCONN, always) == []
    assert moves(writer(), initial(writer()), MAXCONN, always) == []


def test_readers_keep_their_slots() -> None:
    slots, _, _ = apply(initial(pool()), moves(pool(A, B), initial(pool()), MAXCONN, never))
    assert [s.address for s in slots if s.serves] == [A, B]
    slots, _, cut = apply(slots, moves(pool(B, C), slots, MAXCONN, always))
    assert {s.address for s in slots if s.serves} == {B, C}
    assert next(s for s in slots if s.address == B).name == "s2"
    assert cut == ["s1"]


def test_a_reader_that_changed_its_role_keeps_its_sessions() -> None:
    serving = [Slot("s1", A, PORT, True), Slot("s2", B, PORT, True)]
    _, _, cut = apply(serving, moves(pool(B, slots=2), serving, MAXCONN, never))
    assert cut == []


def test_the_slot_that_was_off_longest_is_used_first() -> None:
    serving = [
        Slot("s1", A, PORT, True, 5),
        Slot("s2", HOLD_ADDRESS, HOLD_PORT, False, 10),
        Slot("s3", HOLD_ADDRESS, HOLD_PORT, False, 99),
    ]
    slots, _, _ = apply(serving, moves(pool(A, B, slots=3), serving, MAXCONN, never))
    assert slots[2].address == B


@given(st.lists(st.lists(st.sampled_from([A, B, C, "127.9.0.5"]), unique=True), min_size=1, max_size=12))
def test_any_sequence_ends_where_it_should(plans: list[list[str]]) -> None:
    slots = initial(pool())
    limits = {slot.name: MAXCONN for slot in slots} | {"s1": HELD}
    for plan in plans:
        endpoint = pool(*plan)
        slots, changed, _ = apply(slots, moves(endpoint, slots, MAXCONN, always))
        limits |= changed
        serving = [slot for slot in slots if slot.serves]
        assert sorted(slot.address for slot in serving) == sorted(plan)
        assert all(slot.port == PORT and limits[slot.name] == MAXCONN for slot in serving)
        holding = [slot for slot in slots if slot.holds]
        assert len(holding) == (0 if plan else 1)
        assert all(limits[slot.name] == HELD for slot in holding)
        assert moves(endpoint, slots, MAXCONN, always) == []


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
        "2 writer 2 s2 127.9.0.3 0 5 1 1 3 1 0 0 0 0 0 0 - 5432 -\n\n"
    )
    assert parse_state(text) == {"writer": [Slot("s1", A, PORT, True, 17), Slot("s2", B, PORT, False, 3)]}
    with pytest.raises(ValueError, match="not a list"):
        parse_state("Unknown command")
