"""The options of the control plane, with their defaults and units; region.json's `settings` may change them.

Owns the names and the defaults. Never reads a file itself.
"""

from __future__ import annotations

import msgspec

from borealis.region import RegionConfig

MIB = 1 << 20
GIB = 1 << 30
PROMOTION_TRIES_BY_TIER = 5
"""After this many openings that failed in a row, promotion tiers no longer decide."""


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in seconds, sizes in bytes."""

    lease_seconds: float = 3.0
    """How long a writer may be silent before it is killed and another one takes over."""
    poll_seconds: float = 0.5
    """How often each driver is asked for its status."""
    node_poll_seconds: float = 1.0
    """How often each storage node is asked for the state of its segments."""
    tick_seconds: float = 1.0
    """How often a cluster is looked at although nothing was heard."""
    probe_seconds: float = 0.5
    """How often a driver looks whether its engine answers."""
    open_seconds: float = 20.0
    """How long one try to open a volume may take."""
    start_seconds: float = 120.0
    """How long an instance may take from the start of its engine until it follows the volume."""
    caught_up_bytes: float = 16 * 1024 * 1024
    """A new reader goes into service when it is no farther behind than this."""
    planned_wait_seconds: float = 5.0
    """How long a failover that was asked for waits for its target to catch up."""
    stop_seconds: float = 30.0
    """How long an engine may take to shut down cleanly."""
    image_log_bytes: float = 1 * GIB
    """A new image is made after this much log; 0: never."""
    images_kept: float = 2
    """How many of the newest images are kept; at least 2."""
    trim_log_bytes: float = 64 * MIB
    """Log that no image and no reader needs is removed when there is so much of it; 0: never."""
    scrub_bytes_per_second: float = 1 * MIB
    """How fast each storage node checks in the background all that it holds; 0: not at all."""
    scrub_pass_seconds: float = 600.0
    """How long one such check of everything takes at least."""
    retry_min_seconds: float = 0.1
    """After a step that failed: first pause, doubled each time up to the next one."""
    retry_max_seconds: float = 10.0
    nodes_per_zone: float = 2
    dns_port: float = 5353
    """UDP port of the region's name server; 0: none."""
    hosts_file: float = 1
    """1: write the region's names into /etc/hosts where that is allowed; 0: leave it alone."""

    @classmethod
    def of(cls, region: RegionConfig) -> ControlSettings:
        """The region's settings; names of other parts are skipped."""
        known = {name: region.settings[name] for name in cls.__struct_fields__ if name in region.settings}
        return cls(**known)
