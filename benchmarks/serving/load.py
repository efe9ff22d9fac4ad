"""Measures the server: start-up, memory, overhead over bare generation, and a load of good and bad requests.

Run by `make bench-server`. Clients send images to generate, bodies that are too large or malformed, and leave before
they are answered, at random. Every request must end as its kind must end.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep

import click

from ...common.markdown_table import render_table
from ...perf.percentiles import percentile
from ..common.report import write_section
from .server_process import ServerProcess, start_server

CLIENTS, OVERHEAD_IMAGES = 8, 30
MAX_IDLE_MB, MAX_START_S, MAX_OVERHEAD_MS, MAX_DRIFT_MB = 250, 2.0, 10.0, 20.0  # what the server promises
BODY = {"prompt": 'a plain white wall, large red letters, top: "OPEN"', "width": 64, "height": 64, "steps": 1}
KINDS = {"image": 0.6, "leave": 0.16, "oversize": 0.12, "malformed": 0.12}  # shares
MALFORMED = (
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"prompt": 1}',
    b'{"prompt": "x", "steps": 0}',
    b'{"prompt": "x", "prompt": ""}',
)
LEAVE_WITHIN_S = 0.3
EXPECTED = {
    "image": ("200",),
    "leave": ("left", "200"),  # where the image was faster
    "oversize": ("413",),
    "malformed": ("400", "422"),
}


@dataclass
class Load:
    """What the requests of a load led to.

    Attributes:
        outcomes: Number of requests by kind and outcome.
        seconds: Seconds of each image.
        rss: Resident set of the server in bytes, after each tenth of the requests.
        refusals: How often the queue was full. The client then waits as long as the server says, and asks again.
        unexpected: Requests that did not end as they must.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    refusals: int = 0
    unexpected: list[str] = field(default_factory=list)


def measure_overhead(server: ServerProcess) -> list[float]:
    """Returns, for each of some requests in a row, the milliseconds besides generating the image."""
    connection, overheads = server.connect(), []
    for seed in range(OVERHEAD_IMAGES):
        start = monotonic()
        answer = server.generate(connection, {**BODY, "width": 128, "height": 128, "steps": 8, "seed": seed})
        answer.read()
        seconds = monotonic() - start
        overheads.append(1000 * (seconds - float(answer.headers["X-Edgepress-Seconds"])))
    connection.close()
    return overheads


