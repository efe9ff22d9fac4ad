"""Calibration: runs the reference model over prompts and gathers statistics of the inputs of quantized linears.

Components that only read the prompt run over all prompts. The denoiser generates images for the first of them, over all
steps. The statistics are H matrices where those of a component are not too large; otherwise equal samples of tokens
from every call are stored on disk. Which of the two does not depend on the memory of a run, and so neither does the
result: with less memory, H matrices are mapped from disk. Where a recipe quantizes activations, some tokens are kept
beside H.

Where validation chooses the steps, some prompts are held out: their tokens are in no statistics, and some of them are
kept to judge what was solved. Large tokens then count less in H.

Work is stored after calls of the denoiser, and after batches of prompts for the other components. A resumed run replays
the stored outputs of the denoiser's finished calls instead of computing them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.memory import DEFAULT_MAX_MEMORY
from ...common.progress import Progress
from ...pipelines.call_arguments import takes_one_prompt
from ...pipelines.sampling import PIXELS_PER_BATCH, SamplingParams, batched, generate_images
from ...prompts.prompt import Prompt
from ..compute_device import CPU
from ..plan import ComponentPlan, QuantizationPlan
from ..workspace import Workspace
from .observer import BlockObserver
from .padding import without_padding
from .state import (
    Calibration,
    load_denoiser_outputs,
    load_state,
    save_denoiser_outputs,
    save_reference_outputs,
    save_state,
)
from .statistics import ACTIVATION_TOKENS, VALIDATION_TOKENS, map_matrix
from .streaming import load_streaming_pipeline, stop_at_denoiser, stream_or_load
from .validation_split import CalibrationBatch, PromptSplit, plan_batches, split_prompts

SAVE_INTERVAL_S = 20.0  # a killed calibration loses at most this and one call
HESSIAN_BYTES = DEFAULT_MAX_MEMORY // 4  # the most that H matrices of one component may take; larger ones are sampled
HESSIAN_MEMORY_SHARE = 0.25  # of the memory limit, for the H matrices of one component; larger ones are mapped
TOKENS_PER_INPUT = 4096  # that stand for an input whose H is too large to store
# Pixels generated at once: four times as many as elsewhere, since each batch reads all blocks from disk in every step.
CALIBRATION_PIXELS = 4 * PIXELS_PER_BATCH
PROMPTS_PER_BATCH = 32  # through the text encoders


def plan_image_batches(split: PromptSplit, sampling: SamplingParams) -> list[CalibrationBatch]:
    """Returns the batches of prompts that images are generated for."""
    size = max(1, CALIBRATION_PIXELS // (sampling.height * sampling.width))
    return plan_batches(split.images, split.held_out, size)


def run_calibration(
    plan: QuantizationPlan,
    workspace: Workspace,
    prompts: Sequence[Prompt],
    num_images: int,
    sampling: SamplingParams,
    dtype: torch.dtype,
    max_memory: int,
    progress: Progress,
    device: torch.device = CPU,
) -> Calibration:
    """Gathers statistics of every input that the plan needs.

    Resumes what an interrupted run stored in the workspace. Sums are added in the same order, so that the result is the
    same to the bit.

    Args:
        prompts: For the components that only read the prompt.
        num_images: How many of the prompts, from the first, images are generated for.
        dtype: What the reference computes in.
        max_memory: Bytes that the whole run may take. They decide where H matrices are, and not what they hold.
        device: Where the reference runs. The statistics stay there.

    Raises:
        UserError: Activations are not finite, or no token reached an input.
    """
    arguments = (plan, workspace, prompts, num_images, sampling, dtype, max_memory, progress, device)
    return stream_or_load(plan, partial(_calibrate, *arguments))


def _calibrate(
    plan: QuantizationPlan,
    workspace: Workspace,
    prompts: Sequence[Prompt],
    num_images: int,
    sampling: SamplingParams,
    dtype: torch.dtype,
    max_memory: int,
    progress: Progress,
    device: torch.device,
    streams: bool,
) -> Calibration:
    """Calibrates as `run_calibration` does, with blocks left on disk until they run or with all of them in memory."""
    run = _CalibrationRun(plan, workspace, sampling, dtype, max_memory, progress, device, streams)
    components = {block.component for block in plan.blocks}
    split = split_prompts(prompts, num_images, plan.settings.holds_out_prompts)
    if components - set(plan.family.denoisers):
        run.calibrate_text_encoders(plan_batches(split.texts, split.held_out, PROMPTS_PER_BATCH))
    if components & set(plan.family.denoisers):
        run.calibrate_denoisers(plan_image_batches(split, sampling))
    run.check()
    return Calibration(workspace, run.state, plan.settings.chooses_steps, device)


class _CalibrationRun:
    """The part of a calibration that this process computes.

    Attributes:
        device: Where the pipeline is, and with it the statistics.
        streams: Whether blocks are left on disk until they run.
        stores_hessian: Whether H is stored for the inputs of a component, by its name.
        allocate: Makes a matrix of zeros for an H.
        outputs: What the finished calls of denoisers returned, in the current batch.
        tokens_per_call: Tokens of an input that one call adds to the sample which stands for H.
        extra_tokens_per_call: Tokens of an input that one call adds to the sample beside H.
        validation_tokens_per_call: Tokens of an input that one call of prompts that are held out adds.
        validates: Whether the prompts that run now are held out.
    """

    def __init__(
        self,
        plan: QuantizationPlan,
        workspace: Workspace,
        sampling: SamplingParams,
        dtype: torch.dtype,
        max_memory: int,
        progress: Progress,
        device: torch.device,
        streams: bool,
    ) -> None:
        self.plan, self.workspace, self.sampling, self.dtype = plan, workspace, sampling, dtype
        self.device, self.streams = device, streams
        sizes = {component.name: compute_hessian_bytes(component) for component in plan.components}
        self.stores_hessian = {name: size <= HESSIAN_BYTES for name, size in sizes.items()}
        share = HESSIAN_MEMORY_SHARE * max_memory
        is_mapped = device == CPU and any(share < size <= HESSIAN_BYTES for size in sizes.values())
        self.allocate: Callable[[int, int], Tensor] = (
            partial(map_matrix, workspace.folder) if is_mapped else partial(torch.zeros, device=device)
        )
        self.state = load_state(workspace, self.allocate, device=device)
        self.outputs = load_denoiser_outputs(workspace, self.state, device)
        self.last_saved = time.monotonic()
        self.tokens_per_call = 0
        self.extra_tokens_per_call = 0
        self.validation_tokens_per_call = 0
        self.validates = False
        self._counter = _BlockCounter(progress)

    @cached_property
    def pipeline(self) -> Any:
        return load_streaming_pipeline(self.plan, self.dtype, self.streams, self.device)

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """The denoisers of the pipeline, by name."""
        names = self.plan.family.denoisers
        return {name: getattr(self.pipeline, name) for name in names if getattr(self.pipeline, name) is not None}

    def _get_models(self, components: Sequence[ComponentPlan]) -> list[nn.Module]:
        return [getattr(self.pipeline, component.name) for component in components]

    def calibrate_text_encoders(self, batches: list[CalibrationBatch]) -> None:
        """Runs everything before the denoisers over batches of prompts."""
        denoisers = self.plan.family.denoisers
        components = [part for part in self.plan.components if part.blocks and part.name not in denoisers]
        self._start("calibrating on prompts", components, batches, 1, self.state.text_batches)
        for number in range(self.state.text_batches, len(batches)):
            self.validates = batches[number].validates
            size = 1 if takes_one_prompt(self.pipeline) else PROMPTS_PER_BATCH
            # Padding that is left out may have activations that float16 cannot hold, and NaN passes through masks.
            trims = not self.plan.settings.fp16_safe
            models = self._get_models(components) if trims else ()
            with without_padding(*models), self.observe(components, number):
                for prompts in batched(batches[number].prompts, size):
                    with stop_at_denoiser(*self.denoisers.values()):
                        generate_images(self.pipeline, prompts, self.sampling, output_type="latent")
            self.state.text_batches = number + 1
            self.save(force=number + 1 == len(batches))

    def calibrate_denoisers(self, batches: list[CalibrationBatch]) -> None:
        """Generates the latents of batches of images.

        Most pipelines call one denoiser once in a step. Where there are more calls, of another denoiser or for
        guidance, the progress goes beyond what was expected.
        """
        steps, denoisers = self.sampling.steps, self.plan.family.denoisers
        components = [part for part in self.plan.components if part.name in denoisers]
        finished = self.state.earlier_calls + self.state.denoiser_calls
        self._start("calibrating on images", components, batches, steps, finished)
        for number in range(self.state.image_batches, len(batches)):
            self.validates = batches[number].validates
            with self.replay_finished_calls():
                generate_images(self.pipeline, batches[number].prompts, self.sampling, output_type="latent")
            if self.validates:
                save_reference_outputs(self.workspace, number, self.outputs)
            self.state.earlier_calls += self.state.denoiser_calls
            self.state.image_batches, self.state.denoiser_calls, self.outputs = number + 1, 0, []
            self.save(force=number + 1 == len(batches))

    def _start(
        self,
        stage: str,
        components: Sequence[ComponentPlan],
        batches: Sequence[CalibrationBatch],
        calls_per_batch: int,
        finished: int,
    ) -> None:
        blocks = sum(len(component.blocks) for component in components)
        held_out = calls_per_batch * sum(batch.validates for batch in batches)
        calls = calls_per_batch * len(batches) - held_out
        self.tokens_per_call = -(-TOKENS_PER_INPUT // calls)
        extra_tokens = ACTIVATION_TOKENS if self.plan.settings.quantizes_activations else 0
        self.extra_tokens_per_call = -(-extra_tokens // calls)
        self.validation_tokens_per_call = -(-VALIDATION_TOKENS // max(1, held_out))
        self._counter.start(stage, finished * blocks, (calls + held_out) * blocks)

    @contextmanager
    def replay_finished_calls(self) -> Iterator[None]:
        """Returns the stored outputs of the denoisers' finished calls, then computes and observes the others."""
        finished = iter(list(self.outputs))
        originals = {name: model.forward for name, model in self.denoisers.items()}
        for name, model in self.denoisers.items():
            model.forward = partial(self._forward, name, originals[name], finished)
        try:
            yield
        finally:
            for name, model in self.denoisers.items():
                model.forward = originals[name]

    def _forward(
        self, name: str, compute: Callable[..., Any], finished: Iterator[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Calls a denoiser and stores what it returns, unless an earlier run did."""
        for output in finished:
            return output
        components = [part for part in self.plan.components if part.name == name]
        with self.observe(components, self.state.earlier_calls + self.state.denoiser_calls):
            self.outputs.append(compute(*args, **kwargs))
        self.state.denoiser_calls += 1
        self.save()
        return self.outputs[-1]

    @contextmanager
    def observe(self, components: Sequence[ComponentPlan], call: int) -> Iterator[None]:
        """Adds the inputs of the components' linears to the statistics while the pipeline runs."""
        handles = []
        for component, model in zip(components, self._get_models(components), strict=True):
            masks: list[Tensor] = []
            handles.append(model.register_forward_pre_hook(_mask_hook(masks), with_kwargs=True))
            for block in component.blocks:
                handles += BlockObserver(self, block, masks, call).register_hooks(model)
                handles.append(model.get_submodule(block.path).register_forward_hook(self._counter.count_block))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, force: bool = False) -> None:
        """Stores what is finished, every `SAVE_INTERVAL_S` seconds or at once with `force`."""
        if force or time.monotonic() - self.last_saved > SAVE_INTERVAL_S:
            self.check()
            # The outputs go first, into a file of their batch: the state must never count calls whose output is lost.
            save_denoiser_outputs(self.workspace, self.state, self.outputs)
            save_state(self.workspace, self.state)
            self.last_saved = time.monotonic()

    def check(self) -> None:
        """Raises UserError where statistics cannot be used. Such statistics are never stored."""
        for name, stats in self.state.stats_by_input.items():
            if not stats.count:
                raise UserError(f"Calibration reached no token at {name}. Check the model's tokenizer folder.")
            if not stats.is_finite():
                raise UserError(
                    f"The reference model produced NaN or infinite activations at the input of {name}. "
                    "Set dtype: float32 or bfloat16 in the recipe, and check that the model is intact."
                )


def compute_hessian_bytes(component: ComponentPlan) -> int:
    """Returns the bytes of the float32 H matrices of a component's inputs."""
    inputs = [block.input_module(group) for block in component.blocks for group in block.groups]
    widths = [component.checkpoint.shape(f"{path}.weight")[1] for path in inputs]
    return sum(4 * width * width for width in widths)


class _BlockCounter:
    """Counts blocks that have run and reports them as progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.stage, self.done, self.total = "", 0, 0

    def start(self, stage: str, done: int, total: int) -> None:
        self.stage, self.done, self.total = stage, done, total
        self.progress(stage, done, total)

    def count_block(self, *_: Any) -> None:
        self.done += 1
        self.progress(self.stage, self.done, self.total)


def _mask_hook(masks: list[Tensor]) -> Callable[..., None]:
    """Records which tokens of a call are real: the pipeline discards the others, or nothing attends to them."""

    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        values = [value for name, value in kwargs.items() if "mask" in name and isinstance(value, Tensor)]
        masks[:] = [value.bool() for value in values if value.ndim == 2 and not value.is_floating_point()]

    return hook
