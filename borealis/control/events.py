"""The events that Borealis emits: AWS's numbers, categories and wordings in one table.

Owns the table and the making of `Event` records. Never stores one: the caller commits it with the change that
it tells of, so that there is no event without its change and no change without its event.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from borealis.control.records import Cluster, Event, Instance


class ClusterEvent(Enum):
    """Events of clusters: (number, category, message)."""

    CREATED = (170, "creation", "DB cluster created.")
    DELETED = (171, "deletion", "DB cluster deleted.")
    CREDENTIALS_RESET = (16, "configuration change", "Reset master credentials.")
    FAILOVER_FAILED = (
        69,
        "failover",
        "Cluster failover failed, check the health of your cluster instances and try again. {reason}",
    )
    PROMOTING_AGAIN = (70, "failover", "Promoting previous primary again: {name}.")
    FAILOVER_DONE = (71, "failover", "Completed failover to DB instance: {name}.")
    FAILOVER_SAME_AZ = (72, "failover", "Started same AZ failover to DB instance: {name}.")
    FAILOVER_CROSS_AZ = (73, "failover", "Started cross AZ failover to DB instance: {name}.")
    STOPPED = (150, "notification", "DB cluster stopped.")
    STARTED = (151, "notification", "DB cluster started.")
    RENAMED = (172, "notification", "Renamed cluster from {old} to {new}.")
    NOTE = (44, "notification", "{reason}")
    UPGRADED = (173, "maintenance", "Database cluster engine version has been upgraded.")
    NOT_CREATED = (
        354,
        "failure",
        "You can't create the DB cluster because of incompatible resources. {reason}",
    )


class InstanceEvent(Enum):
    """Events of instances: (number, category, message)."""

    CREATED = (5, "creation", "DB instance created.")
    DELETED = (3, "deletion", "DB instance deleted.")
    SHUT_DOWN = (4, "availability", "DB instance shutdown.")
    RESTARTED = (6, "availability", "DB instance restarted.")
    STOPPED = (87, "notification", "DB instance stopped.")
    STARTED = (88, "notification", "DB instance started.")
    APPLYING_CLASS = (12, "configuration change", "Applying modification to database instance class.")
    APPLIED_CLASS = (14, "configuration change", "Finished applying modification to DB instance class.")
    RECOVERING = (
        20,
        "recovery",
        "Recovery of the DB instance has started. "
        "Recovery time will vary with the amount of data to be recovered. {reason}",
    )
    RECOVERED = (21, "recovery", "Recovery of the DB instance is complete.")
    FAILED = (35, "failure", "Database instance put into failed. {reason}")
    NOTE = (44, "notification", "{reason}")


CLUSTER_SOURCE = "db-cluster"
INSTANCE_SOURCE = "db-instance"


def cluster_event(kind: ClusterEvent, cluster: Cluster, **words: str) -> Event:
    """An event of `cluster`; `words` fill the placeholders of the message."""
    number, category, text = kind.value
    return Event(
        event_id=f"RDS-EVENT-{number:04d}",
        source_type=CLUSTER_SOURCE,
        source_id=cluster.identifier,
        source_arn=cluster.arn,
        message=_fill(text, words),
        categories=(category,),
    )


def instance_event(kind: InstanceEvent, instance: Instance, **words: str) -> Event:
    """An event of `instance`; `words` fill the placeholders of the message."""
    number, category, text = kind.value
    return Event(
        event_id=f"RDS-EVENT-{number:04d}",
        source_type=INSTANCE_SOURCE,
        source_id=instance.identifier,
        source_arn=instance.arn,
        message=_fill(text, words),
        categories=(category,),
    )


def _fill(text: str, words: Mapping[str, str]) -> str:
    return text.format(**{"reason": "", **words}).strip()
