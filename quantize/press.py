"""Pressing a pipeline, start to end: plan, calibrate, solve, write, publish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import artifact
from ..checkpoint import write_json, write_tensors
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import Prompt, load_prompts, prompts_sha256
from ..recipe import Recipe
from ..sampling import Sampling, compute_dtype, sampling_of
from ..sources import prompt_file
from .calibrate import Table, calibrate
from .plan import Plan, Unit, make_plan
from .solve import LayerReport, solve
from .work import Work, key_of, locked
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
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"The output {output} lies inside the model folder {source}; give another --output.")
    plan = make_plan(source, recipe.quantize, progress)
    sampling = sampling_of(recipe.calibration, source)
    prompts = load_prompts(prompt_file(source, recipe.calibration.prompts, "calibration"))[: recipe.calibration.count]
    sources = artifact.describe(source, progress)
    work = Work(output, _key(recipe, prompts, sources))
    if not force and not work.manifest.exists() and (present := _present(work)):
        if work.folder.exists():  # left by a run that was cut right after publishing
            with locked(work):
                work.clear()
        return Pressed(output, present, fresh=False)
    with locked(work):
        if not work.manifest.exists():
            _press(plan, recipe, prompts, sampling, work, progress)
            write_model(plan, sources, work, progress)
            manifest = _manifest(recipe, plan, work, prompts, sources)
            write_json(manifest.model_dump(mode="json"), work.manifest)
        work.publish()
    published = artifact.read_manifest(output)
    assert published is not None
    return Pressed(output, published, fresh=True)


def _present(work: Work) -> artifact.Manifest | None:
    """The manifest of an artifact that is there already and was made from the same; None where there is none.

    Raises:
        UserError: there is another artifact.
    """
    present = artifact.read_manifest(work.output)
    model = work.output / "model"
    if present is not None and present.key == work.key and model.is_dir():
        return present
    if model.exists():
        raise UserError(
            f"{model} exists and was made from another recipe, prompt set, model or version of edgepress; "
            "use --force to replace it or --output for another folder."
        )
    return None


def _press(
    plan: Plan, recipe: Recipe, prompts: Sequence[Prompt], sampling: Sampling, work: Work, progress: Progress
) -> None:
    missing = [unit for unit in plan.units if not work.unit(unit.name).exists()]
    if missing:
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
        "algorithm": _algorithm(),
        "versions": artifact.versions(),
        "recipe": wanted,
        "prompts": prompts_sha256(prompts),
        "sources": [file.model_dump() for file in sources],
    }
    return key_of(content)


def _algorithm() -> str:
    """A digest of the code that decides the weights: work of another version is never continued."""
    folder = Path(__file__).parent
    files = [*sorted(folder.glob("*.py")), folder.parent / "grid.py", folder.parent / "int4.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _manifest(
    recipe: Recipe, plan: Plan, work: Work, prompts: Sequence[Prompt], sources: list[artifact.File]
) -> artifact.Manifest:
    layers = [layer for unit in plan.units for layer in work.note(work.unit(unit.name))]
    files = artifact.describe(work.model)
    names = sorted({file.path.split("/")[0] for file in sources if "/" in file.path})
    return artifact.Manifest(
        device=recipe.device,
        key=work.key,
        source=str(plan.source.resolve()),
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
