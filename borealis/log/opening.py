"""Opening a volume at a new term: how a candidate takes the log over from whoever wrote it before.

Owns the order of the steps and what must hold between them; a sans-IO state machine: connections, losses and
replies in, messages out. It opens no connection, reads no clock (callers say what time it is, for the
timings), touches no engine, and takes no term: the two it uses come from the state store, unique and rising.

    PROBE    STATUS to all. Below a write quorum nothing more happens: a healthy writer that is only cut off
             from the candidate is not fenced by an opening that cannot succeed.
    VOTE     the first term to all. A read quorum of promises: no older leader can reach a write quorum any
             more, and every acknowledged byte is on one of the logs in the answers. The highest (last term,
             end) is the log.
    ADOPT    that log up to its end E, and the first term's entry at E, on a write quorum. Now E is durable.
    REPLAY   the caller's engine replays to E and says where its first record goes: S. Meanwhile the second
             term is voted for; the log must still be (first term, E), or somebody else has been here.
    OPENING  the second term's entry at min(S, E), with padding up to S, on a write quorum.
    OPEN     the caller may acknowledge commits.

Any failure is final: begin again with higher terms. Nothing was promised to any client in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from borealis.log import wire
from borealis.log.history import TermHistory
from borealis.log.quorum import Quorum
from borealis.log.replication import Outbox, Replication
from borealis.log.types import PIECE_BYTES, LogError, LogMoved, Lsn, NoQuorum, Superseded, TermEntry


class Phase(StrEnum):
    """Where an opening stands; in this order, or FAILED from anywhere."""

    PROBE = "probe"
    VOTE = "vote"
    ADOPT = "adopt"
    REPLAY = "replay"
    OPENING = "opening"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RecoveredLog:
    """The log after ADOPT: durable up to `end`, on `timeline` there."""

    term: int
    end: Lsn
    timeline: int
    history: TermHistory


@dataclass(frozen=True, slots=True)
class OpenedVolume:
    """The result: everything that a `Shipper` starts from."""

    term: int
    history: TermHistory
    start: Lsn
    """Where the term's entry is: min(S, E)."""
    vdl: Lsn
    """Durable up to here, and the writer's first record goes here: S."""
    ends: dict[str, Lsn]
    """Segment -> its end in this term, of those that have spoken in it."""
    timings: dict[str, float]
    """Phase -> how long it took, in seconds."""


