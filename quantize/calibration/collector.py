"""Calibration: runs the reference model over prompts and gathers statistics of the inputs of quantized linears.

Components that only read the prompt run over all prompts. The denoiser generates images for the first of them, over all
steps. The statistics are H matrices where those of a component are not too large; otherwise equal samples of tokens
from every call are stored on disk. Which of the two does not depend on the memory of a run, and so neither does the
result: with less memory, H matrices are mapped from disk. Where a recipe quantizes activations, some tokens are kept
beside H.

Work is stored after calls of the denoiser, and after batches of prompts for the other components. A resumed run replays
the stored outputs of the denoiser's finished calls instead of computing them again.
"""

from __future__ import annotations

import hashlib
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
from ...pipelines.sampling import PIXELS_PER_BATCH, SamplingParams, batched, generate_images
from ...prompts.prompt import Prompt
from ...storage.atomic_file import atomic_write
from ...storage.checkpoint import write_tensors
from ..plan import ComponentPlan, QuantBlock, QuantizationPlan
from ..workspace import Workspace
from .state import Calibration, load_denoiser_outputs, load_state, save_state
from .statistics import ACTIVATION_TOKENS, ActivationStats, map_matrix
from .streaming import load_streaming_pipeline, stop_at_denoiser

SAVE_INTERVAL_S = 20.0  # a killed calibration loses at most this and one call
HESSIAN_BYTES = DEFAULT_MAX_MEMORY // 4  # the most that H matrices of one component may take; larger ones are sampled
HESSIAN_MEMORY_SHARE = 0.25  # of the memory limit, for the H matrices of one component; larger ones are mapped
TOKENS_PER_INPUT = 4096  # that stand for an input whose H is too large to store
# Pixels generated at once: four times as many as elsewhere, since each batch reads all blocks from disk in every step.
CALIBRATION_PIXELS = 4 * PIXELS_PER_BATCH
PROMPTS_PER_BATCH = 32  # through the text encoders


