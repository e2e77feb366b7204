"""The table of DB instance classes: what an instance of each class may count as its own.

Owns vCPU and memory figures of the classes that the API offers, and their bounds. Never: what is really given
to a process on this machine (the control plane scales that down to the machine's size).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from borealis.errors import BorealisError

GIB = 1 << 30
ACU_BYTES = 2 * GIB
"""Memory that goes with one Aurora capacity unit, bytes."""
SERVERLESS = "db.serverless"
MIN_ACU = 0.0
MAX_ACU = 256.0


class UnknownInstanceClass(BorealisError):
    """The class is not in the table; the message names the families that are."""

    code = "InvalidParameterValue"


@dataclass(frozen=True, slots=True)
class InstanceClass:
    """One DB instance class."""

    name: str
    family: str
    vcpu: float
    """Virtual CPUs. Serverless: those of the largest capacity."""
    memory_bytes: int
    """Memory, bytes. Serverless: that of the largest capacity."""
    min_memory_bytes: int
    """Smallest memory that the instance can shrink to; the same as `memory_bytes` except for serverless."""

    @property
    def serverless(self) -> bool:
        return self.name == SERVERLESS


def _sizes(family: str, gib_per_vcpu: float, *vcpus: tuple[str, int]) -> list[InstanceClass]:
    return [
        InstanceClass(f"db.{family}.{size}", family, vcpu, memory := int(vcpu * gib_per_vcpu * GIB), memory)
        for size, vcpu in vcpus
    ]


def _burstable(family: str) -> list[InstanceClass]:
    return [
        InstanceClass(f"db.{family}.{size}", family, 2, gib * GIB, gib * GIB)
        for size, gib in (("medium", 4), ("large", 8))
    ]


_LARGE = (("large", 2), ("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16), ("8xlarge", 32), ("12xlarge", 48))
_SIXTEEN = (*_LARGE, ("16xlarge", 64))
_TWENTY_FOUR = (*_SIXTEEN, ("24xlarge", 96))


def _table() -> dict[str, InstanceClass]:
    largest = int(MAX_ACU * ACU_BYTES)
    listed = [InstanceClass(SERVERLESS, "serverless", MAX_ACU / 4, largest, ACU_BYTES // 2)]
    listed += _burstable("t3") + _burstable("t4g")
    listed += _sizes("r5", 8, *_TWENTY_FOUR)
    listed += _sizes("r6g", 8, *_SIXTEEN)
    listed += _sizes("r6i", 8, *_TWENTY_FOUR, ("32xlarge", 128))
    listed += _sizes("r7g", 8, *_SIXTEEN)
    listed += _sizes("r7i", 8, *_TWENTY_FOUR, ("48xlarge", 192))
    listed += _sizes("r8g", 8, *_TWENTY_FOUR, ("48xlarge", 192))
    listed += _sizes("x2g", 16, *_SIXTEEN)
    return {one.name: one for one in listed}


INSTANCE_CLASSES: Mapping[str, InstanceClass] = MappingProxyType(_table())
"""All classes by name, in the order of families and sizes."""


def instance_class(name: str) -> InstanceClass:
    """The class of that name. Raises UnknownInstanceClass."""
    try:
        return INSTANCE_CLASSES[name]
    except KeyError:
        families = ", ".join(sorted({one.family for one in INSTANCE_CLASSES.values()}))
        raise UnknownInstanceClass(
            f"Invalid DB instance class: {name}. Known families: {families} (for example db.r6g.large)"
        ) from None


def acu_memory_bytes(acu: float) -> int:
    """Memory of a capacity in ACUs (steps of 0.5)."""
    return int(acu * ACU_BYTES)
