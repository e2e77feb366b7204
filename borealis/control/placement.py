"""Where an instance goes: its availability zone.

Owns one rule: the zone with the fewest instances of the cluster, the first by name among equals. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from borealis.control.records import Cluster, Instance


def choose_zone(cluster: Cluster, instances: Iterable[Instance], zones: Sequence[str]) -> str:
    """The zone for a new instance. The cluster's own zones come first; `zones` are all of the region.

    Raises ValueError when there is no zone at all.
    """
    allowed = [zone for zone in cluster.availability_zones if zone in zones] or list(zones)
    taken = [instance.availability_zone for instance in instances if instance.cluster == cluster.key]
    return min(allowed, key=lambda zone: (taken.count(zone), zone))
