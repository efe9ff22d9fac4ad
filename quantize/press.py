"""Pressing a pipeline, start to end: plan, calibrate, solve, write, publish."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import artifact, prompt_sets
from ..checkpoint import write_json, write_tensors
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import Prompt, prompts_sha256
from ..recipe import MAIN, Recipe
from ..sampling import compute_dtype, sampling_of
from ..sources import prompt_file
from .calibrate import calibrate, grams_fit
from .fp16 import overflowing
from .plan import Plan, Unit, make_plan
from .solve import LayerReport, Solution, solve
from .stream import check_fits
from .work import Work, key_of, locked
from .write import kept_linears, savings, write_model

MEMORY = 6 * 2**30  # bytes that a run may take
# What solving takes at least: the process, and about seven float32 matrices of the widest input's square.
BASE, SQUARES = 2**30, 28
PROMPTS_READ = 128  # at most, by what only reads the prompt
# The files that decide the weights: work that other code began is never gone on with.
DECIDING = (
    *("activations", "awq", "calibrate", "fold", "fp16", "gptq", "ladder", "plan", "press", "ranges"),
    *("refit", "smooth", "solve", "statistics", "stream", "write"),
)
GROUND = ("checkpoint", "grid", "int4", "int8", "loading", "sampling")


@dataclass(frozen=True)
class Pressed:
    """What pressing left: the artifact folder, its manifest, whether it was there already, and seconds by stage."""

    output: Path
    manifest: artifact.Manifest
    fresh: bool
    seconds: dict[str, float] = field(default_factory=dict)


def press(
    recipe: Recipe,
    source: Path,
    output: Path,
    progress: Progress = silent,
    force: bool = False,
    restart: bool = False,
    memory: int = MEMORY,
    tell: Callable[[str], None] = lambda _: None,
) -> Pressed:
    """Presses the pipeline in `source` to `output/model` and writes `output/manifest.json`.

    A run that was interrupted goes on where it was; an artifact that is there already with the same key is kept.

    Args:
        force: replace an artifact of another key. restart: begin anew, whatever is there.
        memory: bytes that the run may take. tell: is given a sentence on unfinished work that is not used.

    Raises:
        UserError: bad input (before any long work), an artifact of another key without `force`, no room, no right to
            write.
    """
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"The output {output} lies inside the model folder {source}; give another --output.")
    clock = Clock(progress)
    run = _prepare(recipe, source, output, memory, clock)
    work = run.work
    if not force and not work.manifest.exists() and (present := _present(work)) and not restart:
        if work.folder.exists():  # left by a run that was cut right after publishing
            with locked(work):
                work.clear()
        return Pressed(output, present, fresh=False)
    with locked(work):
        if restart:
            work.restart()
        _tell_of_others(work, run.content, tell)
        _tell_of_memory(run.plan, memory, tell)
        if not work.manifest.exists():
            run.press(clock)
            write_json(run.manifest().model_dump(mode="json"), work.manifest)
        work.publish()
    published = artifact.read_manifest(output)
    assert published is not None
    write_json(clock.seconds, output / "timings.json")
    return Pressed(output, published, fresh=True, seconds=clock.seconds)


class Clock:
    """Passes progress on, and keeps how long each stage took from its first word to its last."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spans: dict[str, tuple[float, float]] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        self._spans[stage] = (self._spans.get(stage, (now, now))[0], now)
        self._progress(stage, done, total)

    @property
    def seconds(self) -> dict[str, float]:
        return {stage: round(last - first, 2) for stage, (first, last) in self._spans.items()}


def _present(work: Work) -> artifact.Manifest | None:
    """The manifest of an artifact that is there already and was made from the same; None where there is none.

    Raises:
        UserError: there is another artifact.
    """
    present = artifact.read_manifest(work.output)
    model = work.output / "model"
    if present is not None and present.key == work.key and model.is_dir():
        _check_whole(model, present.files)
        return present
    if model.exists():
        raise UserError(
            f"{model} exists and was made from another recipe, prompt set, model or version of edgepress; "
            "use --force to replace it or --output for another folder."
        )
    return None


def _check_whole(model: Path, files: Sequence[artifact.File]) -> None:
    """Raises UserError where a published file is missing or of another size."""
    for file in files:
        path = model / file.path
        if not path.exists() or path.stat().st_size != file.bytes:
            raise UserError(
                f"{path} is not the file that was published (it is missing or of another size); "
                "use --force to press again, or --output for another folder."
            )


