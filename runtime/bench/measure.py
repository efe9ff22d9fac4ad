"""A run: the process is started, paints a first picture and those that were asked for, and is looked at after each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from ... import __version__
from ...errors import UserError
from ...progress import Progress, silent
from ...prompts import Prompt, prompts_sha256
from .machine import machine
from .power import power, temperatures, throttling
from .results import Conditions, Memory, Picture, Results, Settings, summarized
from .subject import DiedError, Subject
from .watch import numbers

OFTEN = 5  # seconds between two writings of what is there so far
CUT = "the run was cut"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Plan:
    """What is painted: prompts in turn, seeds counting up. name: the prompts'. size: None for the artifact's own.

    images: besides the first picture. keep: whether graphs stay in memory between uses. providers: of ONNX Runtime, by
    default its CPU.
    """

    artifact: Path
    prompts: Sequence[Prompt]
    name: str
    images: int
    size: tuple[int, int] | None
    steps: int
    tile: int | None
    seed: int
    keep: bool
    providers: Sequence[str]


def measure(plan: Plan, write: Callable[[Results], None], progress: Progress = silent) -> Results:
    """Measures an artifact; where the run ends early, what there is of it, which `partial` then explains.

    Args:
        write: is given what there is so far, every few seconds: a run that is killed leaves that.
        progress: stages `starting` and `painting`.

    Raises:
        UserError: no picture can be painted, or the process died before there was one.
        KeyboardInterrupt: there was none yet.
    """
    progress("starting", 0, 1)
    begun, before = datetime.now(UTC), _Before()
    with _started(plan) as subject:
        run = _Run(plan, subject, begun, before)
        progress("starting", 1, 1)
        partial = run.paint_all(write, progress)
        return run.results(partial)


class _Before:
    """How the machine was before anything ran."""

    def __init__(self) -> None:
        self.power, self.temperatures, self.throttling = power(), temperatures(), throttling()
        available = numbers(Path("/proc/meminfo")).get("MemAvailable")
        self.available = available and 1024 * available


def _started(plan: Plan) -> Subject:
    job = {
        "artifact": str(plan.artifact),
        "size": plan.size,
        "steps": plan.steps,
        "tile": plan.tile,
        "keep": plan.keep,
        "providers": list(plan.providers),
    }
    try:
        return Subject(job)
    except DiedError as death:
        raise UserError(f"The measured process {death}, before it could read a prompt; does generate run?") from death


@dataclass
class _Run:
    """What is known so far."""

    plan: Plan
    subject: Subject
    begun: datetime
    before: _Before
    pictures: list[Picture] = field(default_factory=list)
    engine: str = ""
    read: int | None = None
    cut: list[str] = field(default_factory=list)
    hottest: dict[str, float] = field(default_factory=dict)

    def paint_all(self, write: Callable[[Results], None], progress: Progress) -> str | None:
        """Why it ended early, or nothing."""
        forget(Path(self.subject.opened["folder"]))
        written, total = monotonic(), self.plan.images + 1
        try:
            for number in range(total):
                progress("painting", number, total)
                self._paint(number)
                if monotonic() - written > OFTEN:
                    write(self.results(CUT))
                    written = monotonic()
        except (KeyboardInterrupt, DiedError, UserError) as error:
            return self._early(error)
        progress("painting", total, total)
        return None

    def _early(self, error: KeyboardInterrupt | DiedError | UserError) -> str:
        """What an error means for a run with pictures; one without any fails."""
        if isinstance(error, DiedError):
            peak = self.subject.seen()["VmHWM"] / 1e6
            error = UserError(f"The measured process {error}, {self._place()}, having held {peak:,.0f} MB at most.")
        if not self.pictures:
            raise error
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else str(error)

    def _place(self) -> str:
        later = len(self.pictures) - 1
        return f"after image {later}" if later > 0 else f"{'before' if later else 'after'} the first picture was there"

    def _paint(self, number: int) -> None:
        prompts = self.plan.prompts
        prompt, seed = prompts[number % len(prompts)], self.plan.seed + number
        said = self.subject.paint(prompt.prompt, seed)
        seen = self.subject.seen()
        if not self.pictures:
            self.read = self.subject.read()
        self.engine = said.pop("engine")
        self.cut += [sentence for sentence in said.pop("cut") if sentence not in self.cut]
        self.pictures.append(Picture(prompt=prompt.id, seed=seed, rss=self.subject.held(), peak=seen["VmHWM"], **said))
        for zone, warmth in temperatures().items():
            self.hottest[zone] = max(warmth, self.hottest.get(zone, warmth))

    def results(self, partial: str | None) -> Results:
        seen = self.subject.seen()
        return Results(
            edgepress=__version__,
            begun=self.begun.isoformat(timespec="seconds"),
            artifact=str(self.plan.artifact),
            engine=self.engine,
            simulated=self.subject.opened["simulated"],
            partial=partial,
            machine=machine(),
            conditions=self._conditions(),
            settings=self._settings(),
            summary=summarized(self.subject.ready, self.pictures, self.plan.keep),
            memory=Memory(peak=seen["VmHWM"], own=seen["RssAnon"], mapped=seen["RssFile"]),
            read=self.read,
            disk=_sizes(Path(self.subject.opened["folder"])),
            cut=self.cut,
            pictures=self.pictures,
        )

    def _settings(self) -> Settings:
        plan = self.plan
        return Settings(
            images=plan.images,
            size=self.subject.opened["size"],
            steps=plan.steps,
            tile=plan.tile,
            seed=plan.seed,
            keep=plan.keep,
            prompts=plan.name,
            prompts_sha256=prompts_sha256(plan.prompts),
        )

    def _conditions(self) -> Conditions:
        before, after = self.before.throttling, throttling()
        return Conditions(
            power=self.before.power,
            temperatures=self.before.temperatures,
            hottest=self.hottest,
            throttling={source: (before[source], after[source]) for source in before if source in after},
            available=self.before.available,
        )


def forget(folder: Path) -> None:
    """Has the system drop what it keeps in memory of a folder's files, so that loading them is not flattered.

    It drops no more than it can: not what was not yet put on the disk, and not what another process maps.
    """
    for file in _sizes(folder):
        descriptor = os.open(folder / file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files below a folder, by their relative paths."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
