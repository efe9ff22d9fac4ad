"""Writing the pressed pipeline: a diffusers folder in which solved blocks replace the original weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoint import write_json, write_sharded
from ..int4 import AwqTensors
from .plan import ComponentPlan, Plan
from .work import Work

PACKED = AwqTensors._fields
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


def write_model(plan: Plan, work: Work) -> Path:
    """Puts the pressed pipeline together in the work folder; everything that is not quantized is copied as it is."""
    shutil.rmtree(work.model, ignore_errors=True)
    shutil.copytree(plan.source, work.model, ignore=lambda folder, names: _not_copied(plan, Path(folder), names))
    for component in plan.components:
        folder = work.model / component.name
        tensors = pressed_tensors(component, work)
        write_sharded(tensors, folder, STEMS["diffusers" if "_class_name" in component.config else "transformers"])
        config = component.config | {"quantization_config": quantization_config(component, plan)}
        write_json(config, folder / "config.json")
    return work.model


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


def _not_copied(plan: Plan, folder: Path, names: list[str]) -> list[str]:
    """Weights and config of pressed components (they are written anew), and hidden files."""
    hidden = [name for name in names if name.startswith(".")]
    if folder.parent != plan.source or folder.name not in {component.name for component in plan.components}:
        return hidden
    return hidden + [name for name in names if name == "config.json" or ".safetensors" in name]