class VolumeOpener:
    """One attempt. Feed it `connected`, `lost`, `receive`, `promoted`; send what `take_outbox` returns.

    `now` is in seconds on any clock that does not go back. The methods raise Superseded, NoQuorum or LogMoved
    when the attempt is over; after that all input is ignored.
    """

    def __init__(
        self, quorum: Quorum, first_term: int, second_term: int, writer: str, *, piece: int = PIECE_BYTES
    ) -> None:
        """`writer`: unique among all candidates of the volume, for ever. `piece`: bytes copied at once."""
        assert 0 < first_term < second_term
        self._quorum, self._writer, self._piece = quorum, writer, piece
        self.first_term, self.second_term = first_term, second_term
        self.phase = Phase.PROBE
        self.chosen: RecoveredLog | None = None
        """The log that the vote has found; not durable before ADOPT is over."""
        self.recovered: RecoveredLog | None = None
        """`chosen`, once it is durable: what the engine is to replay."""
        self.opened: OpenedVolume | None = None
        self._outbox: Outbox = []
        self._connected: set[str] = set()
        self._unreachable: set[str] = set()
        self._answered: set[str] = set()
        self._votes: dict[int, dict[str, wire.VoteReply]] = {first_term: {}, second_term: {}}
        self._confirmed = False
        """The second vote found the log where ADOPT left it."""
        self._switch: tuple[Lsn, int, str] | None = None
        self._work: Replication | None = None
        self._timings: dict[str, float] = {}
        self._since: float | None = None

    # -------------------- input

    def connected(self, node: str, now: float) -> None:
        """A connection to the segment stands (again): what it has to hear in this phase is said (again)."""
        self._start_clock(now)
        if self._over:
            return
        self._connected.add(node)
        self._unreachable.discard(node)
        if self.phase is Phase.PROBE:
            self._outbox.append((node, wire.Status()))
        elif self.phase is Phase.VOTE:
            self._ask_vote(node, self.first_term)
        elif self.phase is Phase.REPLAY:
            self._ask_vote(node, self.second_term)
        elif self._work is not None:
            self._work.connected(node)

    def lost(self, node: str, now: float) -> None:
        """The connection broke, or could not be made, or the node has no segment of the volume."""
        self._start_clock(now)
        if self._over:
            return
        self._connected.discard(node)
        self._unreachable.add(node)
        if self.phase is Phase.PROBE:
            if not self._quorum.is_write(self._quorum.members - self._unreachable):
                raise self._fail(self.no_quorum())
        elif self._work is not None:
            self._work.lost(node)

    def receive(self, node: str, message: wire.Message, now: float) -> None:
        """A message from the segment, in time, late or doubled."""
        self._start_clock(now)
        if self._over or node not in self._quorum.members:
            return
        self._check_superseded(node, message)
        match message:
            case wire.Error() if self.phase is Phase.PROBE:
                self.lost(node, now)
            case wire.StatusReply() if self.phase is Phase.PROBE and not len(message.history):
                self.lost(node, now)  # It has no segment of the volume.
            case wire.StatusReply() if self.phase is Phase.PROBE:
                self._probed(node, now)
            case wire.VoteReply():
                self._voted(node, message, now)
            case _ if self._work is not None:
                self._work.receive(node, message)
                self._advance(now)

    def promoted(self, switch: Lsn, timeline: int, history: str, now: float) -> None:
        """The engine has replayed to E and been promoted: it goes on at `switch` (S) on the new `timeline`,
        whose history text is `history`."""
        assert self._switch is None
        if self._over:
            return
        if self.recovered is None:
            raise ValueError("promoted() came before the log was recovered: wait for `recovered`")
        self._mark("replay", now)
        self._switch = (switch, timeline, history)
        self._begin_term(now)

    def no_quorum(self) -> NoQuorum:
        """The error for a caller that has waited long enough; it says what is missing."""
        silent = sorted(self._quorum.members - self._connected)
        return NoQuorum(
            f"the volume could not be opened at term {self.first_term}: no quorum in phase {self.phase}; "
            f"not connected: {', '.join(silent) or 'none'}; a write quorum of the segments must answer"
        )

    def take_outbox(self) -> Outbox:
        """The messages to be sent now, in order per segment. Drop those to segments that are gone."""
        out, self._outbox[:] = list(self._outbox), []
        return out

    # -------------------- steps

    def _probed(self, node: str, now: float) -> None:
        self._answered.add(node)
        if self._quorum.is_write(self._answered & self._connected):
            self._mark("probe", now)
            self.phase = Phase.VOTE
            for member in sorted(self._connected):
                self._ask_vote(member, self.first_term)

    def _ask_vote(self, node: str, term: int) -> None:
        self._outbox.append((node, wire.Vote(term, self._writer)))

    def _voted(self, node: str, reply: wire.VoteReply, now: float) -> None:
        votes = self._votes.get(reply.promised)
        if votes is None or not reply.granted:
            return
        votes.setdefault(node, reply)
        if reply.promised == self.first_term and self.phase is Phase.VOTE and self._quorum.is_read(votes):
            self._choose(votes, now)
        elif reply.promised == self.second_term and not self._confirmed and self._quorum.is_read(votes):
            self._confirm(votes, now)

    def _rank(self, vote: wire.VoteReply) -> tuple[int, ...]:
        """The order of logs. The longest is not the best: an older leader's end may never have counted."""
        return vote.history.newest_term, vote.end

    def _extend(self, history: TermHistory, entry: TermEntry) -> TermHistory:
        return history.extend(entry)

    def _choose(self, votes: dict[str, wire.VoteReply], now: float) -> None:
        best = max(votes.values(), key=self._rank)
        last = best.history.last
        if last is None or last.term >= self.first_term:
            raise self._fail(LogMoved(f"term {self.first_term} was used before: take a new, higher one"))
        self._mark("vote", now)
        entry = TermEntry(self.first_term, last.timeline, best.end, "", self._writer)
        history = self._extend(best.history, entry)
        self.chosen = RecoveredLog(self.first_term, best.end, last.timeline, history)
        self.phase = Phase.ADOPT
        self._replicate(history, best.end, best.end)

    def _replicate(self, history: TermHistory, inherited: Lsn, target: Lsn) -> None:
        self._work = Replication(self._quorum, history, inherited, target, self._outbox, piece=self._piece)
        for node in sorted(self._connected):
            self._work.connected(node)

    def _advance(self, now: float) -> None:
        """The write quorum of the current work may be complete."""
        work = self._work
        if work is None or not work.done:
            return
        self._work = None
        for node in sorted(work.ready):
            self._outbox.append((node, wire.Commit(work.term, work.target)))
        if self.phase is Phase.ADOPT:
            self._mark("adopt", now)
            self.phase = Phase.REPLAY
            self.recovered = self.chosen
            for node in sorted(self._connected):
                self._ask_vote(node, self.second_term)
        else:
            self._mark("opening", now)
            self.phase = Phase.OPEN
            start = work.history.entries[-1].start
            self.opened = OpenedVolume(
                work.term, work.history, start, work.target, dict(work.ends), dict(self._timings)
            )

    def _confirm(self, votes: dict[str, wire.VoteReply], now: float) -> None:
        """The log that the engine replays must still be the log, or acknowledged commits would be cut off."""
        assert self.chosen is not None
        best = max(votes.values(), key=self._rank)
        found = (best.history.newest_term, best.end)
        if found != (self.first_term, self.chosen.end):
            raise self._fail(
                LogMoved(
                    f"the log stands at (term, end) {found}, expected {(self.first_term, self.chosen.end)}: "
                    "another candidate has been here; open the volume again with higher terms"
                )
            )
        self._confirmed = True
        self._begin_term(now)

    def _begin_term(self, now: float) -> None:
        if self._switch is None or not self._confirmed:
            return
        assert self.chosen is not None
        self._since = now
        switch, timeline, text = self._switch
        start = min(switch, self.chosen.end)
        entry = TermEntry(self.second_term, timeline, start, text, self._writer)
        self.phase = Phase.OPENING
        self._replicate(self._extend(self.chosen.history, entry), start, switch)

    # -------------------- common

    @property
    def timings(self) -> dict[str, float]:
        """Phase -> seconds, of the phases that are over."""
        return dict(self._timings)

    @property
    def _over(self) -> bool:
        return self.phase in (Phase.OPEN, Phase.FAILED)

    def _check_superseded(self, node: str, message: wire.Message) -> None:
        promised = 0
        if isinstance(message, wire.StatusReply | wire.VoteReply | wire.NewTermReply | wire.Refused):
            promised = message.promised
        own = self.first_term if self.phase in (Phase.PROBE, Phase.VOTE, Phase.ADOPT) else self.second_term
        if promised > own:
            raise self._fail(Superseded(own, promised, f"segment {node}"))
        if isinstance(message, wire.VoteReply) and not message.granted and promised == own:
            raise self._fail(Superseded(own, promised, f"segment {node}, to another candidate,"))

    def _fail(self, error: LogError) -> LogError:
        self.phase = Phase.FAILED
        self._outbox.clear()
        return error

    def _start_clock(self, now: float) -> None:
        if self._since is None:
            self._since = now

    def _mark(self, phase: str, now: float) -> None:
        assert self._since is not None
        self._timings[phase] = now - self._since
        self._since = now
