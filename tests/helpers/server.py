"""A running `edgepress serve`, in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import httpx

TOKEN = "a-secret"
TIMEOUT_S = 60.0
LIMITS = ("--max-steps", "4000", "--max-waiting", "1", "--max-images", "2", "--timeout", "60", "--keep-images", "3")


@dataclass(frozen=True)
class RunningServer:
    """A server.

    Attributes:
        url: Where it listens.
        state: The folder of its templates and images.
        process: Its process.
        log: What it writes to standard error.
    """

    url: str
    state: Path
    process: subprocess.Popen[str]
    log: Path

    def client(self) -> httpx.Client:
        """A client that sends the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        # Reading certificates, which nothing here needs, takes a third of a second.
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S, verify=False)

    def read_metric(self, name: str) -> float:
        """The value of a metric."""
        with self.client() as client:
            text = client.get("/metrics").text
        match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert match, f"{name} is none of the metrics"
        return float(match[1])

    def wait_for_metric(self, name: str, value: float) -> None:
        """Waits until a metric has a value."""
        end = monotonic() + TIMEOUT_S
        while self.read_metric(name) != value:
            assert monotonic() < end, f"{name} is not {value}"
            sleep(0.02)


@contextmanager
def run_server(artifact: Path, folder: Path, *options: str) -> Iterator[RunningServer]:
    """Starts a server with a token and waits until it is ready; it is asked to end afterwards."""
    token_file, log = folder / "token", folder / "log"
    token_file.write_text(TOKEN + "\n")
    state = folder / "state"
    arguments = ["serve", str(artifact), "--port", "0", "--allow-root", "--token-file", str(token_file)]
    command = [sys.executable, "-m", "edgepress", *arguments, "--state", str(state), *options]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=folder) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r" at (http://\S+)$", line)
            assert match, log.read_text()
            yield RunningServer(match[1], state, process, log)
        finally:
            process.send_signal(signal.SIGTERM)
