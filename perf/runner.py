"""A run: the process is started, paints a first picture and those that were asked for, and is looked at after each."""

from __future__ import annotations

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
from .machine import read_machine_info
from .power import read_power_state, read_temperatures, read_throttling
from .process_memory import parse_proc_file
from .schema import BenchResults, BenchSettings, ImageTiming, MemoryPeaks, RunConditions, summarize_timings
from .worker_process import WorkerDiedError, WorkerProcess

SAVE_INTERVAL_S = 5  # seconds between two writings of what is there so far
KILLED = "the run was cut"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class BenchConfig:
    """What is painted: prompts in turn, seeds counting up. name: the prompts'. size: None for the artifact's own.

    images: besides the first picture. keep: whether graphs stay in memory between uses. providers: of ONNX Runtime, by
    default its CPU.
    """

    artifact: Path
    prompts: Sequence[Prompt]
    prompt_set: str
    num_images: int
    size: tuple[int, int] | None
    steps: int
    tile_size: int | None
    seed: int
    keep_loaded: bool
    providers: Sequence[str]


def run_benchmark(
    config: BenchConfig, write: Callable[[BenchResults], None], progress: Progress = no_progress
) -> BenchResults:
    """Measures an artifact; where the run ends early, what there is of it, which `partial` then explains.

    Args:
        write: is given what there is so far, every few seconds: a run that is killed leaves that.
        progress: stages `starting` and `painting`.

    Raises:
        UserError: no picture can be painted, or the process died before there was one.
        KeyboardInterrupt: there was none yet.
    """
    progress("starting", 0, 1)
    begun, before = datetime.now(UTC), _InitialConditions()
    with _start_worker(config) as subject:
        run = _BenchRun(config, subject, begun, before)
        progress("starting", 1, 1)
        partial = run.generate_all(write, progress)
        return run.collect_results(partial)


class _InitialConditions:
    """How the machine was before anything ran."""

    def __init__(self) -> None:
        self.power, self.temperatures, self.throttling = read_power_state(), read_temperatures(), read_throttling()
        available = parse_proc_file(Path("/proc/meminfo")).get("MemAvailable")
        self.available = available and 1024 * available


def _start_worker(config: BenchConfig) -> WorkerProcess:
    job = {
        "artifact": str(config.artifact),
        "size": config.size,
        "steps": config.steps,
        "tile": config.tile_size,
        "keep": config.keep_loaded,
        "providers": list(config.providers),
    }
    try:
        return WorkerProcess(job)
    except WorkerDiedError as death:
        raise UserError(f"The measured process {death}, before it could read a prompt; does generate run?") from death


@dataclass
class _BenchRun:
    """What is known so far."""

    config: BenchConfig
    worker: WorkerProcess
    started_at: datetime
    initial: _InitialConditions
    images: list[ImageTiming] = field(default_factory=list)
    engine: str = ""
    disk_bytes_read: int | None = None
    truncation_notices: list[str] = field(default_factory=list)
    max_temperatures: dict[str, float] = field(default_factory=dict)

    def generate_all(self, write: Callable[[BenchResults], None], progress: Progress) -> str | None:
        """Why it ended early, or nothing."""
        drop_page_cache(Path(self.worker.artifact_info["folder"]))
        written, total = monotonic(), self.config.num_images + 1
        try:
            for number in range(total):
                progress("painting", number, total)
                self._generate(number)
                if monotonic() - written > SAVE_INTERVAL_S:
                    write(self.collect_results(KILLED))
                    written = monotonic()
        except (KeyboardInterrupt, WorkerDiedError, UserError) as error:
            return self._resolve_failure(error)
        progress("painting", total, total)
        return None

    def _resolve_failure(self, error: KeyboardInterrupt | WorkerDiedError | UserError) -> str:
        """What an error means for a run with pictures; one without any fails."""
        if isinstance(error, WorkerDiedError):
            peak = self.worker.read_memory_peaks()["VmHWM"] / 1e6
            error = UserError(
                f"The measured process {error}, {self._describe_position()}, having held {peak:,.0f} MB at most."
            )
        if not self.images:
            raise error
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else str(error)

    def _describe_position(self) -> str:
        later = len(self.images) - 1
        return f"after image {later}" if later > 0 else f"{'before' if later else 'after'} the first picture was there"

    def _generate(self, number: int) -> None:
        prompts = self.config.prompts
        prompt, seed = prompts[number % len(prompts)], self.config.seed + number
        said = self.worker.generate(prompt.prompt, seed)
        seen = self.worker.read_memory_peaks()
        if not self.images:
            self.disk_bytes_read = self.worker.get_disk_bytes_read()
        self.engine = said.pop("engine")
        self.truncation_notices += [sentence for sentence in said.pop("cut") if sentence not in self.truncation_notices]
        self.images.append(
            ImageTiming(prompt=prompt.id, seed=seed, rss=self.worker.read_rss(), peak_rss=seen["VmHWM"], **said)
        )
        for zone, warmth in read_temperatures().items():
            self.max_temperatures[zone] = max(warmth, self.max_temperatures.get(zone, warmth))

    def collect_results(self, incomplete_reason: str | None) -> BenchResults:
        seen = self.worker.read_memory_peaks()
        return BenchResults(
            edgepress=__version__,
            started_at=self.started_at.isoformat(timespec="seconds"),
            artifact=str(self.config.artifact),
            engine=self.engine,
            simulated=self.worker.artifact_info["simulated"],
            incomplete_reason=incomplete_reason,
            machine=read_machine_info(),
            conditions=self._conditions(),
            settings=self._settings(),
            summary=summarize_timings(self.worker.start_seconds, self.images, self.config.keep_loaded),
            memory=MemoryPeaks(peak=seen["VmHWM"], anon=seen["RssAnon"], file_backed=seen["RssFile"]),
            disk_bytes_read=self.disk_bytes_read,
            file_sizes=_file_sizes(Path(self.worker.artifact_info["folder"])),
            truncation_notices=self.truncation_notices,
            images=self.images,
        )

    def _settings(self) -> BenchSettings:
        plan = self.config
        return BenchSettings(
            num_images=plan.num_images,
            size=self.worker.artifact_info["size"],
            steps=plan.steps,
            tile_size=plan.tile_size,
            seed=plan.seed,
            keep_loaded=plan.keep_loaded,
            prompt_set=plan.prompt_set,
            prompts_sha256=prompt_set_digest(plan.prompts),
        )

    def _conditions(self) -> RunConditions:
        before, after = self.initial.throttling, read_throttling()
        return RunConditions(
            power=self.initial.power,
            temperatures=self.initial.temperatures,
            max_temperatures=self.max_temperatures,
            throttling={source: (before[source], after[source]) for source in before if source in after},
            available_memory=self.initial.available,
        )


def drop_page_cache(folder: Path) -> None:
    """Has the system drop what it keeps in memory of a folder's files, so that loading them is not flattered.

    It drops no more than it can: not what was not yet put on the disk, and not what another process maps.
    """
    for file in _file_sizes(folder):
        descriptor = os.open(folder / file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files below a folder, by their relative paths."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
