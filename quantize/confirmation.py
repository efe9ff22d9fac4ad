"""Confirms end to end what validation chose layer by layer: the variant of a model with the least drift is written.

The drift is the error of the denoisers' outputs, relative to the reference's, on calibration prompts that nothing was
solved on. Text encoders are quantized too, and every step begins from the reference's latents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ..pipelines.sampling import SamplingParams, generate_images
from ..recipes.schema import PRIMARY
from ..storage.checkpoint import write_tensors
from ..storage.files import read_json_object, write_json
from ..storage.manifest import ChoiceRecord
from .calibration.state import load_reference_outputs
from .calibration.streaming import load_streaming_pipeline, stream_or_load
from .calibration.validation_split import CalibrationBatch
from .plan import ComponentPlan, QuantBlock, QuantizationPlan, count_linear_weights
from .solver.block import list_schemes
from .solver.candidates import MAX_REFINED_WEIGHTS, VARIANTS
from .tuning.calls import stack_output
from .workspace import Workspace, list_tensor_names, read_metadata, read_tensor

STAGE = "confirming"
MIN_GAIN = 0.1  # dB of drift, for which a variant is taken instead of a simpler one
LARGE_MODEL_STRIDE = 4  # every fourth call of a large denoiser is measured


def variant_key(variant: str, scheme: str) -> str:
    """The name under which a block's results with a variant are stored, where a scheme's would be."""
    return f"{variant}/{scheme}"


def read_choice(workspace: Workspace) -> ChoiceRecord | None:
    """Reads which variant was chosen; None if none was to be chosen."""
    return ChoiceRecord(**read_json_object(workspace.choice_file)) if workspace.choice_file.exists() else None


def choose_variant(drift: Mapping[str, float]) -> str:
    """Returns the variant to write: a simpler one, unless another has clearly less drift.

    Args:
        drift: The drift of each variant in dB.
    """
    best = VARIANTS[-1]
    for variant in reversed(VARIANTS):
        if drift[variant] < drift[best] - MIN_GAIN:
            best = variant
    return best


@dataclass(frozen=True)
class Confirmation:
    """Chooses among the variants of a model whose blocks are all solved.

    Attributes:
        plan: The plan.
        workspace: Where variants are, and where the choice is stored.
        batches: The prompts that images were generated for in the calibration.
        sampling: How images are generated.
        dtype: What the reference computes in.
        progress: Called with calls of the denoisers.
    """

    plan: QuantizationPlan
    workspace: Workspace
    batches: Sequence[CalibrationBatch]
    sampling: SamplingParams
    dtype: torch.dtype
    progress: Progress

    def run(self, check: Callable[[], None]) -> None:
        """Chooses a variant unless that was done before, and makes its blocks those of the model.

        Args:
            check: Called before anything is stored that depends on the source's files.
        """
        if not self.workspace.choice_file.exists():
            content = self._choose().model_dump()
            check()
            write_json(content, self.workspace.choice_file)
        choice = ChoiceRecord(**read_json_object(self.workspace.choice_file))
        for block in self.plan.blocks:
            if not self.workspace.block_file(block.name).exists():
                self._adopt(block, choice.variant)
            self.workspace.variants_file(block.name).unlink(missing_ok=True)

    def _choose(self) -> ChoiceRecord:
        held_out = [number for number, batch in enumerate(self.batches) if batch.validates]
        if held_out and any(part.name in self.plan.family.denoisers and part.blocks for part in self.plan.components):
            drift = {variant: self._read_drift(variant, number, held_out) for number, variant in enumerate(VARIANTS)}
            return ChoiceRecord(variant=choose_variant(drift), drift=drift)
        is_validated = any(
            layer["validation_error"] is not None
            for block in self.plan.blocks
            for layer in read_metadata(self.workspace.variants_file(block.name))["layers"][
                variant_key(VARIANTS[0], PRIMARY)
            ]
        )
        return ChoiceRecord(variant=VARIANTS[0] if is_validated else VARIANTS[-1], drift={})

    def _read_drift(self, variant: str, number: int, held_out: Sequence[int]) -> float:
        """Returns the drift of a variant in dB, which is measured once."""
        file = self.workspace.drift_file(variant)
        if not file.exists():
            calls = len(held_out) * self.sampling.steps
            report = _Counter(self.progress, number * calls, len(VARIANTS) * calls)
            plan = self._with_variant(variant)
            write_json({"drift": stream_or_load(plan, partial(self._measure, plan, held_out, report))}, file)
        return float(read_json_object(file)["drift"])

    def _measure(
        self, plan: QuantizationPlan, held_out: Sequence[int], report: Callable[[], None], streams: bool
    ) -> float:
        """Returns the drift in dB of a plan whose checkpoints hold quantized weights."""
        pipeline = load_streaming_pipeline(plan, self.dtype, streams)
        sizes = [count_linear_weights(part) for part in plan.components]
        stride = LARGE_MODEL_STRIDE if max(sizes) > MAX_REFINED_WEIGHTS else 1
        error, power = 0.0, 0.0
        for number in held_out:
            outputs = load_reference_outputs(self.workspace, number)
            meter = _DriftMeter(outputs, stride, report)
            for name in plan.family.denoisers:
                if (denoiser := getattr(pipeline, name)) is not None:
                    denoiser.forward = partial(meter.forward, denoiser.forward)
            generate_images(pipeline, self.batches[number].prompts, self.sampling, output_type="latent")
            for name in plan.family.denoisers:
                if (denoiser := getattr(pipeline, name)) is not None:
                    denoiser.forward = denoiser.forward.args[0]
            error, power = error + meter.error, power + meter.power
        malloc_trim()
        return 10 * math.log10(error / power) if error and power and math.isfinite(error) else math.inf

    def _with_variant(self, variant: str) -> QuantizationPlan:
        """Returns the plan with weights as a variant stores them, dequantized whenever they are loaded."""
        return replace(self.plan, components=tuple(self._with_results(part, variant) for part in self.plan.components))

    def _with_results(self, component: ComponentPlan, variant: str) -> ComponentPlan:
        prefix = f"{variant_key(variant, PRIMARY)}:"
        changes = dict(component.checkpoint.changes)
        for block in component.blocks:
            file = self.workspace.variants_file(block.name)
            for key in list_tensor_names(file):
                name = key.removeprefix(prefix)
                if name == key:
                    continue
                if name.endswith(".qweight"):
                    linear = name.removesuffix(".qweight")
                    changes[f"{linear}.weight"] = partial(_read_dequantized, file, f"{prefix}{linear}")
                elif not name.endswith((".qzeros", ".scales")):
                    changes[name] = partial(_read_replacement, file, key)
        return replace(component, checkpoint=component.checkpoint.with_changes(changes))

    def _adopt(self, block: QuantBlock, variant: str) -> None:
        """Stores a block's results with a variant as those of the block."""
        file = self.workspace.variants_file(block.name)
        metadata = read_metadata(file)
        names = list_tensor_names(file)
        tensors: dict[str, Tensor] = {}
        layers = {}
        for scheme in list_schemes(self.plan.settings):
            key = variant_key(variant, scheme)
            key = key if key in metadata["layers"] else scheme
            layers[scheme] = metadata["layers"][key]
            tensors |= dict(_read_scheme(file, names, key, scheme))
        content = {"layers": layers, "overflows": metadata["overflows"]}
        write_tensors(tensors, self.workspace.block_file(block.name), json.dumps(content))


@dataclass
class _Counter:
    """Counts calls of denoisers."""

    progress: Progress
    done: int
    total: int

    def __call__(self) -> None:
        self.done = min(self.done + 1, self.total)
        self.progress(STAGE, self.done, self.total)


class _DriftMeter:
    """Compares calls of quantized denoisers with what the reference returned, and returns the latter."""

    def __init__(self, outputs: Sequence[Any], stride: int, report: Callable[[], None]) -> None:
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


def _read_dequantized(file: Path, linear: str, _: Tensor) -> Tensor:
    packed = AwqTensors(*(read_tensor(file, f"{linear}.{kind}") for kind in AwqTensors._fields))
    return dequantize(unpack_awq(packed))


def _read_replacement(file: Path, key: str, _: Tensor) -> Tensor:
    return read_tensor(file, key)


def _read_scheme(file: Path, names: Sequence[str], key: str, scheme: str) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        if name.startswith(f"{key}:"):
            yield f"{scheme}{name.removeprefix(key)}", read_tensor(file, name)
