"""Settles what an evaluation compares: folders, prompts, sampling and number format, from a recipe and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..artifact import read_manifest
from ..errors import UserError
from ..prompts import Prompt, load_prompts
from ..recipe import Recipe
from ..sampling import Sampling, compute_dtype, sampling_of
from ..sources import prompt_file, resolve

ARTIFACTS = Path("artifacts")
CACHE = ARTIFACTS / ".work" / "pictures"  # shared by all devices, whose references are often the same


@dataclass(frozen=True)
class Plan:
    """A reference folder, a candidate folder, and what both have to paint; seeds are 0 ... seeds - 1."""

    reference: Path
    candidate: Path
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    dtype: str
    output: Path
    seeds: int = 1
    cache: Path = CACHE


def plan_for(
    recipe: Recipe,
    *,
    model: str | None = None,
    candidate: Path | None = None,
    prompts: Path | None = None,
    limit: int | None = None,
    seeds: int = 1,
    output: Path | None = None,
) -> Plan:
    """The plan of a recipe; every argument that is given takes the place of the recipe's.

    Raises:
        UserError: there is no such reference, candidate or prompt file.
    """
    given = resolve(model) if model else None
    candidate = _pressed(candidate or ARTIFACTS / recipe.device / "model")
    reference = given or resolve(_source_of(candidate) or recipe.model)
    pictures = recipe.evaluation
    asked = str(prompts) if prompts else pictures.prompts
    chosen = load_prompts(prompt_file(reference, asked, "evaluation"))[: limit or pictures.count]
    return Plan(
        reference=reference,
        candidate=candidate,
        prompts=tuple(chosen),
        sampling=sampling_of(pictures, reference),
        dtype=compute_dtype(recipe.dtype, reference),
        output=output or candidate.parent / "evaluation",
        seeds=seeds,
    )


def _source_of(candidate: Path) -> str | None:
    """The pipeline that the candidate was pressed from, if its manifest names one that is still there."""
    manifest = read_manifest(candidate.parent)
    return manifest.source if manifest and Path(manifest.source).is_dir() else None


def _pressed(folder: Path) -> Path:
    if not (folder / "model_index.json").exists():
        raise UserError(f"There is no pressed pipeline in {folder}; run `edgepress quantize` first, or name a folder.")
    return folder