def run_load(server: ServerProcess, num_requests: int, seed: int) -> Load:
    """Sends requests of all kinds from several clients at once.

    Args:
        server: The server.
        num_requests: Number of requests.
        seed: Seed of their kinds and order.
    """
    generator = random.Random(seed)
    kinds = generator.choices(list(KINDS), list(KINDS.values()), k=num_requests)
    tasks: SimpleQueue[tuple[int, str]] = SimpleQueue()
    for number, kind in enumerate(kinds):
        tasks.put((number, kind))
    load = Load()
    threads = [threading.Thread(target=_send_all, args=(server, tasks, load)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for count in range(0, num_requests + 1, max(num_requests // 10, 1)):
        while sum(load.outcomes.values()) < count and any(thread.is_alive() for thread in threads):
            sleep(0.05)
        load.rss.append(server.read_rss())
    for thread in threads:
        thread.join()
    return load


def _send_all(server: ServerProcess, tasks: SimpleQueue[tuple[int, str]], load: Load) -> None:
    with suppress(Empty):
        while True:
            number, kind = tasks.get_nowait()
            try:
                outcome = _send(server, kind, number, load)
            except OSError as error:
                outcome = type(error).__name__
            load.outcomes[kind, outcome] += 1
            if outcome not in EXPECTED[kind]:
                load.unexpected.append(f"{kind} request {number} ended with {outcome}")


def _send(server: ServerProcess, kind: str, number: int, load: Load) -> str:
    """Sends a request; returns its status, or `left`."""
    connection, generator = server.connect(), random.Random(number)
    headers = {"Content-Type": "application/json"}
    try:
        if kind == "leave":
            connection.timeout = generator.uniform(0.001, LEAVE_WITHIN_S)
            with suppress(TimeoutError):
                return str(server.generate(connection, {**BODY, "steps": 8}).status)
            return "left"
        if kind == "image":
            return _generate(server, connection, number, load)
        body = b"x" * generator.randrange(70_000, 90_000) if kind == "oversize" else generator.choice(MALFORMED)
        connection.request("POST", "/generate", body, headers)
        return str(connection.getresponse().status)
    finally:
        connection.close()


def _generate(server: ServerProcess, connection: HTTPConnection, number: int, load: Load) -> str:
    """Asks for an image, and again where the server says that its queue is full; returns the status."""
    start = monotonic()
    while True:
        answer = server.generate(connection, {**BODY, "seed": number})
        content = answer.read()
        seconds = answer.headers["Retry-After"]
        if answer.status != HTTPStatus.SERVICE_UNAVAILABLE or seconds is None:
            load.seconds.append(monotonic() - start)
            return str(answer.status) if content.startswith(b"\x89PNG") else f"{answer.status} without an image"
        load.refusals += 1
        sleep(float(seconds))


def render_section(server: ServerProcess, idle: int, overheads: list[float], load: Load) -> str:
    """Returns the section of docs/benchmarks/serving.md."""
    rows = [
        ["ready after the start", f"{server.start_seconds:.2f} s", f"{MAX_START_S:g} s"],
        ["resident memory, idle", f"{idle / 1e6:.0f} MB", f"{MAX_IDLE_MB} MB"],
        [
            f"overhead over generating, median of {len(overheads)}",
            f"{statistics.median(overheads):.1f} ms",
            f"{MAX_OVERHEAD_MS:g} ms",
        ],
        ["requests that did not end as they must", str(len(load.unexpected)), "0"],
        [
            "memory after the load, against after a tenth of it",
            f"{compute_drift(load):+.1f} MB",
            f"{MAX_DRIFT_MB:g} MB",
        ],
    ]
    kinds = [[kind, outcome, str(count)] for (kind, outcome), count in sorted(load.outcomes.items())]
    return (
        f"## Server\n\n{render_table(['', 'measured', 'at most'], rows)}\n\n"
        f"{sum(load.outcomes.values())} requests from {CLIENTS} clients at once: images of 64×64 in one step, clients "
        f"that leave, bodies that are too large or malformed.\n\n"
        f"{render_table(['request', 'outcome', 'number'], kinds)}\n\n"
        f"{_describe_latency(load)} The queue was full {load.refusals} times; the client then asked again after the "
        f"seconds that the answer names."
    )


def compute_drift(load: Load) -> float:
    """Returns how many MB the memory grew by since a tenth of the requests."""
    return (load.rss[-1] - load.rss[1]) / 1e6


def _describe_latency(load: Load) -> str:
    values = {percent: percentile(load.seconds, percent) for percent in (50, 90, 99)}
    listed = ", ".join(f"p{percent} {value:.2f} s" for percent, value in values.items() if value is not None)
    return f"An image under this load: {listed}."


def _list_failures(server: ServerProcess, idle: int, overheads: list[float], load: Load) -> Iterator[str]:
    yield from load.unexpected[:10]
    if server.start_seconds > MAX_START_S:
        yield f"ready after {server.start_seconds:.2f} s"
    if idle > MAX_IDLE_MB * 1e6:
        yield f"{idle / 1e6:.0f} MB when idle"
    if statistics.median(overheads) > MAX_OVERHEAD_MS:
        yield f"an overhead of {statistics.median(overheads):.1f} ms"
    if compute_drift(load) > MAX_DRIFT_MB:
        yield f"memory grew by {compute_drift(load):.1f} MB"


@click.command()
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option("--requests", type=click.IntRange(min=20), default=1000, show_default=True, help="Number of requests.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of their kinds.")
@click.option("--write/--no-write", default=True, help="Whether to write docs/benchmarks/serving.md.")
def main(artifact: Path, requests: int, seed: int, write: bool) -> None:
    """Measures the server on ARTIFACT, the demo's."""
    with tempfile.TemporaryDirectory() as folder, start_server(artifact, Path(folder), "--quiet") as server:
        sleep(1)
        idle = server.read_rss()
        overheads = measure_overhead(server)
        load = run_load(server, requests, seed)
        if not server.is_ready():
            load.unexpected.append("the server does not answer any more")
        section = render_section(server, idle, overheads, load)
        failures = list(_list_failures(server, idle, overheads, load))
    click.echo(section)
    if write:
        write_section("server", "make bench-server", section)
    for failure in failures:
        click.echo(f"Missed: {failure}", err=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
