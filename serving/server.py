"""Runs the server: listens, warms up, reports to systemd, and stops when it is asked to."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from ..common.errors import UserError, summarize_error
from .app import create_app, open_service
from .service import Service
from .settings import ServerSettings
from .systemd import Systemd

MAX_CONNECTIONS = 128  # more are answered 503
GRACE_S = 3  # seconds for answers that are being sent when the server is stopped
HOUR_S = 3600
BACKLOG = 128
logger = logging.getLogger(__name__)


def run_server(settings: ServerSettings, announce: Callable[[str], object]) -> None:
    """Serves until the process is asked to end by SIGINT or SIGTERM.

    Args:
        settings: How the server runs.
        announce: Called with the server's URL once it is ready.

    Raises:
        UserError: The address cannot be listened on, or the artifact cannot be run.
    """
    with _listen(settings.host, settings.port) as listener:
        service = open_service(settings)
        asyncio.run(_Run(service, listener, announce).serve())


class _Server(uvicorn.Server):
    """A server that ends at a signal, which is no interruption of a command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles the signals while the server runs."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


class _Run:
    """A server while it runs."""

    def __init__(self, service: Service, listener: socket.socket, announce: Callable[[str], object]) -> None:
        self._service, self._listener, self._announce = service, listener, announce
        self._systemd = Systemd.from_environment()
        config = uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = _Server(config)

    async def serve(self) -> None:
        """Serves.

        Raises:
            UserError: The artifact cannot be run.
        """
        tasks = [asyncio.create_task(work()) for work in (self._warm_up, self._watch, self._prune)]
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            for task in tasks[1:]:
                task.cancel()
        if tasks[0].done():
            tasks[0].result()  # raises why the server never became ready

    async def _warm_up(self) -> None:
        try:
            await asyncio.to_thread(self._service.engine.warm_up)
        except BaseException:
            self._server.should_exit = True
            raise
        self._service.queue.start()
        self._service.is_ready = True
        self._systemd.notify("READY=1", "STATUS=Ready")
        self._announce(_format_url(self._listener))

    async def _watch(self) -> None:
        """Tells systemd that the server lives, and cancels jobs as soon as it is being stopped."""
        interval = self._systemd.watchdog_interval
        while not self._server.should_exit:
            if self._service.is_alive:
                self._systemd.notify("WATCHDOG=1")
            else:
                logger.error("An image takes far longer than it may. The server does not report to systemd any more.")
            await self._sleep(interval)
        self._systemd.notify("STOPPING=1")
        self._service.queue.close()

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but not longer than until the server is being stopped."""
        end = asyncio.get_running_loop().time() + seconds
        while not self._server.should_exit and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.1)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(HOUR_S)
            with suppress(OSError):
                await asyncio.to_thread(self._service.outputs.prune)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Opens the listening socket.

    Raises:
        UserError: The address is in use, is not this machine's, or needs more rights.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=False)
        # asyncio does so for its own sockets only. Without it a body waits 40 ms until the client confirms the headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
        reason = summarize_error(error) if isinstance(error, OSError) else "it is no name of a host"
        raise UserError(f"Cannot listen on {host}:{port} ({reason}). Give another --host or --port.") from error
    with listener:
        yield listener


def _format_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
