"""Pressing a pipeline, start to end: plan, calibrate, solve, write, publish."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common.code_fingerprint import code_fingerprint
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..pipelines.sampling import resolve_dtype, resolve_sampling
from ..prompts import sets
from ..prompts.prompt import Prompt, prompt_set_digest
from ..prompts.sets import resolve_prompt_set
from ..recipes.schema import PRIMARY, Recipe
from ..storage import manifest as artifact
from ..storage.checkpoint import write_tensors
from ..storage.files import write_json
from .algorithms.fp16_range import find_fp16_overflows
from .calibration.collector import hessians_fit, run_calibration
from .calibration.streaming import validate_weights
from .plan import QuantBlock, QuantizationPlan, build_plan
from .solver.block import BlockResult, LayerStats, quantize_block
from .workspace import Workspace, compute_key, locked
from .writer import compute_savings, save_quantized_pipeline, unquantized_modules

DEFAULT_MAX_MEMORY = 6 * 2**30  # bytes that a run may take
# What solving takes at least: the process, and about seven float32 matrices of the widest input's square.
BASE_MEMORY, BYTES_PER_SQUARED_WIDTH = 2**30, 28
MAX_TEXT_PROMPTS = 128  # at most, by what only reads the prompt


@dataclass(frozen=True)
class QuantizeResult:
    """What pressing left: the artifact folder, its manifest, whether it was there already, and seconds by stage."""

    output: Path
    manifest: artifact.Manifest
    created: bool
    seconds: dict[str, float] = field(default_factory=dict)


def quantize_pipeline(
    recipe: Recipe,
    source: Path,
    output: Path,
    progress: Progress = no_progress,
    force: bool = False,
    restart: bool = False,
    max_memory: int = DEFAULT_MAX_MEMORY,
    tell: Callable[[str], None] = lambda _: None,
) -> QuantizeResult:
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
    clock = StageTimer(progress)
    run = _prepare(recipe, source, output, max_memory, clock)
    work = run.work
    if not force and not work.manifest_file.exists() and (present := _present(work)) and not restart:
        if work.folder.exists():  # left by a run that was cut right after publishing
            with locked(work):
                work.clear()
        return QuantizeResult(output, present, created=False)
    with locked(work):
        if restart:
            work.restart()
        _tell_of_others(work, run.content, tell)
        _tell_of_memory(run.plan, max_memory, tell)
        if not work.manifest_file.exists():
            run.press(clock)
            write_json(run.manifest().model_dump(mode="json"), work.manifest_file)
        work.publish()
    published = artifact.read_manifest(output)
    assert published is not None
    write_json(clock.seconds, output / "timings.json")
    return QuantizeResult(output, published, created=True, seconds=clock.seconds)


class StageTimer:
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


def _present(work: Workspace) -> artifact.Manifest | None:
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


def _check_whole(model: Path, files: Sequence[artifact.FileRecord]) -> None:
    """Raises UserError where a published file is missing or of another size."""
    for file in files:
        path = model / file.path
        if not path.exists() or path.stat().st_size != file.bytes:
            raise UserError(
                f"{path} is not the file that was published (it is missing or of another size); "
                "use --force to press again, or --output for another folder."
            )


def _tell_of_others(work: Workspace, content: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Says of unfinished work of another key what has changed since, and writes down what this work is made from."""
    write_json(content, work.inputs_file)
    for folder in work.stale_workspaces():
        before = json.loads((folder / "made-from.json").read_text("utf-8"))
        changed = [name for name in content if before.get(name) != content[name]]
        tell(
            f"Unfinished work in {folder} is not used, and goes when this is finished: "
            f"it was begun with another {', '.join(changed)}."
        )


def _tell_of_memory(plan: QuantizationPlan, memory: int, tell: Callable[[str], None]) -> None:
    """Says so where solving the widest input takes more than the run may."""
    widths = [
        part.checkpoint.shape(f"{linear}.weight")[1]
        for part in plan.components
        for unit in part.blocks
        for linear in unit.linears
    ]
    widest = max(widths, default=0)
    needed = BASE_MEMORY + BYTES_PER_SQUARED_WIDTH * widest**2
    if needed > memory:
        tell(f"Inputs {widest} wide take about {needed / 2**30:.1f} GiB to solve, which is more than --memory.")


