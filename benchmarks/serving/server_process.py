"""A server in a process of its own, and requests to it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from time import monotonic
from typing import Any

import click

from ...perf.process_memory import read_process_rss

HOST = "127.0.0.1"
START_TIMEOUT_S, REQUEST_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 300.0, 30.0


@dataclass(frozen=True)
class ServerProcess:
    """A server.

    Attributes:
        process: Its process.
        port: Its port on 127.0.0.1.
        start_seconds: Seconds from starting the process until the server was ready.
    """

    process: subprocess.Popen[str]
    port: int
    start_seconds: float

    def connect(self) -> HTTPConnection:
        """Opens a connection."""
        return HTTPConnection(HOST, self.port, timeout=REQUEST_TIMEOUT_S)

    def generate(self, connection: HTTPConnection, body: Mapping[str, Any]) -> HTTPResponse:
        """Sends a request for an image."""
        connection.request("POST", "/generate", json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse()

    def read_rss(self) -> int:
        """Returns its resident set in bytes."""
        return read_process_rss(self.process.pid)

    def is_ready(self) -> bool:
        """Whether it says so."""
        connection = self.connect()
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()


@contextmanager
def start_server(artifact: Path, folder: Path, *options: str) -> Iterator[ServerProcess]:
    """Starts a server on a free port of 127.0.0.1, waits until it is ready, and stops it at the end.

    Args:
        artifact: The artifact.
        folder: Folder of its state and its log.
        options: Further options of `edgepress serve`.

    Raises:
        ClickException: It does not become ready.
    """
    arguments = ["serve", str(artifact.resolve()), "--port", "0", "--allow-root", "--state", str(folder / "state")]
    command = [sys.executable, "-m", "edgepress", *arguments, *options]
    start = monotonic()
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        match = re.search(r" at http://\S+:(\d+)$", process.stdout.readline())
        if match is None:
            raise click.ClickException(f"The server did not start. See {folder / 'server.log'}.")
        server = ServerProcess(process, int(match[1]), monotonic() - start)
        if not server.is_ready():
            raise click.ClickException("The server says that it serves, but is not ready.")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
