"""The stage `tune`: trains every quantized denoiser with every scheme of the recipe, one after another.

Nothing that it stores depends on the number of threads, on the memory limit or on the clock.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...common.cpu_features import read_cpu_features
from ...common.errors import UserError
from ...common.memory import malloc_trim
from ...common.progress import Progress
from ...numerics.int8_rows import Int8Rows, dequantize_rows
from ...pipelines.empty_modules import build_empty_module
from ...pipelines.quantized_modules import strip_modules
from ...pipelines.sampling import SamplingParams
from ...prompts.prompt import Prompt
from ...recipes.schema import PRIMARY
from ...storage.checkpoint import write_tensors
from ...storage.files import read_json_object
from ...storage.layout import MODEL_INDEX
from ...storage.manifest import TuningRecord
from ..calibration.streaming import load_streaming_pipeline
from ..plan import ComponentPlan, QuantizationPlan
from ..workspace import Workspace, read_metadata
from ..writer import iterate_scheme_tensors, iterate_tensors
from .activations import quantize_inputs
from .budget import AUTO_MINUTES, plan_budget
from .samples import Samples, collect_samples, measure_image
from .threads import single_threaded
from .trainable import TrainableModel
from .trainer import Course, Trainer
from .workers import open_workers

logger = logging.getLogger(__name__)

BASE_MEMORY = 2**30  # bytes of the process, the pipeline and activations
RATE = 0.002  # of each tensor, as a share of its mean |value|
SHARD_PIXELS = 2**17  # computed at once by one thread: 8 images of the demo
MAX_PARAMETERS = 10**8  # of a denoiser that is tuned as a whole, which takes about 17 bytes for each with two threads


@dataclass(frozen=True)
class TuningStage:
    """Tunes the denoisers of a plan whose blocks are all quantized.

    Attributes:
        plan: The plan.
        workspace: Where blocks are, and where samples, states and results are stored.
        prompts: Of the calibration.
        sampling: How images of the calibration are generated.
        dtype: What the reference computes in; tensors that are not quantized are stored no wider.
        max_memory: Bytes that the run may take. They decide how many threads compute, and not what.
        check: Called before anything is stored that depends on the source's files.
        progress: Called with stage, what is done and the total.
    """

    plan: QuantizationPlan
    workspace: Workspace
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    dtype: torch.dtype
    max_memory: int
    check: Callable[[], None]
    progress: Progress

    def run(self) -> None:
        """Tunes what is not tuned yet."""
        for component in list_tuned_components(self.plan):
            missing = {scheme: file for scheme, file in self._list_files(component).items() if not file.exists()}
            if not missing:
                continue
            if count_parameters(component) > MAX_PARAMETERS:
                logger.warning("%s is not tuned: it has more than %.0e parameters.", component.name, MAX_PARAMETERS)
                continue
            with single_threaded() as num_threads:
                num_threads = min(num_threads, self._count_replicas(component))
                self._tune_component(component, missing, num_threads)
            shutil.rmtree(self._samples_folder(component), ignore_errors=True)

    def _list_files(self, component: ComponentPlan) -> dict[str, Path]:
        """Returns where the result of each scheme is stored."""
        schemes = (PRIMARY, *self.plan.settings.extra_schemes)
        return {scheme: self.workspace.tuned_file(component.name, scheme) for scheme in schemes}

    def _samples_folder(self, component: ComponentPlan) -> Path:
        return self.workspace.tuned_file(component.name, PRIMARY).with_name(f"{component.name}-samples")

    def _count_replicas(self, component: ComponentPlan) -> int:
        """Returns how many threads have memory for gradients of their own, at least one."""
        weights = count_parameters(component)
        return max(1, int((self.max_memory - BASE_MEMORY - 9 * weights) // (8 * weights)))

    def _tune_component(self, component: ComponentPlan, missing: Mapping[str, Path], num_threads: int) -> None:
        pipeline = self._load_reference()
        settings = self.plan.settings
        measures = measure_image(pipeline, component.name, self.prompts[0], self.sampling)
        budget = plan_budget(settings.tune, *measures, len(self.prompts), len(self._list_files(component)))
        if budget is None:
            logger.warning(
                "%s is not tuned: it would take more than %.0f minutes. --tune MINUTES tunes it for that long.",
                component.name,
                AUTO_MINUTES,
            )
            return
        prompts, folder = self.prompts[: budget.prompts], self._samples_folder(component)
        samples = collect_samples(
            pipeline, component.name, prompts, budget.seeds, self.sampling, folder, num_threads, self.progress
        )
        self.check()
        del pipeline
        malloc_trim()
        for scheme, file in missing.items():
            self._tune(component, scheme, file, samples, budget.steps, num_threads)

    def _load_reference(self) -> Any:
        """Loads the reference in float32, with quantized text encoders."""
        pipeline = load_streaming_pipeline(self.plan, torch.float32, streams=False)
        for encoder in self.plan.components:
            if encoder.name not in self.plan.family.denoisers and encoder.blocks:
                setattr(pipeline, encoder.name, self._load(encoder, PRIMARY).module.requires_grad_(False))
        return pipeline

    def _tune(
        self, component: ComponentPlan, scheme: str, file: Path, samples: Samples, steps: int, num_threads: int
    ) -> None:
        model = self._load(component, scheme)
        shard_size = max(1, SHARD_PIXELS // (self.sampling.height * self.sampling.width))
        state = file.with_name(f"{file.stem}-state.safetensors")
        stage = f"tuning {component.name}" if scheme == PRIMARY else f"tuning {component.name}, {scheme}"
        matmul_dtype = torch.bfloat16 if read_cpu_features().has_bf16_products else torch.float32
        with open_workers(model, num_threads, shard_size, matmul_dtype) as workers:
            trainer = Trainer(model, workers, samples, steps, RATE, state)
            trainer.run(lambda step: self.progress(stage, step, steps))
        self.progress(stage, steps, steps)
        record = _describe(trainer.course, samples, model)
        write_tensors(model.to_stored(trainer.best), file, json.dumps(record.model_dump()))
        state.unlink(missing_ok=True)

    def _load(self, component: ComponentPlan, scheme: str) -> TrainableModel:
        """Loads a component with a scheme's codes, in float32."""
        tensors = dict(iterate_tensors(component, self.plan, self.workspace, self.dtype))
        if scheme != PRIMARY:
            solution = dict(iterate_scheme_tensors(component, self.workspace, scheme))
            tensors = _leave_out_modules(tensors, solution) | solution
        index: Mapping[str, Any] = read_json_object(self.plan.source / MODEL_INDEX)
        library, class_name = index[component.name][0], component.spec.model_class
        module = build_empty_module(library, class_name, component.config, torch.float32).eval()
        strip_modules(module, component.unused_blocks, component.spec.unused_modules)
        model = TrainableModel.load(module, _dequantize_embeddings(tensors))
        if library != "diffusers":
            cast(Any, module).tie_weights()
        if scheme != PRIMARY and self.plan.settings.extra_schemes[scheme].quantizes_activations:
            stored = {linear: tensors.get(f"{linear}.input_scale") for linear in model.codes}
            scales = {linear: None if scale is None else float(scale) for linear, scale in stored.items()}
            quantize_inputs(module, scales)
        return model


