"""Hands the control plane to the API server: the one place where control knows of it."""

from __future__ import annotations

from borealis.api.context import Context
from borealis.api.server import ApiServer
from borealis.control.reconciler import Reconciler
from borealis.control.store import Store
from borealis.endpoints.service import EndpointService
from borealis.engines.classes import INSTANCE_CLASSES
from borealis.engines.registry import engines, installed_versions
from borealis.region import Credentials, RegionConfig


def make_api(
    region: RegionConfig,
    store: Store,
    reconciler: Reconciler,
    endpoints: EndpointService,
    credentials: Credentials,
) -> ApiServer:
    """The API of the region; not started yet."""
    context = Context(
        region=region.region,
        account=region.account,
        zones=region.zones,
        store=store,
        control=reconciler,
        names=endpoints.names,
        engines=engines(),
        versions=installed_versions,
        classes=INSTANCE_CLASSES,
    )
    return ApiServer(region.host, region.port, context, credentials)
