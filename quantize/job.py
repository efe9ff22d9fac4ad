"""One quantization: its inputs, and the stages from calibration to the assembled model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..common.code_fingerprint import code_fingerprint
from ..common.executor import THIS_PROCESS, Executor
from ..common.progress import Progress
from ..pipelines.hub import DEMO_PIPELINE
from ..pipelines.sampling import SamplingParams
from ..prompts.prompt import Prompt, prompt_set_digest
from ..recipes.budget import parse_budget
from ..recipes.schema import PRIMARY, Recipe
from ..storage.files import FileRecord, hash_files
from ..storage.machine_check import MachineCheck, make_machine_check
from ..storage.manifest import LoraRecord, Manifest, library_versions
from ..storage.snapshot import FolderSnapshot
from ..storage.source_location import remove_places
from .algorithms.fp16_range import find_fp16_overflows
from .allocation.options import list_options
from .allocation.record import read_allocation
from .allocation.stage import COMPARING, Allocation, compute_limit, format_key
from .block_files import collect_layers, collect_overflows, save_block
from .calibration.collector import plan_image_batches, run_calibration
from .calibration.state import Calibration, load_block_calibration
from .calibration.validation_split import split_prompts
from .component_reuse import SharedComponent
from .compute_device import CPU, describe_device
from .confirmation import STAGE as CONFIRMING
from .confirmation import Confirmation, read_choice, variant_key
from .drift import DriftMeasurement
from .float_layers import warn_about_floats
from .matmul_dtype import choose_matmul_dtype
from .model_size import compute_savings, count_unquantized_bytes, estimate_solver_memory
from .plan import ComponentPlan, QuantBlock, QuantizationPlan, count_linear_weights
from .preflight import describe_quantization
from .solver.block import (
    BlockResult,
    list_schemes,
    quantize_block,
    quantize_block_formats,
    quantize_block_variants,
)
from .solver.candidates import MAX_REFINED_WEIGHTS
from .tuning.context import TuningContext
from .tuning.stage import read_tuning, run_tuning
from .workspace import Workspace, read_metadata
from .writer import (
    list_unquantized_modules,
    read_float_linears,
    read_linear_schemes,
    save_quantized_pipeline,
)


@dataclass(frozen=True)
class QuantizationJob:
    """One quantization, its inputs read and checked.

    Attributes:
        prompts: For calibration; images are generated for the first `recipe.calibration.count` of them.
        dtype: What the reference computes in.
        max_memory: Bytes.
        loras: The LoRAs that are merged into the weights of the plan.
        files: Every file of the source pipeline, once they have been read.
        snapshot: The files before that.
        reused: Components of other artifacts that take the place of those that would be quantized.
        device: Where PyTorch computes.
    """

    recipe: Recipe
    plan: QuantizationPlan
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    dtype: torch.dtype
    max_memory: int
    loras: Sequence[LoraRecord] = ()
    files: Sequence[FileRecord] = ()
    snapshot: FolderSnapshot | None = None
    reused: Sequence[SharedComponent] = ()
    device: torch.device = CPU

    @property
    def source_name(self) -> str:
        """The original pipeline as `--model` takes it, without its place on this machine."""
        model, source = self.recipe.model, self.plan.source.resolve()
        is_demo = model == "demo" and source == DEMO_PIPELINE.resolve()
        is_from_hub = f"models--{model.replace('/', '--')}" in source.parts  # a folder of the Hub's cache
        return model if is_demo or is_from_hub else source.name

    def collect_inputs(self) -> dict[str, Any]:
        """Returns everything that the result depends on, by topic, as JSON.

        Nothing else may be part of it, such as the memory or the names of prompt sets: work is thrown away where it
        changes.
        """
        reused = {part.component.name: part.record.model_dump() for part in self.reused}
        gpu = describe_device(self.device)  # whose products differ in their last bits
        return (
            ({"reused components": reused} if reused else {})
            | ({"GPU": gpu} if gpu else {})
            | {
                "version of edgepress": code_fingerprint(f"{__package__}.pipeline"),
                "versions of libraries": library_versions(),
                "recipe": {
                    "dtype": str(self.dtype),
                    "quantize": describe_quantization(self.recipe.quantize),
                    "sampling": self.sampling.to_dict(),
                    "images": min(self.recipe.calibration.count, len(self.prompts)),
                },
                "model family": repr(self.plan.family.components),
                "prompt set": prompt_set_digest(self.prompts),
                "LoRAs": [lora.model_dump() for lora in self.loras],
                "model": [file.model_dump() for file in self.files],
            }
        )

    def run(self, workspace: Workspace, progress: Progress, executor: Executor = THIS_PROCESS) -> None:
        """Calibrates, quantizes the missing blocks, and assembles the model in the workspace.

        Args:
            executor: Runs the quantization of blocks.
        """
        for part in self.reused:
            part.write_blocks(list_schemes(self.plan.settings), workspace)
        blocks = self.plan.blocks
        file = workspace.variants_file if self._has_variants else workspace.block_file
        missing = [block for block in blocks if not file(block.name).exists()]
        is_chosen = workspace.choice_file.exists() or workspace.allocation_file.exists()
        if self._has_variants and is_chosen:  # variants are removed once some of them are chosen
            missing = []
        if missing:
            calibration: Calibration | None = run_calibration(
                self.plan.leave_out([part.component.name for part in self.reused]),
                workspace,
                self.prompts,
                self.recipe.calibration.count,
                self.sampling,
                self.dtype,
                self.max_memory,
                progress,
                self.device,
            )
            done = len(blocks) - len(missing)
            progress("quantizing", done, len(blocks))
            if executor.is_remote:  # each process reads what its blocks need
                calibration = None
            prepare = partial(self._prepare_solving, workspace, calibration)
            solved = executor.map(prepare, missing, memory=estimate_solver_memory(self.plan))
            for number, _ in enumerate(solved, done + 1):
                progress("quantizing", number, len(blocks))
        self._choose_results(workspace, progress)
        if self.plan.settings.tune != "off":
            context = TuningContext(
                self.plan,
                workspace,
                self.prompts,
                self.sampling,
                self.dtype,
                self.max_memory,
                self._require_unchanged,
                progress,
                self.device,
            )
            run_tuning(context)
        save_quantized_pipeline(self.plan, self.files, workspace, self.dtype, progress)
        self._require_unchanged()

    def make_machine_check(self, workspace: Workspace) -> AbstractContextManager[MachineCheck]:
        """Makes a check that another machine has this version of edgepress, the model and the workspace."""
        return make_machine_check(f"{__package__}.pipeline", [self.plan.source], [workspace.folder])

    @property
    def _has_variants(self) -> bool:
        """Whether a block is quantized in several ways, of which one is chosen later."""
        return self.plan.settings.chooses_steps or self.plan.settings.budget is not None

    def _prepare_solving(self, workspace: Workspace, calibration: Calibration | None) -> Callable[[QuantBlock], None]:
        """Returns a function that quantizes a block and stores it.

        Args:
            workspace: Where it is stored.
            calibration: What was gathered; None: it is read from the workspace, for each block what that needs.
        """
        file = workspace.variants_file if self._has_variants else workspace.block_file

        def solve(block: QuantBlock) -> None:
            gathered = calibration or load_block_calibration(workspace, block.name, self.plan.settings.chooses_steps)
            component, block = self.plan.get_component(block.component), gathered.group_linears(block)
            results = self._quantize_block(component, block, gathered)
            self._require_unchanged()  # blocks are stored for the files that were hashed
            save_block(results, find_fp16_overflows(block, gathered.abs_max_by_module), file(block.name))
            warn_about_floats(block, next(iter(results.values())))

        return solve

    def _quantize_block(
        self, component: ComponentPlan, block: QuantBlock, calibration: Calibration
    ) -> dict[str, BlockResult]:
        """Quantizes a block; returns results by scheme or, where validation chooses, by variant and scheme."""
        settings, matmul_dtype = self.plan.settings, choose_matmul_dtype(self.dtype, self.device)
        if settings.budget is not None:
            formats = {format_key(name): scheme for name, scheme in list_options(settings.scheme).items()}
            return quantize_block_formats(component, block, calibration, settings, matmul_dtype, formats)
        if not settings.chooses_steps:
            return quantize_block(component, block, calibration, settings, matmul_dtype)
        refines = count_linear_weights(component) <= MAX_REFINED_WEIGHTS
        variants = quantize_block_variants(component, block, calibration, settings, matmul_dtype, refines)
        return {
            name if list_schemes(settings)[name].quantizes_activations else variant_key(variant, name): result
            for variant, results in variants.items()
            for name, result in results.items()
        }

    def _choose_results(self, workspace: Workspace, progress: Progress) -> None:
        """Where blocks have several results, makes some of them those of the model."""
        if self.plan.settings.chooses_steps:
            measurement = self._measure_drift(workspace, progress, CONFIRMING)
            Confirmation(self.plan, workspace, measurement).run(self._require_unchanged)
        if self.plan.settings.budget is not None:
            self._allocate(workspace, progress)

    def _measure_drift(self, workspace: Workspace, progress: Progress, stage: str) -> DriftMeasurement:
        split = split_prompts(self.prompts, self.recipe.calibration.count, validates=True)
        batches = plan_image_batches(split, self.sampling)
        return DriftMeasurement(workspace, batches, self.sampling, self.dtype, progress, stage, self.device)

    def _allocate(self, workspace: Workspace, progress: Progress) -> None:
        """Distributes the budget over the linears, and makes the chosen formats those of the model."""
        split = split_prompts(self.prompts, self.recipe.calibration.count, validates=True)
        measurement = self._measure_drift(workspace, progress, COMPARING)
        limit = self.limit_linears()
        allocation = Allocation(
            self.plan, workspace, split.images, self.sampling, self.dtype, limit, measurement, progress
        )
        allocation.run(self._require_unchanged)

    def limit_linears(self) -> int:
        """Returns the bytes that the budget leaves to the quantized linears.

        Raises:
            UserError: The smallest formats take more.
        """
        assert self.plan.settings.budget is not None
        return compute_limit(
            self.plan, parse_budget(self.plan.settings.budget), count_unquantized_bytes(self.plan, self.dtype)
        )

    def _require_unchanged(self) -> None:
        if self.snapshot is not None:
            self.snapshot.require_unchanged()

    def build_manifest(self, workspace: Workspace) -> Manifest:
        plan = self.plan
        blocks = [read_metadata(workspace.block_file(block.name)) for block in plan.blocks]
        files = hash_files(workspace.model_folder)
        float_linears = {part.name: read_float_linears(part, workspace) for part in plan.components}
        folders = sorted({file.path.split("/")[0] for file in [*self.files, *files] if "/" in file.path})
        return Manifest(
            device=self.recipe.device,
            gpu=describe_device(self.device),
            key=workspace.key,
            source=self.source_name,
            recipe=remove_places(self.recipe.model_dump(mode="json"))
            | {"model": self.source_name, "loras": [str(lora) for lora in self.loras]},
            prompts_sha256=prompt_set_digest(self.prompts),
            sources=list(self.files),
            loras=list(self.loras),
            files=files,
            layers=collect_layers(blocks, PRIMARY),
            extra_scheme_layers={name: collect_layers(blocks, name) for name in plan.settings.extra_schemes},
            num_unquantized=sum(
                len(list_unquantized_modules(part, float_linears[part.name])) for part in plan.components
            ),
            sizes={
                folder: {"before": _count_bytes(self.files, folder), "after": _count_bytes(files, folder)}
                for folder in folders
            },
            size_savings={
                part.name: compute_savings(
                    part, plan, self.dtype, float_linears[part.name], read_linear_schemes(part, plan, workspace)
                )
                for part in plan.components
            },
            fp16_overflows=collect_overflows(blocks) if plan.settings.fp16_safe else [],
            tuning=read_tuning(plan, workspace),
            choice=read_choice(workspace),
            reused={part.component.name: part.record for part in self.reused},
            allocation=read_allocation(workspace),
            versions=library_versions(),
        )


def _count_bytes(files: Sequence[FileRecord], folder: str) -> int:
    return sum(file.bytes for file in files if file.path.startswith(f"{folder}/"))
