"""Generates images with a server for a long time: drift of memory, latencies, and how often it had to be restarted.

Run by `make bench-soak`: half an hour, or `HOURS=72`. The server is restarted if its process ends, which is counted.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from time import monotonic

import click

from ...common.markdown_table import render_table
from ...perf.drift import Drift, estimate_drift
from ...perf.percentiles import PERCENTILES, percentile
from ..common.report import write_section
from .server_process import ServerProcess, start_server

HOUR_S = 3600.0
MAX_RESTARTS = 20  # after which the run ends
HEADLINE_IMAGES = 100  # after which the peak memory is taken
PROMPT = 'a plain white wall, large red letters, top: "OPEN"'


@dataclass
class Soak:
    """What was measured.

    Attributes:
        start_seconds: Seconds until the first server was ready.
        seconds: Seconds of each image, with the request around it.
        rss: Resident set of the server in bytes after each image since it was started last.
        headline_rss: Largest resident set in the first images.
        failures: Why servers ended, or images were not generated.
    """

    start_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    headline_rss: int = 0
    failures: list[str] = field(default_factory=list)


def run_soak(artifact: Path, folder: Path, duration_s: float) -> Soak:
    """Generates images one after another.

    Args:
        artifact: The artifact.
        folder: Folder of the server's state and log.
        duration_s: Seconds after which no further image is begun.
    """
    soak, end = Soak(), monotonic() + duration_s
    while monotonic() < end and len(soak.failures) <= MAX_RESTARTS:
        with start_server(artifact, folder, "--quiet") as server:
            soak.start_seconds = soak.start_seconds or server.start_seconds
            soak.rss = []
            try:
                _generate_until(server, end, soak)
            except (OSError, HTTPException) as error:
                soak.failures.append(f"after {len(soak.seconds)} images: {type(error).__name__}")
    return soak


def _generate_until(server: ServerProcess, end: float, soak: Soak) -> None:
    connection = server.connect()
    while monotonic() < end:
        start = monotonic()
        answer = server.generate(connection, {"prompt": PROMPT, "seed": len(soak.seconds)})
        content = answer.read()
        if answer.status != 200:
            soak.failures.append(f"after {len(soak.seconds)} images: {content.decode('utf-8', 'replace')[:200]}")
            return
        soak.seconds.append(monotonic() - start)
        soak.rss.append(server.read_rss())
        if len(soak.seconds) <= HEADLINE_IMAGES:
            soak.headline_rss = max(soak.headline_rss, soak.rss[-1])


def render_section(soak: Soak, device: str, hours: float) -> str:
    """Returns the section of docs/benchmarks/serving.md."""
    median = percentile(soak.seconds, 50)
    headline = render_table(
        ["device", "start-up", "per image", f"{HEADLINE_IMAGES}-image peak memory"],
        [
            [
                device,
                f"{soak.start_seconds:.2f} s",
                f"{median:.3f} s" if median else "-",
                f"{soak.headline_rss / 1e6:.0f} MB",
            ]
        ],
    )
    listed = [(percent, percentile(soak.seconds, percent)) for percent in PERCENTILES]
    latencies = ", ".join(f"p{percent} {value:.3f} s" for percent, value in listed if value is not None)
    return (
        f"## {hours:g} hours of images\n\n{headline}\n\n{len(soak.seconds)} images, {latencies}. "
        f"Memory: {_describe_drift(estimate_drift(soak.rss))}. Restarts: {len(soak.failures)}."
    )


def _describe_drift(drift: Drift | None) -> str:
    if drift is None:
        return "too few images for a drift"
    slope, low, high = (value / 1e6 for value in (drift.slope, drift.low, drift.high))
    return f"drift of {slope:+.3f} MB per 100 images, 95 % interval [{low:.3f}, {high:.3f}]"


@click.command()
@click.argument("artifact", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--hours", type=click.FloatRange(0, 1000, min_open=True), default=0.5, show_default=True, help="How long."
)
@click.option("--device", default="build machine", show_default=True, help="Name of the device in the table.")
@click.option("--write/--no-write", default=True, help="Whether to write docs/benchmarks/serving.md.")
def main(artifact: Path, hours: float, device: str, write: bool) -> None:
    """Generates images of ARTIFACT for hours."""
    with tempfile.TemporaryDirectory() as folder:
        soak = run_soak(artifact, Path(folder), hours * HOUR_S)
    section = render_section(soak, device, hours)
    click.echo(section)
    if write:
        write_section("soak", f"make bench-soak HOURS={hours:g}", section)
    for failure in soak.failures:
        click.echo(f"Failed {failure}", err=True)
    sys.exit(1 if soak.failures else 0)


if __name__ == "__main__":
    main()
