"""The drift of a quantized model: the error of the denoisers' outputs, relative to the reference's.

It is measured on calibration prompts that nothing was solved on, with quantized text encoders too. Every step begins
from the reference's latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.memory import malloc_trim
from ..common.progress import Progress
from ..numerics.affine import dequantize
from ..numerics.awq_packing import AwqTensors, unpack_awq
from ..pipelines.lora_scales import SCALE_NAMES
from ..pipelines.sampling import SamplingParams, generate_images
from .calibration.state import load_reference_outputs
from .calibration.streaming import load_streaming_pipeline, stream_or_load
from .calibration.validation_split import CalibrationBatch
from .compute_device import CPU
from .plan import ComponentPlan, QuantizationPlan, count_linear_weights
from .solver.candidates import MAX_REFINED_WEIGHTS
from .tuning.calls import stack_output
from .workspace import Workspace, list_tensor_names, read_tensor

LARGE_MODEL_STRIDE = 4  # every fourth call of a large denoiser is measured
# Shares of the reference's power: smaller ones are rounding, and outputs that are not finite count as larger than all.
MIN_SHARE, MAX_SHARE = torch.finfo(torch.float32).eps ** 2, torch.finfo(torch.float32).max


def to_decibels(share: float) -> float:
    """Returns a squared error, relative to the reference's power, in dB; always a number that JSON can express."""
    return 10 * math.log10(min(max(share, MIN_SHARE), MAX_SHARE) if math.isfinite(share) else MAX_SHARE)


@dataclass(frozen=True)
class DriftMeasurement:
    """Measures how far quantized models are from their reference.

    Attributes:
        workspace: Where the results of blocks are, and what the reference returned.
        batches: The prompts that images were generated for in the calibration.
        sampling: How images are generated.
        dtype: What the reference computes in.
        progress: Called with calls of the denoisers.
        stage: What progress is reported as.
        device: Where the models run.
    """

    workspace: Workspace
    batches: Sequence[CalibrationBatch]
    sampling: SamplingParams
    dtype: torch.dtype
    progress: Progress
    stage: str
    device: torch.device = CPU

    @property
    def held_out(self) -> list[int]:
        """The numbers of the batches that nothing is solved on."""
        return [number for number, batch in enumerate(self.batches) if batch.validates]

    def measure(self, plan: QuantizationPlan, run: int = 0, num_runs: int = 1) -> float:
        """Returns the drift in dB of a plan whose checkpoints hold quantized weights.

        Args:
            plan: The plan.
            run: The number of this measurement, for the progress.
            num_runs: How many there are.
        """
        calls = len(self.held_out) * self.sampling.steps
        report = _Counter(self.progress, self.stage, run * calls, num_runs * calls)
        return stream_or_load(plan, partial(self._measure, plan, report))

    def _measure(self, plan: QuantizationPlan, report: Callable[[], None], streams: bool) -> float:
        pipeline = load_streaming_pipeline(plan, self.dtype, streams, self.device)
        sizes = [count_linear_weights(part) for part in plan.components]
        stride = LARGE_MODEL_STRIDE if max(sizes) > MAX_REFINED_WEIGHTS else 1
        error, power = 0.0, 0.0
        for number in self.held_out:
            outputs = load_reference_outputs(self.workspace, number, self.device)
            meter = DriftMeter(outputs, stride, report)
            for name in plan.family.denoisers:
                if (denoiser := getattr(pipeline, name)) is not None:
                    denoiser.forward = partial(meter.forward, denoiser.forward)
            generate_images(pipeline, self.batches[number].prompts, self.sampling, output_type="latent")
            for name in plan.family.denoisers:
                if (denoiser := getattr(pipeline, name)) is not None:
                    denoiser.forward = denoiser.forward.args[0]
            error, power = error + meter.error, power + meter.power
        malloc_trim()
        return to_decibels(error / power if power else error)


def replace_weights(
    plan: QuantizationPlan, workspace: Workspace, select: Callable[[str, str], str]
) -> QuantizationPlan:
    """Returns the plan with weights as results store them, dequantized whenever they are loaded.

    Args:
        plan: The plan.
        workspace: Where the variants of blocks are.
        select: Returns, for a component and a module in it, the name under which its result is stored.
    """
    parts = (_replace_weights(part, workspace, partial(select, part.name)) for part in plan.components)
    return replace(plan, components=tuple(parts))


def _replace_weights(component: ComponentPlan, workspace: Workspace, select: Callable[[str], str]) -> ComponentPlan:
    changes = dict(component.checkpoint.changes)
    for block in component.blocks:
        file = workspace.variants_file(block.name)
        for key in list_tensor_names(file):
            variant, _, name = key.partition(":")
            module, _, kind = name.rpartition(".")
            if variant != select(module):
                continue
            if kind == "qweight":
                changes[f"{module}.weight"] = partial(_read_dequantized, file, f"{variant}:{module}")
            elif kind not in ("qzeros", "scales", *SCALE_NAMES):
                changes[name] = partial(_read_replacement, file, key)
    return replace(component, checkpoint=component.checkpoint.with_changes(changes))


def read_dequantized(file: Path, module: str) -> Tensor:
    """Loads a quantized weight of a block's results, (out, in) float32.

    Args:
        file: The results.
        module: What the names of its tensors begin with.
    """
    packed = AwqTensors(*(read_tensor(file, f"{module}.{kind}") for kind in AwqTensors._fields))
    if packed.qweight.dtype == torch.int32:
        return dequantize(unpack_awq(packed))
    codes = packed.qweight.float() - packed.qzeros.float()  # 8 bits, one scale for each output
    return (codes * packed.scales.float()).T.contiguous()


def _read_dequantized(file: Path, module: str, _: Tensor) -> Tensor:
    return read_dequantized(file, module)


def _read_replacement(file: Path, key: str, _: Tensor) -> Tensor:
    return read_tensor(file, key)


@dataclass
class _Counter:
    """Counts calls of denoisers."""

    progress: Progress
    stage: str
    done: int
    total: int

    def __call__(self) -> None:
        self.done = min(self.done + 1, self.total)
        self.progress(self.stage, self.done, self.total)


class DriftMeter:
    """Compares calls of quantized denoisers with what the reference returned, and returns the latter.

    Args:
        outputs: What the reference's calls returned, in order.
        stride: Every which call is compared.
        report: Called after each call.
    """

    def __init__(self, outputs: Sequence[Any], stride: int = 1, report: Callable[[], None] = lambda: None) -> None:
        self.error, self.power = 0.0, 0.0
        self._outputs, self._stride, self._report, self._calls = outputs, stride, report, 0

    def forward(self, compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        expected = self._outputs[self._calls]
        if self._calls % self._stride == 0:
            exact = stack_output(expected).double()
            self.error += float((stack_output(compute(*args, **kwargs)).double() - exact).square().sum())
            self.power += float(exact.square().sum())
        self._calls += 1
        self._report()
        return expected
