"""Writing the pressed pipeline: a diffusers folder in which solved blocks replace the original weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..artifact import File
from ..checkpoint import PICKLES, write_json, write_sharded
from ..int4 import AwqTensors
from ..progress import Progress, silent
from .plan import ComponentPlan, Plan
from .work import Work

PACKED = AwqTensors._fields
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


def write_model(plan: Plan, sources: Sequence[File], work: Work, progress: Progress = silent) -> None:
    """Puts the pressed pipeline together in the work folder; what is not quantized is copied as it is."""
    shutil.rmtree(work.model, ignore_errors=True)
    for file in sources:
        if not _written_anew(plan, Path(file.path)):
            (work.model / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plan.source / file.path, work.model / file.path)
    for component in plan.components:
        folder = work.model / component.name
        folder.mkdir(parents=True, exist_ok=True)
        stem = STEMS["diffusers" if "_class_name" in component.config else "transformers"]
        write_sharded(_told(pressed_tensors(component, work), component, progress), folder, stem)
        config = component.config | {"quantization_config": quantization_config(component, plan)}
        write_json(config, folder / "config.json")


def _told(
    tensors: Iterator[tuple[str, Tensor]], component: ComponentPlan, progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """The same tensors, with word of how many have passed."""
    total = len(component.checkpoint.names()) + (len(PACKED) - 1) * sum(len(unit.linears) for unit in component.units)
    for number, tensor in enumerate(tensors, 1):
        yield tensor
        progress(f"writing {component.name}", number, total)


def pressed_tensors(component: ComponentPlan, work: Work) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a pressed component, in the order of the original's names, one in memory at a time."""
    solved = {name: file for unit in component.units for file in [work.unit(unit.name)] for name in work.names(file)}
    for name in sorted(component.checkpoint.names()):
        packed = [name.removesuffix("weight") + kind for kind in PACKED]
        if packed[0] in solved:
            yield from ((key, work.tensor(solved[key], key)) for key in packed)
        elif name in solved:
            yield name, work.tensor(solved[name], name)
        else:
            yield name, component.checkpoint.tensor(name)


def quantization_config(component: ComponentPlan, plan: Plan) -> dict[str, Any]:
    """The `quantization_config` of a component, in the words of AutoAWQ's checkpoints."""
    scheme = plan.quantization.scheme
    return {
        "quant_method": "awq",
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "zero_point": scheme.zero_point,
        "version": "gemm",
        "modules_to_not_convert": kept_linears(component),
    }


def kept_linears(component: ComponentPlan) -> list[str]:
    """Modules with a two-dimensional weight that stay in their original precision."""
    quantized = {f"{linear}.weight" for unit in component.units for linear in unit.linears}
    matrices = (name for name in component.checkpoint.names() if name.endswith(".weight"))
    kept = [name for name in matrices if name not in quantized and len(component.checkpoint.shape(name)) == 2]
    return sorted(name.removesuffix(".weight") for name in kept)


def _written_anew(plan: Plan, path: Path) -> bool:
    """Whether a file of the source is not to be copied: weights and config of pressed components, and any pickle."""
    if any(path.match(pattern) for pattern in PICKLES):
        return True
    pressed = len(path.parts) == 2 and path.parts[0] in {component.name for component in plan.components}
    return pressed and (path.name == "config.json" or ".safetensors" in path.name)
