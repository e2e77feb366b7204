"""The replication protocol, from text files: what a client sends and the log does, then what is answered.

A file in testdata/walsender is a row of cases: commands, `----`, expected output, an empty line. One state
machine lives through a whole file. REWRITE_TESTDATA=1 writes what the code answers into the files: read the
difference.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from borealis.engines.base import Feedback, ReaderProgress
from borealis.engines.postgres import messages as m
from borealis.engines.postgres.messages import MessageReader, ProtocolError
from borealis.engines.postgres.wal import format_lsn, parse_lsn
from borealis.engines.postgres.walsender import WalSender

from .memory_feed import MemoryFeed

FILES = sorted((Path(__file__).parent / "testdata" / "walsender").glob("*.txt"))


class Conversation:
    """Runs the commands of one file."""

    def __init__(self) -> None:
        self.feed = MemoryFeed()
        self.heard: list[str] = []
        self.sender = self._sender()
        self.reader = MessageReader(startup=False)

    def _sender(self) -> WalSender:
        return WalSender(self.feed, "15.20", lambda: 0, self._on_feedback, self._on_progress)

    def _on_feedback(self, feedback: Feedback) -> None:
        self.heard.append(f"feedback xmin={feedback.xmin} catalog_xmin={feedback.catalog_xmin}")

    def _on_progress(self, progress: ReaderProgress) -> None:
        self.heard.append("progress " + " ".join(format_lsn(lsn) for lsn in progress))

    def run(self, command: str) -> list[str]:
        word, _, rest = command.partition(" ")
        try:
            getattr(self, f"do_{word}")(*rest.split())
            said = self._drain()
        except ProtocolError as error:
            said = [f"protocol error: {error}"]
        heard, self.heard = self.heard, []
        return heard + said

    def _drain(self) -> list[str]:
        told = []
        while (output := self.sender.next_output()) is not None:
            if output == b"N":
                told.append("N")
                continue
            self.reader.feed(output)
            while (message := self.reader.next()) is not None:
                told.append(describe(*message))
        if self.sender.wanted is not None:
            start, end = self.sender.wanted
            told.append(f"wants {format_lsn(start)} to {format_lsn(end)}")
        if self.sender.closed:
            told.append("closed")
        return told

    # -- the log
    def do_log(self, size: str) -> None:
        self.feed.append(bytes(int(size)), durable=False)

    def do_vdl(self, lsn: str) -> None:
        self.feed.advance(parse_lsn(lsn))

    def do_timeline(self, number: str, lsn: str) -> None:
        self.feed.begin_timeline(int(number), parse_lsn(lsn), f"1\t{lsn}\tno recovery target specified\n")

    def do_unknown(self) -> None:
        self.feed.timelines = {}

    def do_forget(self, lsn: str) -> None:
        self.feed.forgotten = parse_lsn(lsn)

    def do_provide(self, lsn: str, size: str) -> None:
        self.sender.provide(parse_lsn(lsn), bytes(int(size)))

    # -- the client
    def do_connect(self) -> None:
        self.sender, self.reader = self._sender(), MessageReader(startup=False)

    def do_ssl(self) -> None:
        self.sender.receive(struct.pack(">II", 8, m.SSL_REQUEST))

    def do_gss(self) -> None:
        self.sender.receive(struct.pack(">II", 8, m.GSSENC_REQUEST))

    def do_cancel(self) -> None:
        self.sender.receive(struct.pack(">IIII", 16, m.CANCEL_REQUEST, 1, 2))

    def do_startup(self, *parameters: str) -> None:
        self.sender.receive(m.startup(dict(part.split("=", 1) for part in parameters)))

    def do_protocol(self, major: str, minor: str) -> None:
        body = b"replication\0true\0\0"
        self.sender.receive(struct.pack(">II", 8 + len(body), int(major) << 16 | int(minor)) + body)

    def do_query(self, *words: str) -> None:
        self.sender.receive(m.message(b"Q", " ".join(words).encode() + b"\0"))

    def do_bytes(self, *numbers: str) -> None:
        self.sender.receive(bytes(int(number, 16) for number in numbers))

    def do_copydone(self) -> None:
        self.sender.receive(m.message(b"c"))

    def do_terminate(self) -> None:
        self.sender.receive(m.message(b"X"))

    def do_status(self, lsn: str, reply: str = "0") -> None:
        position = parse_lsn(lsn)
        body = m.STANDBY_STATUS.pack(b"r", position, position, position - 8, 0, int(reply))
        self.sender.receive(m.message(b"d", body))

    def do_feedback(self, xmin: str, catalog_xmin: str) -> None:
        self.sender.receive(m.standby_feedback(int(xmin), int(catalog_xmin), 0))

    def do_keepalive(self, reply: str = "0") -> None:
        self.sender.keepalive(reply=bool(int(reply)))


def describe(kind: bytes, body: bytes) -> str:
    """One message of the server in words."""
    if kind == b"d":
        return _describe_copy(body)
    if kind == b"D":
        return "row " + " | ".join(_fields(body))
    if kind == b"E":
        return f"error {m.error_text(body)}"
    if kind == b"C":
        return f"complete {body[:-1].decode()}"
    if kind == b"S":
        return "parameter " + "=".join(body.decode().split("\0")[:2])
    names = {
        b"R": "authenticated",
        b"K": "key",
        b"Z": "ready",
        b"T": "columns",
        b"W": "copy both",
        b"c": "copy done",
    }
    return names.get(kind, f"{kind!r} {body!r}")


def _describe_copy(body: bytes) -> str:
    if body[:1] == b"w":
        _, start, server_end, _ = m.WAL_DATA.unpack_from(body)
        size = len(body) - m.WAL_DATA.size
        return f"wal {format_lsn(start)} to {format_lsn(start + size)} of {format_lsn(server_end)}"
    _, server_end, _, reply = m.KEEPALIVE.unpack(body)
    return f"keepalive {format_lsn(server_end)}{' reply' if reply else ''}"


def _fields(body: bytes) -> list[str]:
    told, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        told.append(
            "null"
            if length < 0
            else body[at : at + length].decode().replace("\n", "\\n").replace("\t", "\\t")
        )
        at += max(length, 0)
    return told


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_conversation(path: Path) -> None:
    conversation = Conversation()
    cases = [case.strip() for case in path.read_text().split("\n\n") if case.strip()]
    played = []
    for case in cases:
        asked, _, _ = case.partition("----")
        told: list[str] = []
        for line in asked.splitlines():
            if line and not line.startswith("#"):
                told += conversation.run(line)
        played.append("\n".join([asked + "----", *told]))
    if os.environ.get("REWRITE_TESTDATA"):
        path.write_text("\n\n".join(played) + "\n")
    else:
        assert played == cases


def test_there_are_conversations() -> None:
    assert FILES
