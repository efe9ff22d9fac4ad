"""Runs a benchmark: starts the worker, generates a first image and those requested, and measures each."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from .. import __version__
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..prompts.prompt import Prompt, prompt_set_digest
from ..runtime.verification import digest_export, find_export_folder, verify_export
from ..storage.snapshot import FolderSnapshot
from .machine import read_machine_info
from .power import read_power_state, read_temperatures, read_throttling
from .process_memory import parse_proc_file
from .schema import BenchResults, BenchSettings, ImageTiming, MemoryPeaks, RunConditions, summarize_timings
from .worker_process import WorkerDiedError, WorkerProcess

SAVE_INTERVAL_S = 5
UNFINISHED = "the run was stopped before it finished"
INTERRUPTED = "interrupted"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchConfig:
    """What a benchmark runs.

    Attributes:
        artifact: Folder of the artifact.
        prompts: Prompts of the images, repeated if there are more images.
        prompt_set: Name of the prompts.
        num_images: Number of images besides the first one.
        size: Height and width in pixels; None for the default of the artifact.
        steps: Number of denoising steps.
        tile_size: Side in pixels of the tiles that images are decoded in; None for no tiles.
        seed: Seed of the first image; each further image has the next one.
        keep_loaded: Whether graphs stay in memory; None: if all of them fit.
        providers: Execution providers of ONNX Runtime; empty for the CPU.
        threads: Threads of a graph on the CPU; None: as the artifact's recipe says.
    """

    artifact: Path
    prompts: Sequence[Prompt]
    prompt_set: str
    num_images: int
    size: tuple[int, int] | None
    steps: int
    tile_size: int | None
    seed: int
    keep_loaded: bool | None
    providers: Sequence[str]
    threads: int | None = None


def run_benchmark(
    config: BenchConfig, write: Callable[[BenchResults], object], progress: Progress = no_progress
) -> BenchResults:
    """Measures an artifact.

    Args:
        config: What to run.
        write: Called with the results so far every few seconds, so that a run that is killed leaves them.
        progress: Reports the stages `starting` and `generating`.

    Returns:
        The results. If the run ends early, they are partial and `incomplete_reason` says why.

    Raises:
        UserError: A file of the artifact is not as it was exported, no image can be generated, or the worker died
            before the first one.
        KeyboardInterrupt: Ctrl-C before the first image.
    """
    snapshot = FolderSnapshot.take(find_export_folder(config.artifact))
    notice = verify_export(config.artifact, progress)
    if notice:
        logger.warning("%s", notice)
    progress("starting", 0, 1)
    started_at, initial = datetime.now(UTC), _InitialConditions()
    artifact_sha256 = digest_export(config.artifact)
    with _start_worker(config) as worker:
        snapshot.require_unchanged()  # the worker has opened the files that were read
        run = _BenchRun(config, worker, started_at, initial, artifact_sha256)
        progress("starting", 1, 1)
        incomplete_reason = run.generate_all(write, progress)
        return run.collect_results(incomplete_reason)


class _InitialConditions:
    """The state of the machine before anything ran."""

    def __init__(self) -> None:
        self.power, self.temperatures, self.throttling = read_power_state(), read_temperatures(), read_throttling()
        available = parse_proc_file(Path("/proc/meminfo")).get("MemAvailable")
        self.available_memory = available and 1024 * available


def _start_worker(config: BenchConfig) -> WorkerProcess:
    job = {
        "artifact": str(config.artifact),
        "size": config.size,
        "steps": config.steps,
        "tile_size": config.tile_size,
        "keep_loaded": config.keep_loaded,
        "providers": list(config.providers),
        "threads": config.threads,
    }
    try:
        return WorkerProcess(job)
    except WorkerDiedError as error:
        raise UserError(
            f"The worker process {error}, before it accepted a prompt. Check that 'edgepress generate' works."
        ) from error


@dataclass
class _BenchRun:
    """A running benchmark and its results so far."""

    config: BenchConfig
    worker: WorkerProcess
    started_at: datetime
    initial: _InitialConditions
    artifact_sha256: str
    images: list[ImageTiming] = field(default_factory=list)
    engine: str = ""
    disk_bytes_read: int | None = None
    truncation_notices: list[str] = field(default_factory=list)
    max_temperatures: dict[str, float] = field(default_factory=dict)

    def generate_all(self, write: Callable[[BenchResults], object], progress: Progress) -> str | None:
        """Generates all images; returns why the run ended early, or None."""
        drop_page_cache(Path(self.worker.artifact_info["folder"]))
        last_write, total = monotonic(), self.config.num_images + 1
        try:
            for number in range(total):
                progress("generating", number, total)
                self._generate(number)
                if monotonic() - last_write > SAVE_INTERVAL_S:
                    write(self.collect_results(UNFINISHED))
                    last_write = monotonic()
        except (KeyboardInterrupt, WorkerDiedError, UserError) as error:
            return self._resolve_failure(error)
        progress("generating", total, total)
        return None

    def _resolve_failure(self, error: KeyboardInterrupt | WorkerDiedError | UserError) -> str:
        """Returns why the run ended early; raises the error if there is no image yet."""
        if isinstance(error, WorkerDiedError):
            peak = self.worker.read_memory_peaks()["VmHWM"] / 1e6
            error = UserError(
                f"The worker process {error}, {self._describe_position()}; peak memory {peak:,.0f} MB. Run it again."
            )
        if not self.images:
            raise error
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else str(error)

    def _describe_position(self) -> str:
        later = len(self.images) - 1
        if later > 0:
            return f"after image {later}"
        return "after the first image" if self.images else "before the first image"

    def _generate(self, number: int) -> None:
        prompts = self.config.prompts
        prompt, seed = prompts[number % len(prompts)], self.config.seed + number
        timings = self.worker.generate(prompt.prompt, seed)
        rss = self.worker.read_rss()
        peaks = self.worker.read_memory_peaks()  # after the resident set: it may grow between the two
        if not self.images:
            self.disk_bytes_read = self.worker.get_disk_bytes_read()
        self.engine = timings.pop("engine")
        notices = timings.pop("truncation_notices")
        self.truncation_notices += [notice for notice in notices if notice not in self.truncation_notices]
        self.images.append(ImageTiming(prompt=prompt.id, seed=seed, rss=rss, peak_rss=peaks["VmHWM"], **timings))
        for zone, temperature in read_temperatures().items():
            self.max_temperatures[zone] = max(temperature, self.max_temperatures.get(zone, temperature))

    def collect_results(self, incomplete_reason: str | None) -> BenchResults:
        """Collects the results so far."""
        peaks, info = self.worker.read_memory_peaks(), self.worker.artifact_info
        return BenchResults(
            edgepress=__version__,
            started_at=self.started_at.isoformat(timespec="seconds"),
            artifact=str(self.config.artifact),
            artifact_sha256=self.artifact_sha256,
            engine=self.engine,
            simulated=self.worker.artifact_info["simulated"],
            incomplete_reason=incomplete_reason,
            machine=read_machine_info(),
            conditions=self._make_conditions(),
            settings=self._make_settings(),
            summary=summarize_timings(self.worker.start_seconds, self.images, info["keep_loaded"]),
            memory=MemoryPeaks(peak=peaks["VmHWM"], anon=peaks["RssAnon"], file_backed=peaks["RssFile"]),
            disk_bytes_read=self.disk_bytes_read,
            file_sizes=_list_file_sizes(Path(self.worker.artifact_info["folder"])),
            truncation_notices=self.truncation_notices,
            images=self.images,
        )

    def _make_settings(self) -> BenchSettings:
        config = self.config
        return BenchSettings(
            num_images=config.num_images,
            size=self.worker.artifact_info["size"],
            steps=config.steps,
            tile_size=config.tile_size,
            seed=config.seed,
            keep_loaded=self.worker.artifact_info["keep_loaded"],
            threads=self.worker.artifact_info["threads"],
            prompt_set=config.prompt_set,
            prompts_sha256=prompt_set_digest(config.prompts),
        )

    def _make_conditions(self) -> RunConditions:
        before, after = self.initial.throttling, read_throttling()
        return RunConditions(
            power=self.initial.power,
            temperatures=self.initial.temperatures,
            max_temperatures=self.max_temperatures,
            throttling={source: (before[source], after[source]) for source in before if source in after},
            available_memory=self.initial.available_memory,
        )


def drop_page_cache(folder: Path) -> None:
    """Asks the system to drop the files of a folder from its page cache, so that loading them reads the disk.

    The system keeps pages that are not yet written, and those that another process has mapped.
    """
    for file in _list_file_sizes(folder):
        descriptor = os.open(folder / file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _list_file_sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of all files below a folder, by relative path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
