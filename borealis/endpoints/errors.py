"""What can go wrong with endpoints."""

from __future__ import annotations

from borealis.errors import BorealisError


class EndpointError(BorealisError):
    """An endpoint cannot be made as it should be."""

    code = "EndpointFailure"


class NoAddress(EndpointError):
    """No address of the region's block can be listened on."""

    code = "InsufficientAddresses"


class ProxyUnreachable(EndpointError):
    """The proxy process does not answer on its control socket."""

    code = "ProxyUnreachable"
