"""The host agent's typed errors; their codes travel over the socket."""

from __future__ import annotations

from borealis.errors import BorealisError


class HostError(BorealisError):
    """The agent could not do what it was asked."""

    code = "HostError"


class UnknownProcess(HostError):
    """No process of this name was ever started (or it was forgotten)."""

    code = "UnknownProcess"


class InvalidSpec(HostError):
    """What should be started is not described well: a bad name, an unknown user, a folder outside the
    region.
    """

    code = "InvalidSpec"


class SpawnFailed(HostError):
    """The program could not be started: not there, not executable, no such folder."""

    code = "SpawnFailed"


class ProcessConflict(HostError):
    """A process of this name runs, but with another command, or must have ended and has not."""

    code = "ProcessConflict"


class KillFailed(HostError):
    """Processes are still there some seconds after SIGKILL (stuck in the kernel)."""

    code = "KillFailed"


class FileFailed(HostError):
    """A folder could not be made, copied or removed."""

    code = "FileFailed"


class OutsideRegion(HostError):
    """The path does not lie below the region's folder: the agent touches nothing else."""

    code = "OutsideRegion"
