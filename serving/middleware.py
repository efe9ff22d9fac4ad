"""Between the network and the routes: who may ask, how much a body may hold, what is counted and logged."""

from __future__ import annotations

import asyncio
import hmac
import logging
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .metrics import Metrics
from .settings import ServerSettings

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Read without a token: what says that the server lives, and the page, which asks for the token.
OPEN_PATHS = ("/", "/healthz", "/readyz")
OPEN_FOLDER = "/assets/"
UNKNOWN_ROUTE = "unknown"
HEADERS = {  # of every answer
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
logger = logging.getLogger("edgepress.serving.access")


class Guard:
    """Refuses requests that may not be made, and bounds their bodies.

    A page of another site can send requests to a server on this machine, under a name that it chose as well. Such
    requests carry a foreign `Origin` or `Host`.

    Args:
        app: The routes.
        settings: How the server runs.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._require_permission(scope)
        except ApiError as error:
            answer = JSONResponse(error.to_content(), error.status, {**error.headers, "Connection": "close"})
            await answer(scope, receive, send)
            return
        await self._app(scope, _BoundedBody(receive, self._settings).receive, send)

    def _require_permission(self, scope: Scope) -> None:
        headers, settings = Headers(scope=scope), self._settings
        host = headers.get("host", "")
        name = _strip_port(host)
        if settings.is_local and name not in (*LOCAL_NAMES, settings.host, *settings.allowed_hosts):
            raise ApiError(
                403, f"The server is not called '{name[:100]}'. Start it with --allowed-host, or use its address."
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE_METHODS and urlsplit(origin).netloc != host:
            raise ApiError(403, f"Pages of {origin[:100]} may not send requests. Open the server's own page.")
        path = scope["path"]
        if settings.token and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            self._require_token(headers.get("authorization", ""))
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > settings.limits.max_body_bytes:
            raise _too_large(settings.limits.max_body_bytes)

    def _require_token(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        is_known = hmac.compare_digest(token.strip().encode(), self._settings.token.encode())
        if scheme.lower() != "bearer" or not is_known:
            message = "The token is missing or wrong. Send it as 'Authorization: Bearer TOKEN'."
            raise ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})


class _BoundedBody:
    """A request's messages, whose bodies together are bounded in size and in time."""

    def __init__(self, receive: Receive, settings: ServerSettings) -> None:
        self._receive, self._limits = receive, settings.limits
        self._deadline = monotonic() + settings.limits.body_timeout_s
        self._size, self._is_complete = 0, False

    async def receive(self) -> Message:
        if self._is_complete:  # what follows is that the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout(max(self._deadline - monotonic(), 0)):
                message = await self._receive()
        except TimeoutError as error:
            seconds = self._limits.body_timeout_s
            raise ApiError(408, f"The body did not arrive within {seconds:g} s. Send it again.") from error
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if self._size > self._limits.max_body_bytes:
                raise _too_large(self._limits.max_body_bytes)
        return message


class AccessLog:
    """Counts and logs answers, without what was asked for.

    Args:
        app: The routes.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = monotonic(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = monotonic() - start
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            self._metrics.requests.labels(route, scope["method"], str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            logger.info("%s %s %d %.3f s", scope["method"], route, status, seconds)


def _strip_port(host: str) -> str:
    """A `Host` header without its port and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes. Shorten it.")