def run_calibration(
    plan: QuantizationPlan,
    workspace: Workspace,
    prompts: Sequence[Prompt],
    num_images: int,
    sampling: SamplingParams,
    dtype: torch.dtype,
    max_memory: int,
    progress: Progress,
) -> Calibration:
    """Gathers statistics of every input that the plan needs.

    Resumes what an interrupted run stored in the workspace. Sums are added in the same order, so that the result is the
    same to the bit.

    Args:
        prompts: For the components that only read the prompt.
        num_images: How many of the prompts, from the first, images are generated for.
        dtype: What the reference computes in.
        max_memory: Bytes that the whole run may take. They decide where H matrices are, and not what they hold.

    Raises:
        UserError: Activations are not finite, or no token reached an input.
    """
    run = _CalibrationRun(plan, workspace, sampling, dtype, max_memory, progress)
    components = {block.component for block in plan.blocks}
    if components - {plan.family.denoiser}:
        run.calibrate_text_encoders(list(batched(prompts, PROMPTS_PER_BATCH)))
    if plan.family.denoiser in components:
        batch_size = max(1, CALIBRATION_PIXELS // (sampling.height * sampling.width))
        run.calibrate_denoiser(list(batched(prompts[:num_images], batch_size)))
    run.check()
    return Calibration(workspace, run.state)


class _CalibrationRun:
    """The part of a calibration that this process computes.

    Attributes:
        stores_hessian: Whether H is stored for the inputs of a component, by its name.
        allocate: Makes a matrix of zeros for an H.
        outputs: What the finished calls of the denoiser returned, in the current batch.
        tokens_per_call: Tokens of an input that one call adds to the sample which stands for H.
        extra_tokens_per_call: Tokens of an input that one call adds to the sample beside H.
    """

    def __init__(
        self,
        plan: QuantizationPlan,
        workspace: Workspace,
        sampling: SamplingParams,
        dtype: torch.dtype,
        max_memory: int,
        progress: Progress,
    ) -> None:
        self.plan, self.workspace, self.sampling, self.dtype = plan, workspace, sampling, dtype
        sizes = {component.name: compute_hessian_bytes(component) for component in plan.components}
        self.stores_hessian = {name: size <= HESSIAN_BYTES for name, size in sizes.items()}
        share = HESSIAN_MEMORY_SHARE * max_memory
        is_mapped = any(share < size <= HESSIAN_BYTES for size in sizes.values())
        self.allocate: Callable[[int, int], Tensor] = (
            partial(map_matrix, workspace.folder) if is_mapped else torch.zeros
        )
        self.state = load_state(workspace, self.allocate)
        self.outputs = load_denoiser_outputs(workspace, self.state)
        self.last_saved = time.monotonic()
        self.tokens_per_call = 0
        self.extra_tokens_per_call = 0
        self._counter = _BlockCounter(progress)

    @cached_property
    def pipeline(self) -> Any:
        return load_streaming_pipeline(self.plan, self.dtype)

    @property
    def denoiser(self) -> nn.Module:
        model: nn.Module = getattr(self.pipeline, self.plan.family.denoiser)
        return model

    def calibrate_text_encoders(self, batches: list[Sequence[Prompt]]) -> None:
        """Runs everything before the denoiser over batches of prompts."""
        denoiser = self.plan.family.denoiser
        components = [part for part in self.plan.components if part.blocks and part.name != denoiser]
        self._start("calibrating on prompts", components, len(batches), self.state.text_batches)
        for number in range(self.state.text_batches, len(batches)):
            with self.observe(components, number), stop_at_denoiser(self.denoiser):
                generate_images(self.pipeline, batches[number], self.sampling, output_type="latent")
            self.state.text_batches = number + 1
            self.save(force=number + 1 == len(batches))

    def calibrate_denoiser(self, batches: list[Sequence[Prompt]]) -> None:
        """Generates the latents of batches of images."""
        steps, component = self.sampling.steps, self.plan.get_component(self.plan.family.denoiser)
        finished = self.state.image_batches * steps + self.state.denoiser_calls
        self._start("calibrating on images", [component], len(batches) * steps, finished)
        for number in range(self.state.image_batches, len(batches)):
            with self.replay_finished_calls(component):
                generate_images(self.pipeline, batches[number], self.sampling, output_type="latent")
            self.state.image_batches, self.state.denoiser_calls, self.outputs = number + 1, 0, []
            self.save(force=number + 1 == len(batches))

    def _start(self, stage: str, components: Sequence[ComponentPlan], calls: int, finished: int) -> None:
        blocks = sum(len(component.blocks) for component in components)
        self.tokens_per_call = -(-TOKENS_PER_INPUT // calls)
        extra_tokens = ACTIVATION_TOKENS if self.plan.settings.quantizes_activations else 0
        self.extra_tokens_per_call = -(-extra_tokens // calls)
        self._counter.start(stage, finished * blocks, calls * blocks)

    @contextmanager
    def replay_finished_calls(self, component: ComponentPlan) -> Iterator[None]:
        """Returns the stored outputs of the denoiser's finished calls, then computes and observes the others."""
        denoiser, finished = self.denoiser, iter(list(self.outputs))
        compute = denoiser.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            for output in finished:
                return output
            call = self.state.image_batches * self.sampling.steps + self.state.denoiser_calls
            with self.observe([component], call):
                self.outputs.append(compute(*args, **kwargs))
            self.state.denoiser_calls += 1
            self.save()
            return self.outputs[-1]

        denoiser.forward = forward
        try:
            yield
        finally:
            denoiser.forward = compute

    @contextmanager
    def observe(self, components: Sequence[ComponentPlan], call: int) -> Iterator[None]:
        """Adds the inputs of the components' linears to the statistics while the pipeline runs."""
        handles = []
        for component in components:
            model: nn.Module = getattr(self.pipeline, component.name)
            mask: dict[str, Tensor | None] = {"tokens": None}
            handles.append(model.register_forward_pre_hook(_mask_hook(mask), with_kwargs=True))
            for block in component.blocks:
                handles += _BlockObserver(self, block, mask, call).register_hooks(model)
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
            file = self.workspace.denoiser_outputs_file(self.state.image_batches)
            atomic_write(file, lambda path: torch.save(self.outputs, path))
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
    inputs = [block.input_module(fold) for block in component.blocks for fold in block.spec.folds]
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


def _mask_hook(mask: dict[str, Tensor | None]) -> Callable[..., None]:
    """Records which tokens of a padded text batch are real; the pipeline discards the others."""

    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        attention_mask = kwargs.get("attention_mask")
        mask["tokens"] = (
            attention_mask.bool() if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None
        )

    return hook


class _BlockObserver:
    """Records one call of a block: sums, largest magnitudes and, where H is too large, some tokens in a file.

    Attributes:
        runs: How often the block ran in this call; with guidance the text encoder reads two batches.
    """

    def __init__(self, run: _CalibrationRun, block: QuantBlock, mask: dict[str, Tensor | None], call: int) -> None:
        self.run, self.block, self.mask, self.call = run, block, mask, call
        self.real_tokens: Tensor | None = None
        self.sampled_tokens: dict[str, Tensor] = {}
        self.runs = 0

    def register_hooks(self, model: nn.Module) -> list[Any]:
        block = model.get_submodule(self.block.path)
        handles = [block.register_forward_pre_hook(self.find_real_tokens, with_kwargs=True)]
        inputs = [self.block.input_module(fold) for fold in self.block.spec.folds]
        handles += [model.get_submodule(path).register_forward_pre_hook(self.input_hook(path)) for path in inputs]
        outputs = [*self.block.linears, self.block.path]
        handles += [model.get_submodule(path).register_forward_hook(self.output_hook(path)) for path in outputs]
        return [*handles, block.register_forward_hook(self.write_sampled_tokens)]

    def find_real_tokens(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Finds which tokens are real: by a boolean argument of the block with a value for each token of its input."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        masks = [value for value in tensors if value.dtype == torch.bool and value.shape == tensors[0].shape[:-1]]
        self.real_tokens = masks[0] if masks else self.mask["tokens"]

    def input_hook(self, path: str) -> Callable[..., None]:
        name = f"{self.block.component}.{path}"

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            tokens = self.select_real_tokens(args[0])
            stats_by_input = self.run.state.stats_by_input
            if name not in stats_by_input:
                stores_hessian = self.run.stores_hessian[self.block.component]
                width = tokens.shape[-1]
                hessian = self.run.allocate(width, width) if stores_hessian else None
                stats_by_input[name] = ActivationStats.empty(width, hessian)
            stats_by_input[name].add(tokens)
            self.update_abs_max(f"{name}:in", args[0])
            self.store_tokens(name, tokens)

        return hook

    def store_tokens(self, name: str, tokens: Tensor) -> None:
        """Samples some tokens: for the disk where they stand for H, otherwise to be kept beside H."""
        stats = self.run.state.stats_by_input[name]
        count = self.run.tokens_per_call if stats.hessian is None else self.run.extra_tokens_per_call
        if count:
            sample = tokens[sample_indices(len(tokens), count, f"{name}:{self.call}:{self.runs}")]
            if stats.hessian is None:
                self.sampled_tokens[name] = sample
            else:
                stats.keep_tokens(sample)

    def output_hook(self, path: str) -> Callable[..., None]:
        name = f"{self.block.component}.{path}"

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.update_abs_max(name, output[0] if isinstance(output, tuple) else output)

        return hook

    def update_abs_max(self, name: str, x: Tensor) -> None:
        """Records the largest |x|, padding included: NaN in padding spreads, even through a mask of zeros."""
        peaks = self.run.state.abs_max_by_module
        low, high = x.detach().aminmax()
        peaks[name] = max(peaks.get(name, 0.0), -float(low), float(high))

    def select_real_tokens(self, x: Tensor) -> Tensor:
        """Returns the real tokens (n, channels) of a batch."""
        x = x.detach()
        return x.reshape(-1, x.shape[-1]) if self.real_tokens is None else x[self.real_tokens]

    def write_sampled_tokens(self, *_: Any) -> None:
        if self.sampled_tokens:
            file = self.run.workspace.new_sample_file(self.block.name, self.call, self.runs)
            write_tensors(self.sampled_tokens, file)
            self.sampled_tokens = {}
        self.runs += 1


def sample_indices(num_tokens: int, count: int, name: str) -> Tensor:
    """Draws `count` of `num_tokens` tokens, sorted. The draw depends on the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(num_tokens, generator=generator)[:count].sort().values
