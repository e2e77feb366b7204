"""From one HTTP request to one operation and back to one HTTP answer.

Owns the order of the checks: who signed, which service, which operation, are the parameters its own, does the
model allow them, are they supported; then the operation runs, again if a record it read was changed
meanwhile. Knows no sockets (server.py) and nothing of what the operations do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from borealis.api import sigv4
from borealis.api.context import Call, Caller, Context
from borealis.api.errors import ApiError
from borealis.api.params import Params
from borealis.api.protocol import foreign, query
from borealis.api.protocol.model import Service
from borealis.api.registry import Operation, Operations
from borealis.api.sigv4 import HttpRequest, Signature
from borealis.api.validation import validate
from borealis.control.store import Conflict
from borealis.errors import BorealisError
from borealis.region import AccessKeyPair, Credentials

log = logging.getLogger(__name__)

#: How often an operation is run again because another one was faster. Each try sees the newest records.
ATTEMPTS_MAX = 10
_XML = "text/xml; charset=utf-8"
#: Beginnings of the names of operations that change nothing.
_READ_ONLY = ("Describe", "List", "Get")


@dataclass
class Trace:
    """What the access log tells of a request; filled in as it becomes known.

    Holds no parameters and no secrets.
    """

    request_id: str
    service: str = "-"
    operation: str = "-"
    access_key_id: str = "-"
    error: str = "-"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = _XML
    headers: Mapping[str, str] = field(default_factory=dict)


class Dispatcher:
    """Answers requests for a set of services.

    Raises nothing: every failure becomes an answer in the caller's own protocol.
    """

    def __init__(self, context: Context, credentials: Credentials, services: Iterable[Operations]) -> None:
        self._context = context
        self._keys = {pair.access_key_id: pair for pair in credentials.keys}
        # Without it, callers that change one record at the same time would make each other start again.
        self._changes = asyncio.Lock()
        self._services = {
            operations.service: (Service(operations.service), operations) for operations in services
        }

    async def prepare(self) -> None:
        """Make what the services need to be there. Raises BorealisError."""
        for _, operations in self._services.values():
            for prepare in operations.preparations:
                await prepare(self._context)

    async def answer(self, request: HttpRequest, trace: Trace) -> Answer:
        """Answer one request."""
        try:
            return await self._answer(request, trace)
        except ApiError as error:
            return self.error(request, trace, error)
        except BorealisError as error:
            log.exception("request %s: %s", trace.request_id, trace.operation)
            code = error.code if error.code == "ServiceUnavailable" else "InternalFailure"
            return self.error(request, trace, ApiError(code, error.message, 500))
        except Exception:
            log.exception("request %s: %s", trace.request_id, trace.operation)
            message = f"The request {trace.request_id} has failed because of an unknown error; see the log."
            return self.error(request, trace, ApiError("InternalFailure", message))

    def error(self, request: HttpRequest, trace: Trace, error: ApiError) -> Answer:
        """The answer for an error, in the protocol that the request seems to speak."""
        trace.error = error.code
        known = self._services.get(trace.service)
        if known is None:
            body, content_type, headers = foreign.serialize_error(request, error, trace.request_id)
            return Answer(error.status, body, content_type, headers)
        model, _ = known
        status = error.status
        if error.modelled_status_wanted and error.code in model.errors:
            status = model.errors[error.code].status
        return Answer(status, query.serialize_error(model.xml_namespace, error, trace.request_id))

    async def _answer(self, request: HttpRequest, trace: Trace) -> Answer:
        signature = sigv4.claimed(request)
        trace.service = signature.service[:40]
        trace.access_key_id = signature.access_key_id[:40]
        model, operations = self._service(signature)
        caller = self._verified(request, signature)
        fields = _form_fields(request)
        operation = _operation(model, operations, fields)
        trace.operation = operation.name
        shape = model.operation(operation.name)
        values = query.parse(shape, fields)
        validate(shape.input, values)
        operation.check_supported(values)
        result = await self._run(operation, Call(self._context, caller), values)
        return Answer(200, query.serialize(shape, model.xml_namespace, result, trace.request_id))

    def _service(self, signature: Signature) -> tuple[Service, Operations]:
        try:
            return self._services[signature.service]
        except KeyError:
            provided = ", ".join(sorted(self._services))
            raise ApiError(
                "UnknownService",
                f"The request is signed for the service '{signature.service[:40]}', which Borealis does "
                "not provide yet. "
                f"It provides: {provided}.",
            ) from None

    def _verified(self, request: HttpRequest, signature: Signature) -> Caller:
        context = self._context
        pair = self._keys.get(signature.access_key_id)
        sigv4.verify(
            request, signature, pair.secret_access_key if pair else None, context.clock(), context.region
        )
        assert pair is not None
        return _caller(pair, context.account)

    async def _run(self, operation: Operation, call: Call, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run an operation. Those that change records run one after the other."""
        if operation.name.startswith(_READ_ONLY):
            return await operation.handler(call, Params(values))
        async with self._changes:
            return await _run_until_stored(operation, call, values)


async def _run_until_stored(operation: Operation, call: Call, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run an operation again when the control plane has changed a record since the operation read it.

    Raises ApiError ServiceUnavailable when that does not end.
    """
    for _ in range(ATTEMPTS_MAX):
        try:
            return await operation.handler(call, Params(values))
        except Conflict:
            log.info("%s: a record was changed meanwhile, trying again", operation.name)
    message = f"{operation.name}: other changes were faster {ATTEMPTS_MAX} times; try again."
    raise ApiError("ServiceUnavailable", message)


def _caller(pair: AccessKeyPair, account: str) -> Caller:
    """Who a key belongs to. The account's root user has no user id of its own, in AWS as here."""
    if pair.user == "root":
        return Caller(pair.access_key_id, f"arn:aws:iam::{account}:root", account)
    return Caller(pair.access_key_id, f"arn:aws:iam::{account}:user/{pair.user}", pair.access_key_id)


def _form_fields(request: HttpRequest) -> Sequence[tuple[str, str]]:
    """Fields of the query string and of the body. Raises ApiError MalformedQueryString."""
    content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if request.body and content_type != "application/x-www-form-urlencoded":
        raise ApiError(
            "MalformedQueryString",
            f"The body has the content type '{content_type[:60]}'; application/x-www-form-urlencoded is "
            "expected.",
        )
    try:
        text = request.body.decode("ascii")
        pairs = parse_qsl(request.query, keep_blank_values=True, errors="strict")
        pairs += parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=query.FIELDS_MAX)
        return pairs
    except (UnicodeDecodeError, ValueError):
        raise ApiError(
            "MalformedQueryString", "The request's form fields are not percent-encoded UTF-8."
        ) from None


def _operation(model: Service, operations: Operations, fields: Sequence[tuple[str, str]]) -> Operation:
    """The operation that a request asks for.

    Raises ApiError InvalidAction: AWS has none of that name, or it is not here yet.
    """
    name, version = query.action(fields)
    if name not in model.operation_names or version not in ("", model.api_version):
        shown = version[:40] or model.api_version
        raise ApiError("InvalidAction", f"Could not find operation {name[:80]} for version {shown}.")
    if name not in operations.table:
        raise ApiError(
            "InvalidAction", f"The operation {model.name}:{name} is not implemented by Borealis yet."
        )
    return operations.table[name]
