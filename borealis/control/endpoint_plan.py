"""The endpoint plan of a view: who is in service, put through the rules of `control.topology`. Pure."""

from __future__ import annotations

from borealis.control.records import Instance
from borealis.control.states import ClusterStatus, Want
from borealis.control.topology import (
    CustomPlan,
    EndpointPlan,
    InstanceName,
    Target,
    custom_members,
    reader_targets,
)
from borealis.control.view import View


def endpoint_plan(view: View) -> EndpointPlan:
    """What the cluster's endpoints should be now.

    A live writer stays the target even while it is silent: its clients wait for it, or for the failover.
    """
    cluster = view.cluster
    live = view.live_writer
    writer = _target(live) if live is not None and cluster.opening is None else None
    readers = tuple(
        _target(instance)
        for instance in sorted(view.instances, key=lambda i: i.identifier)
        if instance is not live and instance.want is Want.RUNNING and view.healthy(instance)
    )
    return EndpointPlan(
        cluster=cluster.key,
        identifier=cluster.identifier,
        hash12=cluster.hash12,
        port=cluster.port,
        running=cluster.status is not ClusterStatus.STOPPED and cluster.want is not Want.DELETED,
        writer_address=cluster.addresses.writer,
        reader_address=cluster.addresses.reader,
        writer=writer,
        readers=reader_targets(writer, readers),
        customs=tuple(
            CustomPlan(
                key=endpoint.key,
                identifier=endpoint.identifier,
                address=endpoint.address,
                targets=custom_members(
                    endpoint.endpoint_type,
                    endpoint.static_members,
                    endpoint.excluded_members,
                    writer,
                    readers,
                ),
            )
            for endpoint in view.endpoints
            if endpoint.want is not Want.DELETED and endpoint.address
        ),
        instances=tuple(
            InstanceName(instance.identifier, instance.address)
            for instance in sorted(view.instances, key=lambda i: i.identifier)
            if instance.address
        ),
    )


def _target(instance: Instance) -> Target:
    return Target(instance.identifier, instance.address)