def _tell_of_others(work: Work, content: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Says of unfinished work of another key what has changed since, and writes down what this work is made from."""
    write_json(content, work.made_from)
    for folder in work.others():
        before = json.loads((folder / "made-from.json").read_text("utf-8"))
        changed = [name for name in content if before.get(name) != content[name]]
        tell(
            f"Unfinished work in {folder} is not used, and goes when this is finished: "
            f"it was begun with another {', '.join(changed)}."
        )


def _tell_of_memory(plan: Plan, memory: int, tell: Callable[[str], None]) -> None:
    """Says so where solving the widest input takes more than the run may."""
    widths = [
        part.checkpoint.shape(f"{linear}.weight")[1]
        for part in plan.components
        for unit in part.units
        for linear in unit.linears
    ]
    widest = max(widths, default=0)
    needed = BASE + SQUARES * widest**2
    if needed > memory:
        tell(f"Inputs {widest} wide take about {needed / 2**30:.1f} GiB to solve, which is more than --memory.")


@dataclass(frozen=True)
class _Run:
    """All that one pressing is made from. content: the same in words, which the key is a digest of."""

    recipe: Recipe
    plan: Plan
    prompts: Sequence[Prompt]
    sources: list[artifact.File]
    memory: int
    content: dict[str, Any]
    work: Work

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, compute_dtype(self.recipe.dtype, self.plan.source))
        return found

    def press(self, progress: Progress) -> None:
        """Everything but publishing."""
        missing = [unit for unit in self.plan.units if not self.work.unit(unit.name).exists()]
        if missing:
            sampling = sampling_of(self.recipe.calibration, self.plan.source)
            painted = self.recipe.calibration.count
            found = calibrate(self.plan, self.work, self.prompts, painted, sampling, self.dtype, self.memory, progress)
            done = len(self.plan.units) - len(missing)
            progress("solving", done, len(self.plan.units))
            for number, unit in enumerate(missing, done + 1):
                part, quantization = self.plan.component(unit.component), self.plan.quantization
                self._store(unit, solve(part, unit, found, quantization, self.dtype), overflowing(unit, found.peaks))
                progress("solving", number, len(self.plan.units))
        write_model(self.plan, self.sources, self.work, self.dtype, progress)

    def _store(self, unit: Unit, solutions: dict[str, Solution], overflow: list[str]) -> None:
        """One file a unit; a tensor's name there begins with its solution's."""
        tensors = {
            f"{name}:{key}": tensor for name, found in solutions.items() for key, tensor in found.tensors.items()
        }
        layers = {name: [asdict(layer) for layer in found.layers] for name, found in solutions.items()}
        note = {"layers": layers, "overflowing": overflow}
        write_tensors(tensors, self.work.unit(unit.name), json.dumps(note))

    def manifest(self) -> artifact.Manifest:
        notes = [self.work.note(self.work.unit(unit.name)) for unit in self.plan.units]
        files = artifact.describe(self.work.model)
        names = sorted({file.path.split("/")[0] for file in [*self.sources, *files] if "/" in file.path})
        asked = self.plan.quantization.fp16_safe
        return artifact.Manifest(
            device=self.recipe.device,
            key=self.work.key,
            source=str(self.plan.source.resolve()),
            recipe=self.recipe.model_dump(mode="json"),
            prompts_sha256=prompts_sha256(self.prompts),
            sources=self.sources,
            files=files,
            layers=[layer for note in notes for layer in note["layers"][MAIN]],
            also={
                name: [layer for note in notes for layer in note["layers"][name]]
                for name in self.plan.quantization.also
            },
            kept=sum(len(kept_linears(part)) for part in self.plan.components),
            sizes={name: {"before": _bytes(self.sources, name), "after": _bytes(files, name)} for name in names},
            savings={part.name: savings(part, self.plan, self.dtype) for part in self.plan.components},
            overflowing=[name for note in notes for name in note["overflowing"]] if asked else [],
            versions=artifact.versions(),
        )


def _prepare(recipe: Recipe, source: Path, output: Path, memory: int, progress: Progress) -> _Run:
    """Looks at everything that pressing needs, before any long work."""
    plan = make_plan(source, recipe.quantize, progress)
    check_fits(plan)
    sampling_of(recipe.calibration, source)
    prompts = prompt_sets.load(prompt_file(source, recipe.calibration.prompts, "calibration"))
    prompts = prompts[: max(recipe.calibration.count, PROMPTS_READ)]
    sources = artifact.describe(source, progress)
    content = {
        "version of edgepress": _algorithm(),
        "version of a library": artifact.versions(),
        "recipe": recipe.model_dump(mode="json", include={"dtype", "quantize", "calibration"})
        | {"steps": list(recipe.quantize.rungs)},
        "family": repr(plan.family.components),
        "prompt set": prompts_sha256(prompts),
        "model": [file.model_dump() for file in sources],
        "memory": {part.name: grams_fit(part, memory) for part in plan.components},
    }
    return _Run(recipe, plan, prompts, sources, memory, content, Work(output, key_of(content)))


def _algorithm() -> str:
    """A digest of the code that decides the weights."""
    folder = Path(__file__).parent
    files = [folder / f"{name}.py" for name in DECIDING] + [folder.parent / f"{name}.py" for name in GROUND]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _bytes(files: Sequence[artifact.File], folder: str) -> int:
    return sum(file.bytes for file in files if file.path.startswith(f"{folder}/"))


def layer_reports(manifest: artifact.Manifest, solution: str = MAIN) -> list[LayerReport]:
    """The reports of the model's own grid, or of a further one."""
    layers = manifest.layers if solution == MAIN else manifest.also[solution]
    return [LayerReport(**layer) for layer in layers]
