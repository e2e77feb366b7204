"""What must always hold, whatever the network, the disks and rival leaders do.

Owns the record of all that was ever acknowledged, and the checks against it. It sees everything at once,
which no part of the real system does.
"""

from __future__ import annotations

from itertools import combinations

from borealis.log.records import HistoryRecord
from borealis.log.types import TermEntry
from tests.simulation.engine import LOG_START, BrokenLog, last_record_end
from tests.simulation.node import SimNode


class Violation(Exception):
    """A promise of the log was broken."""


class Oracle:
    """`truth` is the log as far as records were acknowledged to anybody."""

    def __init__(self, nodes: dict[str, SimNode]) -> None:
        self._nodes = nodes
        self.truth = b""
        self.entries: dict[int, TermEntry] = {}
        self.recovered: dict[int, tuple[int, bytes]] = {}
        """Term -> (step, log) of each adopted log: durable, so no earlier leader may commit anything beside
        it."""
        self._known_records: dict[str, int] = {}
        self.commits = self.reads = 0

    @property
    def truth_end(self) -> int:
        return LOG_START + len(self.truth)

    def recover(self, term: int, log: bytes, step: int) -> None:
        """A candidate has the log on a write quorum in its term: everything acknowledged must be in it. One
        that learns so only after a later one may lack what that one has added."""
        if any(newer > term for newer in self.recovered):
            self.commit(term, log)
            return
        if not log.startswith(self.truth):
            raise Violation(f"term {term} recovered a log that lost or changed acknowledged records")
        self.recovered[term] = (step, log)
        self._extend(term, log)

    def open(self, term: int, start: int) -> None:
        """A leader goes on at `start`. One that learns only late that it might have is too late to commit
        anything, which `commit` makes sure of."""
        if start < self.truth_end and max(self.recovered) < term:
            raise Violation(
                f"term {term} begins at {start}, below acknowledged records up to {self.truth_end}"
            )

    def commit(self, term: int, log: bytes) -> None:
        """A leader calls `log` durable (it is cut at the VDL)."""
        self.commits += 1
        if not self._agrees(log):
            # Bytes of an incomplete record at the end may have been cut off by a later term since.
            log = log[: last_record_end(log) - LOG_START]
        if not self._agrees(log):
            raise Violation(f"term {term} acknowledges records that differ from acknowledged ones")
        self._extend(term, log)

    def _agrees(self, log: bytes) -> bool:
        common = min(len(log), len(self.truth))
        return log[:common] == self.truth[:common]

    def _extend(self, term: int, log: bytes) -> None:
        try:
            complete = last_record_end(log, max(LOG_START, min(self.truth_end, LOG_START + len(log))))
        except BrokenLog as error:
            raise Violation(f"term {term} holds a broken log: {error}") from error
        if complete <= self.truth_end:
            return
        truth = log[: complete - LOG_START]
        for newer, (_, other) in self.recovered.items():
            if newer > term and not other.startswith(truth):
                raise Violation(f"term {term} acknowledged records after term {newer} had taken the log over")
        self.truth = truth

    def lease(self, term: int, since: int) -> None:
        """A leader believes that no other one was elected before step `since`."""
        for newer, (step, _) in self.recovered.items():
            if newer > term and step < since:
                raise Violation(f"term {term} has a lease from step {since}, term {newer} began at {step}")

    def read(self, reader: str, visible: bytes) -> None:
        """A reader shows the complete records in `visible`: all acknowledged, and never fewer than before."""
        self.reads += 1
        known = self._known_records.get(reader, LOG_START)
        try:
            complete = last_record_end(visible, min(known, LOG_START + len(visible)))
        except BrokenLog as error:
            raise Violation(f"reader {reader} sees a broken log: {error}") from error
        shown = visible[: complete - LOG_START]
        if not self.truth.startswith(shown):
            raise Violation(f"reader {reader} shows records that were not acknowledged, or changed")
        if complete < known:
            raise Violation(f"reader {reader} goes back from {known} to {complete}")
        self._known_records[reader] = complete

    def node(self, node: SimNode) -> None:
        """One entry per term over all histories ever written to a disk."""
        for record in node.disk[-4:]:
            if isinstance(record, HistoryRecord):
                for entry in record.history:
                    if self.entries.setdefault(entry.term, entry) != entry:
                        raise Violation(
                            f"term {entry.term} has two entries: {entry} and {self.entries[entry.term]}"
                        )

    def matching(self) -> None:
        """Logs hold the same bytes up to where their histories part; with the same last term, one is a
        prefix."""
        nodes = [node for node in self._nodes.values() if node.up and node.core.exists]
        for one, other in combinations(nodes, 2):
            until = min(one.core.end, other.core.end)
            if one.core.history.last_term(one.core.end) != other.core.history.last_term(other.core.end):
                until = min(until, one.core.history.agree_until(other.core.history))
            start = max(one.core.base, other.core.base) - LOG_START
            until -= LOG_START
            if until > start and one.log[start:until] != other.log[start:until]:
                raise Violation(
                    f"{one.name} and {other.name} hold different bytes below {until + LOG_START}, "
                    f"where their histories agree"
                )
