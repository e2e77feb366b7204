"""Stopping one instance of a cluster that is being stopped. Starting is bringing up, as for a new one."""

from __future__ import annotations

from borealis.control.context import ControlContext
from borealis.control.events import InstanceEvent, instance_event
from borealis.control.records import IncarnationPhase
from borealis.control.settle import move_instance, retire
from borealis.control.states import InstanceStatus
from borealis.control.store import Put


async def stop_instance(context: ControlContext, key: str) -> None:
    """Shut the engine down and let go of this life; what it held is on the volume."""
    instance = context.instance(key)
    incarnation = instance.incarnation
    if incarnation is not None:
        if incarnation.phase is not IncarnationPhase.PREPARING:
            await context.instances.stop_engine(incarnation.id, context.settings.stop_seconds)
        await context.instances.kill(incarnation.id)
        await context.observer.unwatch(incarnation.id)
    present = context.instance(key)
    if present.status is not InstanceStatus.STOPPING or present.incarnation != incarnation:
        return
    stopped = move_instance(retire(present), InstanceStatus.STOPPED)
    await context.store.commit([Put(stopped), instance_event(InstanceEvent.STOPPED, stopped)])
