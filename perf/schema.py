"""bench.json: every number of a run, on which machine and how set; all that is shown comes from this file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat

from .drift import Drift, estimate_drift
from .machine import MachineInfo
from .percentiles import PERCENTILES, percentile
from .power import PowerState

SCHEMA_VERSION = 1
NAME = "bench.json"


class BenchModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what was asked for, and where it ran


class BenchSettings(BenchModel):
    """What was asked for.

    size: height and width. tile: the side that pictures are decoded in, if in tiles. seed: of the first picture; each
    later one has the next. keep: whether graphs stay in memory between uses. prompts: the set's name, and its hash.
    """

    num_images: int
    size: tuple[int, int]
    steps: int
    tile_size: int | None
    seed: int
    keep_loaded: bool
    prompt_set: str
    prompts_sha256: str


class RunConditions(BenchModel):
    """The machine's settings at the beginning, and what was seen of heat: °C by zone, at the beginning and at most.

    throttling: what tells or counts that clocks were lowered, before and after, by where it is read. available: bytes
    that processes could have had at the beginning. Empty or None: not known.
    """

    power: PowerState
    temperatures: dict[str, FiniteFloat]
    max_temperatures: dict[str, FiniteFloat]
    throttling: dict[str, tuple[str, str]]
    available_memory: int | None


# ---------------------------------------------------------------- what was measured


class ImageTiming(BenchModel):
    """One picture: its prompt's id and seed; seconds in all and of its parts, which do not hold the loading of graphs.

    rss: bytes that the process held when it was finished. peak: the most that it had held by then.
    """

    prompt: str
    seed: int
    seconds: FiniteFloat
    loading: FiniteFloat
    text_encoder: FiniteFloat
    steps: list[FiniteFloat]
    decoder: FiniteFloat
    rss: int
    peak_rss: int


class MemoryPeaks(BenchModel):
    """The most that the process held, in bytes: in all, and, as looked every tenth of a second, of its own and of files
    that it maps, which the system may take back."""

    peak: int
    anon: int
    file_backed: int


class LatencyStats(BenchModel):
    """n seconds: their mean, percentiles where they are enough, and the longest."""

    n: int
    mean: FiniteFloat
    percentiles: dict[str, FiniteFloat | None]
    max: FiniteFloat


class TimingSummary(BenchModel):
    """What the pictures come to; seconds.

    ready: from the process's start until it can read a prompt. loading: of all graphs, if they stay. start_up: both.
    first: the first picture, without that loading. times: of the later pictures, and of their parts. memory_drift: in
    bytes, and time_drift: in seconds, per 100 later pictures.
    """

    process_start: FiniteFloat
    graph_loading: FiniteFloat
    startup: FiniteFloat
    first_image: FiniteFloat
    latencies: dict[str, LatencyStats]
    memory_drift: Drift | None
    latency_drift: Drift | None


class BenchResults(BenchModel):
    """A run. begun: when, UTC. engine: what ran the graphs; simulated: it is a simulator of the device's, of whose
    memory nothing is seen. partial: why there are fewer pictures than were asked for.

    read: bytes that came from the disk until the first picture was there, if the system tells. disk: bytes of the
    artifact by file. pictures: the first one, and those that were asked for. cut: what prompts were too long for.
    """

    schema_version: int = SCHEMA_VERSION
    edgepress: str
    started_at: str
    artifact: str
    engine: str
    simulated: bool
    incomplete_reason: str | None
    machine: MachineInfo
    conditions: RunConditions
    settings: BenchSettings
    summary: TimingSummary
    memory: MemoryPeaks
    disk_bytes_read: int | None
    file_sizes: dict[str, int]
    truncation_notices: list[str]
    images: list[ImageTiming]


def summarize_timings(process_start: float, images: Sequence[ImageTiming], keep_loaded: bool) -> TimingSummary:
    """Of a first picture and later ones."""
    first, *later = images
    loading = first.loading if keep_loaded else 0.0
    return TimingSummary(
        process_start=process_start,
        graph_loading=loading,
        startup=process_start + loading,
        first_image=first.seconds - loading,
        latencies=_collect_latencies(later),
        memory_drift=estimate_drift([picture.rss for picture in later]),
        latency_drift=estimate_drift([picture.seconds for picture in later]),
    )


def compute_latency_stats(seconds: Sequence[float]) -> LatencyStats:
    """Of one value or more."""
    return LatencyStats(
        n=len(seconds),
        mean=sum(seconds) / len(seconds),
        percentiles={f"p{percent}": percentile(seconds, percent) for percent in PERCENTILES},
        max=max(seconds),
    )


def save_results(results: BenchResults, path: Path) -> None:
    """Writes the file; it appears whole or not at all."""
    replace_text(
        path, json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def replace_text(path: Path, text: str) -> None:
    """Writes a text under another name and renames it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def _collect_latencies(pictures: Sequence[ImageTiming]) -> dict[str, LatencyStats]:
    """By part; graphs that are loaded again for each picture are one."""
    parts = {
        "image": [picture.seconds for picture in pictures],
        "text encoder": [picture.text_encoder for picture in pictures],
        "step": [seconds for picture in pictures for seconds in picture.steps],
        "decoder": [picture.decoder for picture in pictures],
        "loading graphs": [picture.loading for picture in pictures if picture.loading],
    }
    return {name: compute_latency_stats(seconds) for name, seconds in parts.items() if seconds}
