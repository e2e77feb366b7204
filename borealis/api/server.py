"""The HTTP server of the API: one port, for every service.

Owns the listening socket, limits of size and time, request ids and the access log. Hands each request, unread
and undecoded, to the dispatcher. Never logs a body, a query string, a header or a secret.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
import uuid
from collections.abc import Iterable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from borealis.api.context import Context
from borealis.api.dispatch import Answer, Dispatcher, Trace
from borealis.api.errors import ApiError, BindError
from borealis.api.registry import Operations
from borealis.api.sigv4 import HttpRequest
from borealis.region import Credentials

log = logging.getLogger(__name__)
access = logging.getLogger("borealis.api.access")

#: Largest request body, bytes. AWS's own limit for form requests is 1 MiB.
BODY_MAX = 1 << 20
#: Seconds that a client may take to send a body.
BODY_TIMEOUT = 20.0
#: Seconds that an operation may take: all of them only read and write records.
OPERATION_TIMEOUT = 60.0
#: Seconds that an idle connection is kept.
KEEPALIVE_TIMEOUT = 75.0
#: Seconds that requests under way get to finish when the server is closed.
SHUTDOWN_TIMEOUT = 5.0

_HELLO = """This is Borealis, an open database service with the API of Amazon Aurora.

Region {region}. This port speaks AWS's protocols, not a browser's: point the AWS CLI, an AWS SDK or Terraform
at it, with AWS_ENDPOINT_URL and the access keys that `borealis env` prints.
"""


def default_services() -> list[Operations]:
    """Every service that is provided."""
    from borealis.api.rds import operations as rds
    from borealis.api.sts import operations as sts

    return [rds, sts]


class ApiServer:
    """The API on one address. `start` and `close` may each be called once."""

    def __init__(
        self,
        host: str,
        port: int,
        context: Context,
        credentials: Credentials,
        services: Iterable[Operations] | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._context = context
        self._dispatcher = Dispatcher(
            context, credentials, default_services() if services is None else services
        )
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def port(self) -> int:
        """The port listened on; chosen by the system if 0 was asked for."""
        if self._runner is None or not self._runner.addresses:
            return self._wanted_port
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """What AWS_ENDPOINT_URL should be."""
        return f"http://{self._host}:{self.port}"

    async def start(self) -> None:
        """Listen.

        Raises BindError when the address cannot be listened on, StoreError when the state cannot be written.
        """
        await self._dispatcher.prepare()
        server = web.Server(
            self._handle, request_factory=_request, keepalive_timeout=KEEPALIVE_TIMEOUT, access_log=None
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._wanted_port)
        try:
            await self._site.start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            raise BindError(self._why_not(error)) from error
        log.info("API listens on %s", self.url)

    async def close(self) -> None:
        """Stop listening, let requests under way finish for a moment, drop connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _why_not(self, error: OSError) -> str:
        where = f"{self._host}:{self._wanted_port}"
        if error.errno == errno.EADDRINUSE:
            why = f"port {self._wanted_port} is in use. Stop its owner, or choose another port with --port"
        elif error.errno == errno.EACCES:
            why = f"port {self._wanted_port} needs root rights. Choose one above 1023 with --port"
        else:
            why = str(error.strerror or error)
        return f"The API cannot listen on {where}: {why}."

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        trace = Trace(str(uuid.uuid4()))
        answer = await self._answer(request, trace)
        response = web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))
        response.headers["Content-Type"] = answer.content_type
        response.headers["x-amzn-RequestId"] = trace.request_id
        self._log(request, trace, answer, started)
        return response

    async def _answer(self, request: web.BaseRequest, trace: Trace) -> Answer:
        if _is_browser(request):
            return Answer(
                200, _HELLO.format(region=self._context.region).encode(), "text/plain; charset=utf-8"
            )
        raw = _raw(request, b"")
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                raw = _raw(request, await request.read())
        except web.HTTPRequestEntityTooLarge:
            error = ApiError("RequestEntityTooLarge", f"The request body is larger than {BODY_MAX} bytes.")
            return self._dispatcher.error(raw, trace, error)
        except TimeoutError:
            error = ApiError(
                "RequestTimeout", f"The request body did not arrive within {BODY_TIMEOUT:g} seconds."
            )
            return self._dispatcher.error(raw, trace, error)
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT):
                return await self._dispatcher.answer(raw, trace)
        except TimeoutError:
            log.error(
                "request %s: %s took longer than %g s", trace.request_id, trace.operation, OPERATION_TIMEOUT
            )
            return self._dispatcher.error(
                raw, trace, ApiError("ServiceUnavailable", "The request took too long; try again.")
            )

    def _log(self, request: web.BaseRequest, trace: Trace, answer: Answer, started: float) -> None:
        access.info(
            "%s %s %s:%s %d %s key=%s from=%s ms=%.1f",
            trace.request_id,
            request.method,
            trace.service,
            trace.operation,
            answer.status,
            trace.error,
            trace.access_key_id,
            request.remote,
            (time.monotonic() - started) * 1000,
        )


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """A request whose body is refused once it is larger than BODY_MAX."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_MAX)


def _is_browser(request: web.BaseRequest) -> bool:
    return (
        request.method in ("GET", "HEAD")
        and request.path_qs == "/"
        and "authorization" not in request.headers
    )


def _raw(request: web.BaseRequest, body: bytes) -> HttpRequest:
    path, _, query = request.raw_path.partition("?")
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers)
    return HttpRequest(request.method, path or "/", query, headers, body)
