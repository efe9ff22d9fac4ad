"""Names the plan of an evaluation: what was generated and measured, for the folder of its results."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from .schema import Results, SystemInfo

DIGEST_DIGITS = 8
MAX_SET_NAME = 40  # characters


def name_plan(results: Results) -> str:
    """Returns a name such as `64-prompts-of-evaluation-128x128-8-steps-3f2a91c4`.

    It ends with a digest of everything that the numbers depend on: prompts, seeds, size, steps, guidance, metrics with
    their versions, and the contents of the reference, the candidates and the ground truth. Gates are not part of it.
    """
    identity, sampling = results.identity, results.identity.sampling
    count = len({sample.prompt.id for sample in results.samples})
    noun = "prompt" if identity.prompt_set else "image"
    parts = [f"{count}-{noun}{'' if count == 1 else 's'}"]
    if identity.prompt_set:
        parts.append(f"of-{_make_slug(Path(identity.prompt_set).stem)}")
    if sampling.num_seeds > 1:
        parts.append(f"{sampling.num_seeds}-seeds")
    if sampling.height and sampling.width:
        parts.append(f"{sampling.width}x{sampling.height}")
    if sampling.steps:
        parts.append(f"{sampling.steps}-step{'' if sampling.steps == 1 else 's'}")
    return "-".join([*parts, _digest_plan(results)])


def _make_slug(name: str) -> str:
    """A part of a folder's name; characters that are not letters, digits, dots or hyphens become hyphens."""
    return re.sub(r"[^\w.-]+", "-", name)[:MAX_SET_NAME].strip("-.") or "prompts"


def _digest_plan(results: Results) -> str:
    identity = results.identity
    content = {
        "reference": _list_content(identity.reference),
        "variants": {name: _list_content(system) for name, system in identity.variants.items()},
        "ground truth": identity.ground_truth.sha256 if identity.ground_truth else None,
        "sampling": identity.sampling.model_dump(),
        "prompts": identity.prompts_sha256,
        "metrics": identity.metrics,
        "noise floor": results.noise_floor is not None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGEST_DIGITS]


def _list_content(system: SystemInfo) -> list[str | None]:
    return [system.kind, system.folder.sha256, system.dtype, system.engine]
