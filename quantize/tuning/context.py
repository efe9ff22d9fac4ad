"""What tuning works with: the plan, the workspace, and the loading of quantized components to train."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...common.progress import Progress
from ...numerics.awq_packing import AwqTensors
from ...numerics.int8_rows import Int8Rows, dequantize_rows
from ...pipelines.empty_modules import build_empty_module
from ...pipelines.quantized_modules import strip_modules
from ...pipelines.sampling import SamplingParams
from ...prompts.prompt import Prompt
from ...recipes.schema import PRIMARY
from ...storage.files import read_json_object
from ...storage.layout import MODEL_INDEX
from ..compute_device import CPU, move_module
from ..matmul_dtype import choose_matmul_dtype
from ..plan import ComponentPlan, QuantizationPlan
from ..workspace import Workspace
from ..writer import iterate_scheme_tensors, iterate_tensors, read_rescaled_linears
from .activations import quantize_inputs
from .trainable import TrainableModel

BASE_MEMORY = 2**30  # bytes of the process, the pipeline and activations
# Bytes for each value that is trained, and more of them in each thread: with the codes as they are, and moving.
FIXED_BYTES, MOVING_BYTES = (9, 8), (33, 12)


@dataclass(frozen=True)
class TuningContext:
    """What tuning works with.

    Attributes:
        plan: The plan, whose blocks are all quantized.
        workspace: Where blocks are, and where samples, states and results are stored.
        prompts: Of the calibration.
        sampling: How images of the calibration are generated.
        dtype: What the reference computes in; tensors that are not quantized are stored no wider.
        max_memory: Bytes that the run may take. They decide how many threads compute, and not what.
        check: Called before anything is stored that depends on the source's files.
        progress: Called with stage, what is done and the total.
        device: Where the reference and what is trained are.
    """

    plan: QuantizationPlan
    workspace: Workspace
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    dtype: torch.dtype
    max_memory: int
    check: Callable[[], None]
    progress: Progress
    device: torch.device = CPU

    @property
    def schemes(self) -> tuple[str, ...]:
        """The names of all schemes, the primary one first."""
        return (PRIMARY, *self.plan.settings.extra_schemes)

    @cached_property
    def matmul_dtype(self) -> torch.dtype:
        """The dtype of products for gradients: bfloat16 where the device has them."""
        return choose_matmul_dtype(torch.bfloat16, self.device)

    def samples_folder(self, component: ComponentPlan) -> Path:
        """Where the samples of a component are stored."""
        return self.workspace.tuned_file(component.name, PRIMARY).with_name(f"{component.name}-samples")

    def count_threads(self, num_threads: int, weights: int, *, moves_codes: bool = False) -> int:
        """Returns how many threads have memory for gradients of their own, at least one. A GPU is fed by one.

        Args:
            num_threads: How many threads there are.
            weights: Number of values of what is trained at once.
            moves_codes: Whether codes are trained, too.
        """
        if self.device != CPU:
            return 1
        shared, each = MOVING_BYTES if moves_codes else FIXED_BYTES
        return max(1, min(num_threads, int((self.max_memory - BASE_MEMORY - shared * weights) // (each * weights))))

    def load(
        self, component: ComponentPlan, scheme: str, path: str = "", *, moves_codes: bool = False
    ) -> TrainableModel:
        """Loads a component, or a block of it, with a scheme's codes, in float32.

        Args:
            component: The component.
            scheme: Name of the scheme.
            path: Path of the block; empty for the whole component.
            moves_codes: Whether 4-bit codes are trained, too.
        """
        prefix = f"{path}." if path else ""
        tensors = dict(iterate_tensors(component, self.plan, self.workspace, self.dtype, prefix))
        if scheme != PRIMARY:
            solution = dict(iterate_scheme_tensors(component, self.workspace, scheme, prefix))
            tensors = _leave_out_modules(tensors, solution) | solution
        tensors = {name.removeprefix(prefix): tensor.to(self.device) for name, tensor in tensors.items()}
        module, library = self._build_module(component)
        tensors, frozen = _dequantize_int8(tensors)
        model = TrainableModel.load(module.get_submodule(path), tensors, frozen)
        if moves_codes:
            self._move_codes(model, component, scheme, tensors)
        if library != "diffusers":
            cast(Any, module).tie_weights()
        move_module(model.module, self.device)
        if scheme != PRIMARY and self.plan.settings.extra_schemes[scheme].quantizes_activations:
            stored = {linear: tensors.get(f"{linear}.input_scale") for linear in model.codes}
            scales = {linear: None if scale is None else float(scale) for linear, scale in stored.items()}
            quantize_inputs(model.module, scales)
        return model

    def _move_codes(
        self, model: TrainableModel, component: ComponentPlan, scheme: str, tensors: Mapping[str, Tensor]
    ) -> None:
        """Trains 4-bit codes, which begin near the weights that they stand for where those are the original ones."""
        rescaled = set(read_rescaled_linears(component, self.workspace, scheme))
        for linear in model.codes:
            stored = AwqTensors(*(tensors[f"{linear}.{kind}"] for kind in AwqTensors._fields))
            if stored.qweight.dtype == torch.int32:  # those of 8 bits are near enough to their weights
                original = None if linear in rescaled else component.checkpoint.load_tensor(f"{linear}.weight")
                model.move_codes(linear, stored, None if original is None else original.to(self.device))

    def _build_module(self, component: ComponentPlan) -> tuple[nn.Module, str]:
        """Builds a component without weights; returns it and its library."""
        index: Mapping[str, Any] = read_json_object(self.plan.source / MODEL_INDEX)
        library = index[component.name][0]
        module = build_empty_module(library, component.spec.model_class, component.config, torch.float32).eval()
        strip_modules(module, component.unused_blocks, component.spec.unused_modules)
        return module, library


def count_parameters(component: ComponentPlan, path: str = "") -> int:
    """Returns the number of values of a component, or of a block of it."""
    prefix = f"{path}." if path else ""
    names = [name for name in component.used_tensor_names if name.startswith(prefix)]
    return sum(math.prod(component.checkpoint.shape(name)) for name in names)


def _leave_out_modules(tensors: Mapping[str, Tensor], solution: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of modules that a solution does not contain: a module is taken from the solution alone."""
    replaced = {name.rpartition(".")[0] for name in solution}
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in replaced}


def _dequantize_int8(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Replaces embeddings and convolutions in 8 bits by what their codes stand for.

    Returns:
        All tensors, and the names of those that were replaced.
    """
    names = [name.removesuffix(".codes") for name in tensors if name.endswith(".codes")]
    rows = {name: Int8Rows(tensors[f"{name}.codes"], tensors[f"{name}.scales"]) for name in names}
    packed = {f"{name}.{kind}" for name in names for kind in Int8Rows._fields}
    weights = {f"{name}.weight": dequantize_rows(row) for name, row in rows.items()}
    rest = {name: tensor for name, tensor in tensors.items() if name not in packed}
    return rest | weights, frozenset(weights)
