"""Making addresses, proxies and names what the records say."""

from __future__ import annotations

import asyncio

from borealis.control.context import ControlContext
from borealis.control.endpoint_plan import endpoint_plan
from borealis.control.look import look
from borealis.control.records import CustomEndpoint
from borealis.control.states import EndpointStatus, Want, check_endpoint_move
from borealis.control.store import Delete, Op, Put


async def sync_endpoints(context: ControlContext, key: str) -> None:
    """Apply the present plan, then let custom endpoints become available or go."""
    await _addresses(context, key)
    plan = endpoint_plan(look(context, context.cluster(key), asyncio.get_running_loop().time()))
    await context.endpoints.apply(plan)
    context.memory(key).endpoints_applied = plan
    ops: list[Op] = []
    planned = {custom.key for custom in plan.customs}
    for endpoint in context.custom_endpoints(key):
        if endpoint.want is Want.DELETED:
            if endpoint.key not in planned:
                ops.append(Delete(endpoint))
        elif endpoint.key in planned and endpoint.status is not EndpointStatus.AVAILABLE:
            check_endpoint_move(endpoint.status, EndpointStatus.AVAILABLE)
            ops.append(Put(endpoint.but(status=EndpointStatus.AVAILABLE)))
    await context.store.commit(ops)


async def _addresses(context: ControlContext, key: str) -> None:
    port = context.cluster(key).port
    for endpoint in context.custom_endpoints(key):
        if endpoint.address or endpoint.want is Want.DELETED:
            continue
        async with context.address_lock:
            address = await context.endpoints.allocate(port, context.addresses_in_use())

            def placed(record: CustomEndpoint, address: str = address) -> CustomEndpoint:
                return record.but(address=address)

            await context.store.update(CustomEndpoint, endpoint.key, placed)
