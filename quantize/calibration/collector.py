"""Calibration: the reference runs once over the prompts, and every quantized layer's input leaves its statistics.

Components that only read the prompt run over all prompts of the set; the denoiser paints the first `count` of them,
over all steps. Statistics are Gram matrices where those of a component fit a share of the memory, and else equal
samples of tokens from every call, on disk. Where a recipe rounds activations, some tokens are kept beside the matrices.

A call of the denoiser, or a batch of prompts through the rest, is the unit of this work. Finished calls are stored with
what they returned; a run that goes on is handed those outputs again instead of computing them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.progress import Progress
from ...pipelines.sampling import PIXELS_PER_BATCH, SamplingParams, batched, generate_images
from ...prompts.prompt import Prompt
from ...storage.checkpoint import write_tensors
from ...storage.files import atomic_write
from ..plan import ComponentPlan, QuantBlock, QuantizationPlan
from ..workspace import Workspace
from .state import Calibration, load_denoiser_outputs, load_state, save_state
from .statistics import ACTIVATION_TOKENS, ActivationStats
from .streaming import load_streaming_pipeline, stop_at_denoiser

SAVE_INTERVAL_S = 20.0  # seconds; a killed calibration loses at most this and one call
HESSIAN_MEMORY_SHARE = 0.25  # of the memory may be taken by a component's Gram matrices
TOKENS_PER_INPUT = 4096  # that stand for an input where its Gram matrix is too large to keep
PIXELS_PER_BATCH = 4 * PIXELS_PER_BATCH  # pixels painted at once: each batch reads all blocks from disk once a step
PROMPTS_PER_BATCH = 32  # that the text encoder reads


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
    """Statistics of every input that the plan needs; the first `painted` prompts are painted.

    Goes on from what an interrupted run stored in `work`; sums are added in the same order, so that the result is the
    same to the bit.

    Raises:
        UserError: activations that are not finite, inputs that no token reached.
    """
    run = _CalibrationRun(plan, workspace, sampling, dtype, max_memory, progress)
    names = {unit.component for unit in plan.blocks}
    if names - {plan.family.denoiser}:
        run.calibrate_text_encoder(list(batched(prompts, PROMPTS_PER_BATCH)))
    if plan.family.denoiser in names:
        run.calibrate_denoiser(
            list(batched(prompts[:num_images], max(1, PIXELS_PER_BATCH // (sampling.height * sampling.width))))
        )
    run.check()
    return Calibration(workspace, run.state)


class _CalibrationRun:
    """One process's part of a calibration."""

    def __init__(
        self,
        plan: QuantizationPlan,
        workspace: Workspace,
        sampling: SamplingParams,
        dtype: torch.dtype,
        memory: int,
        progress: Progress,
    ) -> None:
        self.plan, self.work, self.sampling, self.dtype, self.progress = plan, workspace, sampling, dtype, progress
        self.state = load_state(workspace)
        self.stores_hessian = {part.name: hessians_fit(part, memory) for part in plan.components}
        self.outputs = load_denoiser_outputs(workspace, self.state)
        self.last_saved = time.monotonic()
        self.tokens_per_call = self.extra_tokens_per_call = (
            0  # tokens of an input that one call leaves in the sample, and beside a Gram matrix
        )
        self._blocks = _BlockCounter(progress)

    @cached_property
    def pipeline(self) -> Any:
        return load_streaming_pipeline(self.plan, self.dtype)

    @property
    def denoiser(self) -> nn.Module:
        found: nn.Module = getattr(self.pipeline, self.plan.family.denoiser)
        return found

    def calibrate_text_encoder(self, parts: list[Sequence[Prompt]]) -> None:
        """Runs what comes before the denoiser over batches of prompts."""
        read = [part for part in self.plan.components if part.blocks and part.name != self.plan.family.denoiser]
        self._start("calibrating on prompts", read, len(parts), self.state.text_batches)
        for number in range(self.state.text_batches, len(parts)):
            with self.observe(read, number), stop_at_denoiser(self.denoiser):
                generate_images(self.pipeline, parts[number], self.sampling, output_type="latent")
            self.state.text_batches = number + 1
            self.save(number + 1 == len(parts))

    def calibrate_denoiser(self, parts: list[Sequence[Prompt]]) -> None:
        """Paints batches of prompts, as far as the decoder."""
        steps, painter = self.sampling.steps, self.plan.get_component(self.plan.family.denoiser)
        self._start(
            "calibrating on pictures",
            [painter],
            len(parts) * steps,
            self.state.image_batches * steps + self.state.denoiser_calls,
        )
        for number in range(self.state.image_batches, len(parts)):
            with self.replay_finished_calls(painter):
                generate_images(self.pipeline, parts[number], self.sampling, output_type="latent")
            self.state.image_batches, self.state.denoiser_calls, self.outputs = number + 1, 0, []
            self.save(number + 1 == len(parts))

    def _start(self, stage: str, parts: Sequence[ComponentPlan], calls: int, finished: int) -> None:
        blocks = sum(len(part.blocks) for part in parts)
        self.tokens_per_call = -(-TOKENS_PER_INPUT // calls)
        self.extra_tokens_per_call = (
            -(-ACTIVATION_TOKENS // calls) if self.plan.quantization.quantizes_activations else 0
        )
        self._blocks.start(stage, finished * blocks, calls * blocks)

    @contextmanager
    def replay_finished_calls(self, painter: ComponentPlan) -> Iterator[None]:
        """Watches the denoiser's calls, and hands out again what those returned that are finished."""
        denoiser, handed = self.denoiser, iter(list(self.outputs))
        compute = denoiser.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            for output in handed:
                return output
            with self.observe([painter], self.state.image_batches * self.sampling.steps + self.state.denoiser_calls):
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
    def observe(self, parts: Sequence[ComponentPlan], call: int) -> Iterator[None]:
        """Adds the inputs of the parts' layers to what was found while the pipeline runs."""
        handles = []
        for part in parts:
            model: nn.Module = getattr(self.pipeline, part.name)
            mask: dict[str, Tensor | None] = {"tokens": None}
            handles.append(model.register_forward_pre_hook(_mask_hook(mask), with_kwargs=True))
            for unit in part.blocks:
                handles += _BlockObserver(self, unit, mask, call).hooks(model)
                handles.append(model.get_submodule(unit.path).register_forward_hook(self._blocks.count_block))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, now: bool = False) -> None:
        """Stores what is finished, every now and then."""
        if now or time.monotonic() - self.last_saved > SAVE_INTERVAL_S:
            self.check()
            # Outputs of a batch are stored first, in a file of the batch: the state never counts calls they lack.
            atomic_write(
                self.work.denoiser_outputs_file(self.state.image_batches), lambda path: torch.save(self.outputs, path)
            )
            save_state(self.work, self.state)
            self.last_saved = time.monotonic()

    def check(self) -> None:
        """Raises UserError where statistics cannot be used; they are then never stored."""
        for name, statistics in self.state.stats_by_input.items():
            if not statistics.count:
                raise UserError(f"No token reached {name} in calibration; check the tokenizer folder of the model.")
            if not statistics.is_finite():
                raise UserError(
                    f"The reference run gave NaN or infinite activations at the input of {name}; "
                    "set dtype: float32 or bfloat16 in the recipe, and check that the model is sound."
                )


def hessians_fit(component: ComponentPlan, max_memory: int) -> bool:
    """Whether the Gram matrices of a component's inputs, in float32, fit their share of the memory (bytes)."""
    inputs = [unit.input_module(fold) for unit in component.blocks for fold in unit.spec.folds]
    widths = [component.checkpoint.shape(f"{path}.weight")[1] for path in inputs]
    return sum(4 * width * width for width in widths) <= HESSIAN_MEMORY_SHARE * max_memory


class _BlockCounter:
    """Blocks that have run, told to a progress."""

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
    """Remembers which tokens of a padded text batch are real; the pipeline throws the others away."""

    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        given = kwargs.get("attention_mask")
        mask["tokens"] = given.bool() if isinstance(given, Tensor) and given.ndim == 2 else None

    return hook


class _BlockObserver:
    """What one call of a block leaves: sums, peaks and, where Gram matrices are too large, some tokens in a file."""

    def __init__(self, run: _CalibrationRun, block: QuantBlock, mask: dict[str, Tensor | None], call: int) -> None:
        self.run, self.unit, self.mask, self.call = run, block, mask, call
        self.real_tokens: Tensor | None = None
        self.sampled_tokens: dict[str, Tensor] = {}
        self.runs = 0  # of the block in this call: with guidance the text encoder reads two batches

    def hooks(self, model: nn.Module) -> list[Any]:
        block = model.get_submodule(self.unit.path)
        found = [block.register_forward_pre_hook(self.find_real_tokens, with_kwargs=True)]
        inputs = [self.unit.input_module(fold) for fold in self.unit.spec.folds]
        found += [model.get_submodule(path).register_forward_pre_hook(self.input_hook(path)) for path in inputs]
        outputs = [*self.unit.linears, self.unit.path]
        found += [model.get_submodule(path).register_forward_hook(self.output_hook(path)) for path in outputs]
        return [*found, block.register_forward_hook(self.write_sampled_tokens)]

    def find_real_tokens(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Finds which tokens are real, where the block is told: a truth value for every token of its input."""
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        told = [value for value in given if value.dtype == torch.bool and value.shape == given[0].shape[:-1]]
        self.real_tokens = told[0] if told else self.mask["tokens"]

    def input_hook(self, path: str) -> Callable[..., None]:
        name = f"{self.unit.component}.{path}"

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            tokens = self.select_real_tokens(args[0])
            found = self.run.state
            if name not in found.stats_by_input:
                found.stats_by_input[name] = ActivationStats.empty(
                    tokens.shape[-1], self.run.stores_hessian[self.unit.component]
                )
            found.stats_by_input[name].add(tokens)
            self.update_abs_max(f"{name}:in", args[0])
            self.store_tokens(name, tokens)

        return hook

    def store_tokens(self, name: str, tokens: Tensor) -> None:
        """Keeps some tokens: of an input without a Gram matrix for the disk, of one with it beside that."""
        statistics = self.run.state.stats_by_input[name]
        quota = self.run.tokens_per_call if statistics.hessian is None else self.run.extra_tokens_per_call
        if quota:
            some = tokens[sample_indices(len(tokens), quota, f"{name}:{self.call}:{self.runs}")]
            if statistics.hessian is None:
                self.sampled_tokens[name] = some
            else:
                statistics.keep_tokens(some)

    def output_hook(self, path: str) -> Callable[..., None]:
        name = f"{self.unit.component}.{path}"

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.update_abs_max(name, output[0] if isinstance(output, tuple) else output)

        return hook

    def update_abs_max(self, name: str, x: Tensor) -> None:
        """Padding counts here: what overflows there is NaN, and not even a mask of zeros keeps NaN out."""
        peaks = self.run.state.abs_max_by_module
        low, high = x.detach().aminmax()
        peaks[name] = max(peaks.get(name, 0.0), -float(low), float(high))

    def select_real_tokens(self, x: Tensor) -> Tensor:
        """The real tokens (n, channels) of a batch."""
        x = x.detach()
        return x.reshape(-1, x.shape[-1]) if self.real_tokens is None else x[self.real_tokens]

    def write_sampled_tokens(self, *_: Any) -> None:
        """Puts the sampled tokens on disk."""
        if self.sampled_tokens:
            write_tensors(self.sampled_tokens, self.run.work.new_sample_file(self.unit.name, self.call, self.runs))
            self.sampled_tokens = {}
        self.runs += 1


def sample_indices(count: int, quota: int, name: str) -> Tensor:
    """Which of `count` tokens stay: `quota` of them by a draw that depends on the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(count, generator=generator)[:quota].sort().values
