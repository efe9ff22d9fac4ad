"""bench.json: all results of a benchmark, and where and how it ran. Reports show nothing that is not in this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from ..common.json_difference import find_difference
from .bench_model import BenchModel, Seconds
from .drift import Drift, estimate_drift
from .machine import MachineInfo
from .percentiles import PERCENTILES, percentile
from .power import PowerState

SCHEMA_VERSION = 2


# ---------------------------------------------------------------- settings and conditions


class BenchSettings(BenchModel):
    """What was requested."""

    old_keys: ClassVar[Mapping[str, str]] = {
        "images": "num_images",
        "tile": "tile_size",
        "keep": "keep_loaded",
        "prompts": "prompt_set",
    }

    num_images: NonNegativeInt = Field(description="Number of images besides the first one.")
    size: tuple[PositiveInt, PositiveInt] = Field(description="Height and width in pixels.")
    steps: PositiveInt = Field(description="Number of denoising steps.")
    tile_size: PositiveInt | None = Field(
        description="Side in pixels of the tiles that images are decoded in; null for none."
    )
    seed: NonNegativeInt = Field(description="Seed of the first image; each further image has the next one.")
    keep_loaded: bool = Field(description="Whether graphs stay in memory.")
    threads: NonNegativeInt = Field(default=0, description="Threads of a graph on the CPU; 0: as its engine chooses.")
    prompt_set: str = Field(description="Name of the prompt set.")
    prompts_sha256: str = Field(description="Digest of the prompts.")


class RunConditions(BenchModel):
    """The state of the machine; what the system does not report is empty or null."""

    old_keys: ClassVar[Mapping[str, str]] = {"hottest": "max_temperatures", "available": "available_memory"}

    power: PowerState = Field(description="Power configuration at the start.")
    temperatures: dict[str, FiniteFloat] = Field(description="Degrees Celsius at the start, by thermal zone.")
    max_temperatures: dict[str, FiniteFloat] = Field(description="Highest temperatures, by thermal zone.")
    throttling: dict[str, tuple[str, str]] = Field(description="Throttling before and after the run, by source.")
    available_memory: NonNegativeInt | None = Field(description="Bytes of memory available at the start.")


# ---------------------------------------------------------------- measurements


class ImageTiming(BenchModel):
    """Timings and memory of one image; all times are in seconds and, but for `seconds`, exclude loading graphs."""

    old_keys: ClassVar[Mapping[str, str]] = {"peak": "peak_rss"}

    prompt: str = Field(description="Id of the prompt.")
    seed: NonNegativeInt = Field(description="Seed of the noise.")
    seconds: Seconds = Field(description="Total time.")
    loading: Seconds = Field(description="Time spent loading graphs.")
    text_encoder: Seconds = Field(description="Time of encoding the prompt.")
    steps: list[Seconds] = Field(description="Time of each denoising step.")
    decoder: Seconds = Field(description="Time of decoding.")
    rss: NonNegativeInt = Field(description="Resident set size of the process after the image, in bytes.")
    peak_rss: NonNegativeInt = Field(description="Peak resident set size up to then, in bytes.")


class MemoryPeaks(BenchModel):
    """Peak memory of the process, in bytes."""

    old_keys: ClassVar[Mapping[str, str]] = {"own": "anon", "mapped": "file_backed"}

    peak: NonNegativeInt = Field(description="Peak resident set size.")
    anon: NonNegativeInt = Field(description="Peak anonymous memory, sampled ten times a second.")
    file_backed: NonNegativeInt = Field(
        description="Peak memory of mapped files, sampled ten times a second; reclaimable."
    )


class LatencyStats(BenchModel):
    """Statistics of latencies, in seconds."""

    old_keys: ClassVar[Mapping[str, str]] = {"longest": "max"}

    n: PositiveInt = Field(description="Number of values.")
    mean: Seconds = Field(description="Mean.")
    percentiles: dict[str, Seconds | None] = Field(description="Percentiles; null if there are too few values.")
    max: Seconds = Field(description="Maximum.")


class TimingSummary(BenchModel):
    """Statistics over all images; times are in seconds."""

    old_keys: ClassVar[Mapping[str, str]] = {
        "ready": "process_start",
        "loading": "graph_loading",
        "start_up": "startup",
        "first": "first_image",
        "times": "latencies",
        "time_drift": "latency_drift",
    }

    process_start: Seconds = Field(description="From the start of the process until it accepts a prompt.")
    graph_loading: Seconds = Field(description="Loading all graphs; 0 if they do not stay in memory.")
    startup: Seconds = Field(description="process_start and graph_loading together.")
    first_image: Seconds = Field(description="The first image, without graph_loading.")
    latencies: dict[str, LatencyStats] = Field(description="Latencies of later images and of their stages.")
    memory_drift: Drift | None = Field(description="Drift of the memory, in bytes per 100 images.")
    latency_drift: Drift | None = Field(description="Drift of the latency, in seconds per 100 images.")


class BenchResults(BenchModel):
    """Results of a benchmark."""

    old_keys: ClassVar[Mapping[str, str]] = {
        "begun": "started_at",
        "partial": "incomplete_reason",
        "read": "disk_bytes_read",
        "disk": "file_sizes",
        "cut": "truncation_notices",
        "pictures": "images",
    }

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    edgepress: str = Field(description="Version of edgepress.")
    started_at: str = Field(description="Start of the run, UTC.")
    artifact: str = Field(description="Folder of the artifact.")
    artifact_sha256: str | None = Field(
        default=None, description="Digest of the files that were measured; null in files of earlier releases."
    )
    engine: str = Field(description="Name and version of the engine that ran the graphs.")
    simulated: bool = Field(description="Whether a simulator stood in for the NPU; its memory is not measured.")
    incomplete_reason: str | None = Field(description="Why there are fewer images than requested; null if complete.")
    machine: MachineInfo = Field(description="The machine.")
    conditions: RunConditions = Field(description="State of the machine.")
    settings: BenchSettings = Field(description="What was requested.")
    summary: TimingSummary = Field(description="Statistics over all images.")
    memory: MemoryPeaks = Field(description="Peak memory of the process.")
    disk_bytes_read: NonNegativeInt | None = Field(description="Bytes read from disk until the end of the first image.")
    file_sizes: dict[str, NonNegativeInt] = Field(description="Bytes of each file of the artifact.")
    truncation_notices: list[str] = Field(description="Notices of truncated prompts.")
    images: list[ImageTiming] = Field(description="The first image, and those that were requested.")

    @model_validator(mode="after")
    def _require_consistent(self) -> BenchResults:
        """Refuses a summary that does not follow from the images, as after a file was edited or damaged."""
        if not self.images:
            raise ValueError("there is no image")
        expected = summarize_timings(self.summary.process_start, self.images, self.settings.keep_loaded)
        difference = find_difference(self.summary.model_dump(), expected.model_dump(), "summary")
        if difference:
            raise ValueError(f"{difference}, which is what follows from the images")
        peaks = [image.peak_rss for image in self.images]
        if any(image.rss > image.peak_rss for image in self.images) or max(peaks) > self.memory.peak:
            raise ValueError("the memory after an image is larger than the peak")
        return self


def summarize_timings(process_start: float, images: Sequence[ImageTiming], keep_loaded: bool) -> TimingSummary:
    """Computes statistics over all images.

    Args:
        process_start: Seconds from the start of the process until it accepted a prompt.
        images: Timings of the images, the first one included.
        keep_loaded: Whether graphs stay in memory.
    """
    first, *later = images
    graph_loading = first.loading if keep_loaded else 0.0
    return TimingSummary(
        process_start=process_start,
        graph_loading=graph_loading,
        startup=process_start + graph_loading,
        first_image=first.seconds - graph_loading,
        latencies=_collect_latencies(later),
        memory_drift=estimate_drift([image.rss for image in later]),
        latency_drift=estimate_drift([image.seconds for image in later]),
    )


def compute_latency_stats(seconds: Sequence[float]) -> LatencyStats:
    """Computes statistics of one or more latencies."""
    return LatencyStats(
        n=len(seconds),
        mean=sum(seconds) / len(seconds),
        percentiles={f"p{percent}": percentile(seconds, percent) for percent in PERCENTILES},
        max=max(seconds),
    )


def _collect_latencies(images: Sequence[ImageTiming]) -> dict[str, LatencyStats]:
    """Returns latencies by stage; loading graphs is a stage if they are loaded again for each image."""
    stages = {
        "image": [image.seconds for image in images],
        "text encoder": [image.text_encoder for image in images],
        "step": [seconds for image in images for seconds in image.steps],
        "decoder": [image.decoder for image in images],
        "loading graphs": [image.loading for image in images if image.loading],
    }
    return {name: compute_latency_stats(seconds) for name, seconds in stages.items() if seconds}
