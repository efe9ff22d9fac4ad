"""Brings the pictures of all sides together: painted ones from the cache, those made elsewhere from their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import Prompt
from .generate import Source, generate
from .measure import concurrently
from .pairing import Asked, Compared, Pictures, pictures_of
from .pictures import Shot, inspect, pictures_in, stem_of
from .plan import SOME, Plan
from .results import Identity
from .sides import Side


def asked(plan: Plan) -> Iterator[tuple[Prompt, int]]:
    """Every prompt with every seed, in the order of the rows."""
    return ((prompt, seed) for seed in range(plan.seeds) for prompt in plan.prompts)


def collect(plan: Plan, identity: Identity, progress: Progress = silent) -> Compared:
    """Paints what is missing, with one side in memory at a time, and looks at every picture.

    Raises:
        UserError: a side that cannot be loaded; true pictures that are missing, unreadable, or of another size.
    """
    truth = _truth(plan) if plan.truth else {}
    if plan.sampling:
        _check_size(truth, {prompt.id: f"{plan.sampling.width}x{plan.sampling.height}" for prompt in plan.prompts})
    hashes = {name: subject.folder.sha256 for name, subject in identity.variants.items()}
    reference = identity.reference.folder.sha256
    first = _pictures(plan, plan.reference, reference, "the reference", progress)
    _check_size(truth, {name: shot.size for (name, _), shot in first.shots.items() if isinstance(shot, Shot)})
    again = _pictures(plan, plan.reference, reference, "the reference again", progress, 1) if plan.noise_floor else None
    variants = {name: _pictures(plan, side, hashes[name], name, progress) for name, side in plan.candidates.items()}
    return Compared(reference=first, variants=variants, floor=again, truth=truth)


def _pictures(plan: Plan, side: Side, sha256: str, name: str, progress: Progress, run: int = 0) -> Pictures:
    files = _files(plan, side) if side.kind == "images" else _painted(plan, side, sha256, name, progress, run)
    wanted = [(prompt.id, seed) for prompt, seed in asked(plan)]
    shots = dict(zip(wanted, concurrently(inspect, [files.get(one) for one in wanted]), strict=True))
    if side.kind != "images":
        _check_cache(files, shots)
    return pictures_of(shots)


def _painted(plan: Plan, side: Side, sha256: str, name: str, progress: Progress, run: int) -> Mapping[Asked, Path]:
    if plan.sampling is None:
        raise ValueError("a side that paints needs a sampling")
    source = Source(side, sha256, side.dtype or plan.dtype, plan.sampling, run)
    stage = f"painting with {name}"
    return generate(source, plan.prompts, plan.seeds, plan.cache, progress, stage, anew=not plan.resume)


def _files(plan: Plan, side: Side) -> dict[Asked, Path]:
    found = pictures_in(side.folder)
    stems = {(prompt.id, seed): stem_of(prompt.id, seed, plan.seeds) for prompt, seed in asked(plan)}
    return {one: found[stem] for one, stem in stems.items() if stem in found}


def _check_cache(files: Mapping[Asked, Path], shots: Mapping[Asked, object]) -> None:
    for one, shot in shots.items():
        if not isinstance(shot, Shot):
            raise UserError(f"{files[one]} is no readable picture; delete it and run again, and it is made anew.")


def _truth(plan: Plan) -> dict[str, Shot]:
    """The true picture of each prompt, whatever the seed."""
    assert plan.truth
    found = pictures_in(plan.truth)
    lacking = [prompt.id for prompt in plan.prompts if prompt.id not in found]
    if lacking:
        raise UserError(
            f"{plan.truth} lacks the true pictures of {len(lacking)} prompts ({', '.join(lacking[:SOME])}); a picture "
            "is called by its prompt's id."
        )
    names = [prompt.id for prompt in plan.prompts]
    shots: dict[str, Shot] = {}
    for name, shot in zip(names, concurrently(inspect, [found[name] for name in names]), strict=True):
        if not isinstance(shot, Shot):
            raise UserError(f"The true picture {found[name]} cannot be read: it is {shot}; replace it.")
        shots[name] = shot
    return shots


def _check_size(truth: Mapping[str, Shot], sizes: Mapping[str, str]) -> None:
    """Refuses true pictures that could only be compared after resizing; `sizes` of the painted ones by prompt id."""
    for name, shot in truth.items():
        if shot.size != sizes.get(name, shot.size):
            raise UserError(
                f"The true picture {shot.file} is {shot.size}, and what is painted {sizes[name]}; give true pictures "
                "of that size."
            )