def check_tuning(plan: QuantizationPlan) -> None:
    """Checks that what a recipe asks for can be tuned, by the weights' headers.

    Raises:
        UserError: A denoiser is too large, and the recipe gives minutes.
    """
    if plan.settings.tune in ("off", "auto"):
        return
    components = list_tuned_components(plan)
    if not components:
        raise UserError("quantize.tune: no denoiser is quantized, so there is nothing to tune. Set it to off.")
    for component in components:
        if count_parameters(component) > MAX_PARAMETERS:
            raise UserError(
                f"quantize.tune: {component.name} has {count_parameters(component) / 1e9:.1f} billion parameters, and "
                f"at most {MAX_PARAMETERS / 1e9:.1f} billion can be tuned. Set it to off."
            )


def list_tuned_components(plan: QuantizationPlan) -> list[ComponentPlan]:
    """Lists the components that tuning trains: the quantized denoisers."""
    return [part for part in plan.components if part.name in plan.family.denoisers and part.blocks]


def count_parameters(component: ComponentPlan) -> int:
    """Returns the number of values of a component."""
    return sum(math.prod(component.checkpoint.shape(name)) for name in component.used_tensor_names)


def _leave_out_modules(tensors: Mapping[str, Tensor], solution: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of modules that a solution does not contain: a module is taken from the solution alone."""
    replaced = {name.rpartition(".")[0] for name in solution}
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in replaced}


def read_tuning(plan: QuantizationPlan, workspace: Workspace) -> dict[str, dict[str, TuningRecord]]:
    """Reads how components were tuned, by component and scheme."""
    records: dict[str, dict[str, TuningRecord]] = {}
    for component in list_tuned_components(plan):
        for scheme in (PRIMARY, *plan.settings.extra_schemes):
            file = workspace.tuned_file(component.name, scheme)
            if file.exists():
                records.setdefault(component.name, {})[scheme] = TuningRecord(**read_metadata(file))
    return records


def _describe(course: Course, samples: Samples, model: TrainableModel) -> TuningRecord:
    return TuningRecord(
        samples=len(samples.train),
        prompts=samples.prompts,
        validation_samples=len(samples.validation),
        validation_prompts=samples.validation_prompts,
        steps=max(course.validation),
        best_step=course.best_step,
        validation_before=course.validation[0],
        validation_after=course.validation[course.best_step],
        parameters=sum(parameter.numel() for parameter in model.parameters.values()),
    )


def _dequantize_embeddings(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors in which embeddings with 8-bit rows are replaced by what their codes stand for."""
    names = [name.removesuffix(".codes") for name in tensors if name.endswith(".codes")]
    rows = {name: Int8Rows(tensors[f"{name}.codes"], tensors[f"{name}.scales"]) for name in names}
    packed = {f"{name}.{kind}" for name in names for kind in Int8Rows._fields}
    embeddings = {f"{name}.weight": dequantize_rows(row) for name, row in rows.items()}
    return {name: tensor for name, tensor in tensors.items() if name not in packed} | embeddings