@dataclass(frozen=True)
class _Run:
    """All that one pressing is made from. content: the same in words, which the key is a digest of."""

    recipe: Recipe
    plan: QuantizationPlan
    prompts: Sequence[Prompt]
    sources: list[artifact.FileRecord]
    memory: int
    content: dict[str, Any]
    work: Workspace

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, resolve_dtype(self.recipe.dtype, self.plan.source))
        return found

    def press(self, progress: Progress) -> None:
        """Everything but publishing."""
        missing = [unit for unit in self.plan.blocks if not self.work.block_file(unit.name).exists()]
        if missing:
            sampling = resolve_sampling(self.recipe.calibration, self.plan.source)
            painted = self.recipe.calibration.count
            found = run_calibration(
                self.plan, self.work, self.prompts, painted, sampling, self.dtype, self.memory, progress
            )
            done = len(self.plan.blocks) - len(missing)
            progress("solving", done, len(self.plan.blocks))
            for number, unit in enumerate(missing, done + 1):
                part, quantization = self.plan.get_component(unit.component), self.plan.quantization
                self._store(
                    unit,
                    quantize_block(part, unit, found, quantization, self.dtype),
                    find_fp16_overflows(unit, found.abs_max_by_module),
                )
                progress("solving", number, len(self.plan.blocks))
        save_quantized_pipeline(self.plan, self.sources, self.work, self.dtype, progress)

    def _store(self, unit: QuantBlock, solutions: dict[str, BlockResult], overflow: list[str]) -> None:
        """One file a unit; a tensor's name there begins with its solution's."""
        tensors = {
            f"{name}:{key}": tensor for name, found in solutions.items() for key, tensor in found.tensors.items()
        }
        layers = {name: [asdict(layer) for layer in found.layers] for name, found in solutions.items()}
        note = {"layers": layers, "overflowing": overflow}
        write_tensors(tensors, self.work.block_file(unit.name), json.dumps(note))

    def manifest(self) -> artifact.Manifest:
        notes = [self.work.read_metadata(self.work.block_file(unit.name)) for unit in self.plan.blocks]
        files = artifact.hash_files(self.work.model_folder)
        names = sorted({file.path.split("/")[0] for file in [*self.sources, *files] if "/" in file.path})
        asked = self.plan.quantization.fp16_safe
        return artifact.Manifest(
            device=self.recipe.device,
            key=self.work.key,
            source=str(self.plan.source.resolve()),
            recipe=self.recipe.model_dump(mode="json"),
            prompts_sha256=prompt_set_digest(self.prompts),
            sources=self.sources,
            files=files,
            layers=[layer for note in notes for layer in note["layers"][PRIMARY]],
            extra_scheme_layers={
                name: [layer for note in notes for layer in note["layers"][name]]
                for name in self.plan.quantization.extra_schemes
            },
            num_unquantized=sum(len(unquantized_modules(part)) for part in self.plan.components),
            sizes={name: {"before": _bytes(self.sources, name), "after": _bytes(files, name)} for name in names},
            size_savings={part.name: compute_savings(part, self.plan, self.dtype) for part in self.plan.components},
            fp16_overflows=[name for note in notes for name in note["overflowing"]] if asked else [],
            versions=artifact.library_versions(),
        )


def _prepare(recipe: Recipe, source: Path, output: Path, memory: int, progress: Progress) -> _Run:
    """Looks at everything that pressing needs, before any long work."""
    plan = build_plan(source, recipe.quantize, progress)
    validate_weights(plan)
    resolve_sampling(recipe.calibration, source)
    prompts = sets.load_prompt_set(resolve_prompt_set(source, recipe.calibration.prompts, "calibration"))
    prompts = prompts[: max(recipe.calibration.count, MAX_TEXT_PROMPTS)]
    sources = artifact.hash_files(source, progress)
    content = {
        "version of edgepress": _algorithm(),
        "version of a library": artifact.library_versions(),
        "recipe": recipe.model_dump(mode="json", include={"dtype", "quantize", "calibration"})
        | {"steps": list(recipe.quantize.resolved_steps)},
        "family": repr(plan.family.components),
        "prompt set": prompt_set_digest(prompts),
        "model": [file.model_dump() for file in sources],
        "memory": {part.name: hessians_fit(part, memory) for part in plan.components},
    }
    return _Run(recipe, plan, prompts, sources, memory, content, Workspace(output, compute_key(content)))


def _algorithm() -> str:
    """A digest of the code that decides the weights."""
    return code_fingerprint(
        f"{__package__}.solver.block", f"{__package__}.calibration.collector", f"{__package__}.writer"
    )


def _bytes(files: Sequence[artifact.FileRecord], folder: str) -> int:
    return sum(file.bytes for file in files if file.path.startswith(f"{folder}/"))


def get_layer_stats(manifest: artifact.Manifest, solution: str = PRIMARY) -> list[LayerStats]:
    """The reports of the model's own grid, or of a further one."""
    layers = manifest.layers if solution == PRIMARY else manifest.extra_scheme_layers[solution]
    return [LayerStats(**layer) for layer in layers]
