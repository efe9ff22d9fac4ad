"""Pressing a pipeline, start to end: plan, calibrate, solve, write, publish."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__, artifact
from ..checkpoint import write_tensors
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import Prompt, load_prompts, prompts_sha256
from ..recipe import Recipe
from ..sampling import compute_dtype, sampling_of
from ..sources import prompt_file
from .calibrate import Table, calibrate
from .plan import Plan, Unit, make_plan
from .solve import LayerReport, solve
from .work import Work, key_of, open_work, publish
from .write import kept_linears, write_model


@dataclass(frozen=True)
class Pressed:
    """What pressing left: the artifact folder, its manifest, and whether it was there already."""

    output: Path
    manifest: artifact.Manifest
    fresh: bool


def press(recipe: Recipe, source: Path, output: Path, progress: Progress = silent, force: bool = False) -> Pressed:
    """Presses the pipeline in `source` to `output/model` and writes `output/manifest.json`.

    A run that was interrupted goes on where it was; an artifact that is there already with the same key is kept.

    Raises:
        UserError: bad input (before any long work), an artifact of another key without `force`, no room, no right to
            write.
    """
    plan = make_plan(source, recipe.quantize)
    chosen = prompt_file(source, recipe.calibration.prompts, "calibration")
    prompts = load_prompts(chosen)[: recipe.calibration.count]
    sources = artifact.describe(source, progress)
    key = _key(recipe, prompts, sources)
    present = artifact.read_manifest(output) if not force else None
    if present is not None and present.key == key and (output / "model").is_dir():
        return Pressed(output, present, fresh=False)
    if (output / "model").exists() and not force:
        raise UserError(
            f"{output / 'model'} exists and was made from another recipe, prompt set or model; "
            "use --force to replace it or --output for another folder."
        )
    with open_work(output, key) as work:
        _press(plan, recipe, prompts, work, progress)
        model = write_model(plan, work)
        manifest = _manifest(recipe, plan, work, key, prompts, sources)
        publish(model, output / "model")
        artifact.write_manifest(manifest, output)
        work.clear()
    return Pressed(output, manifest, fresh=True)


def _press(plan: Plan, recipe: Recipe, prompts: Sequence[Prompt], work: Work, progress: Progress) -> None:
    missing = [unit for unit in plan.units if not work.unit(unit.name).exists()]
    if missing:
        sampling = sampling_of(recipe.calibration, plan.source)
        dtype = getattr(torch, compute_dtype(recipe.dtype, plan.source))
        _solve(plan, missing, calibrate(plan, work, prompts, sampling, dtype, progress), work, progress)


def _solve(plan: Plan, missing: Sequence[Unit], table: Table, work: Work, progress: Progress) -> None:
    """Solves the units that the work folder lacks, and stores each as soon as it is solved."""
    done = len(plan.units) - len(missing)
    progress("solving", done, len(plan.units))
    for number, unit in enumerate(missing, done + 1):
        solution = solve(plan.component(unit.component), unit, table, plan.quantization)
        note = json.dumps([asdict(layer) for layer in solution.layers])
        write_tensors(solution.tensors, work.unit(unit.name), note)
        progress("solving", number, len(plan.units))


def _key(recipe: Recipe, prompts: Sequence[Prompt], sources: Sequence[artifact.File]) -> str:
    wanted = recipe.model_dump(mode="json", include={"dtype", "quantize", "calibration"})
    content: dict[str, Any] = {
        "version": __version__,
        "recipe": wanted,
        "prompts": prompts_sha256(prompts),
        "sources": [file.model_dump() for file in sources],
    }
    return key_of(content)


def _manifest(
    recipe: Recipe, plan: Plan, work: Work, key: str, prompts: Sequence[Prompt], sources: list[artifact.File]
) -> artifact.Manifest:
    layers = [layer for unit in plan.units for layer in work.note(work.unit(unit.name))]
    files = artifact.describe(work.model)
    names = sorted({file.path.split("/")[0] for file in sources if "/" in file.path})
    return artifact.Manifest(
        device=recipe.device,
        key=key,
        source=str(plan.source),
        recipe=recipe.model_dump(mode="json"),
        prompts_sha256=prompts_sha256(prompts),
        sources=sources,
        files=files,
        layers=layers,
        kept=sum(len(kept_linears(component)) for component in plan.components),
        sizes={name: {"before": _bytes(sources, name), "after": _bytes(files, name)} for name in names},
        versions=artifact.versions(),
    )


def _bytes(files: Sequence[artifact.File], folder: str) -> int:
    return sum(file.bytes for file in files if file.path.startswith(f"{folder}/"))


def layer_reports(manifest: artifact.Manifest) -> list[LayerReport]:
    return [LayerReport(**layer) for layer in manifest.layers]
