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
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.memory import DEFAULT_MAX_MEMORY
from ...common.progress import Progress
from ...pipelines.sampling import PIXELS_PER_BATCH, SamplingParams, batched, generate_images
from ...prompts.prompt import Prompt
from ...storage.checkpoint import write_tensors
from ..plan import ComponentPlan, QuantBlock, QuantizationPlan
from ..workspace import Workspace
from .state import Calibration, load_denoiser_outputs, load_state, save_denoiser_outputs, save_state
from .statistics import ACTIVATION_TOKENS, ActivationStats, map_matrix
from .streaming import load_streaming_pipeline, stop_at_denoiser

logger = logging.getLogger(__name__)

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
    arguments = (plan, workspace, prompts, num_images, sampling, dtype, max_memory, progress)
    try:
        return _calibrate(*arguments, streams=True)
    except (NotImplementedError, RuntimeError) as error:
        if not _met_weight_on_disk(error):
            raise
        logger.warning(
            "%s uses weights of its blocks outside of them (%s), so all of its weights are kept in memory.",
            plan.family.pipeline_class,
            str(error).splitlines()[0],
        )
    return _calibrate(*arguments, streams=False)


def _met_weight_on_disk(error: Exception) -> bool:
    """Whether a function that an error came through had a tensor without data: of a block that was left on disk."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    values = [(name, value) for frame in frames for name, value in frame.f_locals.items()]
    tensors = [value for _, value in values if isinstance(value, Tensor)]
    tensors += [item for _, value in values if isinstance(value, tuple | list) for item in value]  # arguments
    for name, value in values:
        if name == "self" and isinstance(value, nn.Module):
            tensors += value.parameters(recurse=False)
    return any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors)


def _calibrate(
    plan: QuantizationPlan,
    workspace: Workspace,
    prompts: Sequence[Prompt],
    num_images: int,
    sampling: SamplingParams,
    dtype: torch.dtype,
    max_memory: int,
    progress: Progress,
    streams: bool,
) -> Calibration:
    """Calibrates as `run_calibration` does, with blocks left on disk until they run or with all of them in memory."""
    run = _CalibrationRun(plan, workspace, sampling, dtype, max_memory, progress, streams)
    components = {block.component for block in plan.blocks}
    if components - set(plan.family.denoisers):
        run.calibrate_text_encoders(list(batched(prompts, PROMPTS_PER_BATCH)))
    if components & set(plan.family.denoisers):
        batch_size = max(1, CALIBRATION_PIXELS // (sampling.height * sampling.width))
        run.calibrate_denoisers(list(batched(prompts[:num_images], batch_size)))
    run.check()
    return Calibration(workspace, run.state)


class _CalibrationRun:
    """The part of a calibration that this process computes.

    Attributes:
        streams: Whether blocks are left on disk until they run.
        stores_hessian: Whether H is stored for the inputs of a component, by its name.
        allocate: Makes a matrix of zeros for an H.
        outputs: What the finished calls of denoisers returned, in the current batch.
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
        streams: bool,
    ) -> None:
        self.plan, self.workspace, self.sampling, self.dtype = plan, workspace, sampling, dtype
        self.streams = streams
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
        return load_streaming_pipeline(self.plan, self.dtype, self.streams)

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """The denoisers of the pipeline, by name."""
        names = self.plan.family.denoisers
        return {name: getattr(self.pipeline, name) for name in names if getattr(self.pipeline, name) is not None}

    def calibrate_text_encoders(self, batches: list[Sequence[Prompt]]) -> None:
        """Runs everything before the denoisers over batches of prompts."""
        denoisers = self.plan.family.denoisers
        components = [part for part in self.plan.components if part.blocks and part.name not in denoisers]
        self._start("calibrating on prompts", components, len(batches), self.state.text_batches)
        for number in range(self.state.text_batches, len(batches)):
            with self.observe(components, number), stop_at_denoiser(*self.denoisers.values()):
                generate_images(self.pipeline, batches[number], self.sampling, output_type="latent")
            self.state.text_batches = number + 1
            self.save(force=number + 1 == len(batches))

    def calibrate_denoisers(self, batches: list[Sequence[Prompt]]) -> None:
        """Generates the latents of batches of images.

        Most pipelines call one denoiser once in a step. Where there are more calls, of another denoiser or for
        guidance, the progress goes beyond what was expected.
        """
        steps, denoisers = self.sampling.steps, self.plan.family.denoisers
        components = [part for part in self.plan.components if part.name in denoisers]
        finished = self.state.earlier_calls + self.state.denoiser_calls
        self._start("calibrating on images", components, len(batches) * steps, finished)
        for number in range(self.state.image_batches, len(batches)):
            with self.replay_finished_calls():
                generate_images(self.pipeline, batches[number], self.sampling, output_type="latent")
            self.state.earlier_calls += self.state.denoiser_calls
            self.state.image_batches, self.state.denoiser_calls, self.outputs = number + 1, 0, []
            self.save(force=number + 1 == len(batches))

    def _start(self, stage: str, components: Sequence[ComponentPlan], calls: int, finished: int) -> None:
        blocks = sum(len(component.blocks) for component in components)
        self.tokens_per_call = -(-TOKENS_PER_INPUT // calls)
        extra_tokens = ACTIVATION_TOKENS if self.plan.settings.quantizes_activations else 0
        self.extra_tokens_per_call = -(-extra_tokens // calls)
        self._counter.start(stage, finished * blocks, calls * blocks)

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
        for component in components:
            model: nn.Module = getattr(self.pipeline, component.name)
            masks: list[Tensor] = []
            handles.append(model.register_forward_pre_hook(_mask_hook(masks), with_kwargs=True))
            for block in component.blocks:
                handles += _BlockObserver(self, block, masks, call).register_hooks(model)
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


class _BlockObserver:
    """Records one call of a block: sums, largest magnitudes and, where H is too large, some tokens in a file.

    Attributes:
        model_masks: Which tokens of the component's inputs are real, each (batch, tokens) bool.
        masks: Which tokens in the block are real: where the shape fits, the first one counts.
        runs: How often the block ran in this call; with guidance the text encoder reads two batches.
    """

    def __init__(self, run: _CalibrationRun, block: QuantBlock, model_masks: list[Tensor], call: int) -> None:
        self.run, self.block, self.model_masks, self.call = run, block, model_masks, call
        self.masks: list[Tensor] = []
        self.inputs: dict[str, Any] = {}  # weak references to what linears have read in this run, by their names
        self.sampled_tokens: dict[str, Tensor] = {}
        self.runs = 0

    def register_hooks(self, model: nn.Module) -> list[Any]:
        block = model.get_submodule(self.block.path)
        handles = [block.register_forward_pre_hook(self.find_real_tokens, with_kwargs=True)]
        for group in self.block.groups:
            path = self.block.input_module(group)
            hook = self.input_hook(path) if group.fold else self.shared_input_hook(path)
            handles.append(model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True))
        outputs = [*self.block.linears, self.block.path]
        handles += [model.get_submodule(path).register_forward_hook(self.output_hook(path)) for path in outputs]
        return [*handles, block.register_forward_hook(self.write_sampled_tokens)]

    def find_real_tokens(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Finds which tokens are real: by a boolean argument of the block with a value for each token of its input."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        masks = [value for value in tensors if value.dtype == torch.bool and value.shape == tensors[0].shape[:-1]]
        self.masks = [*masks[:1], *self.model_masks]

    def input_hook(self, path: str) -> Callable[..., None]:
        """Observes the input of linears that are known to read the same."""
        name = f"{self.block.component}.{path}"
        return lambda _, args, kwargs: self.add_input(name, _first_tensor(args, kwargs))

    def shared_input_hook(self, path: str) -> Callable[..., None]:
        """Observes the input of a linear; if another linear of the block has read the same tensor, not again.

        The first call decides which linears share statistics. Inputs that differ later are added up.
        """
        name = f"{self.block.component}.{path}"

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _first_tensor(args, kwargs)
            names = self.run.state.input_by_linear
            readers = [reader for reader, reference in self.inputs.items() if reference() is x]
            source = names.setdefault(name, readers[0] if readers else name)
            if source not in readers and x.numel():  # an expert may get no token
                self.inputs[source] = weakref.ref(x)
                self.add_input(source, x)

        return hook

    def add_input(self, name: str, x: Tensor) -> None:
        """Adds an input (..., channels) to its statistics."""
        tokens = self.select_real_tokens(x)
        stats_by_input = self.run.state.stats_by_input
        if name not in stats_by_input:
            stores_hessian = self.run.stores_hessian[self.block.component]
            width = tokens.shape[-1]
            hessian = self.run.allocate(width, width) if stores_hessian else None
            stats_by_input[name] = ActivationStats.empty(width, hessian)
        stats_by_input[name].add(tokens)
        self.update_abs_max(f"{name}:in", x)
        self.store_tokens(name, tokens)

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
            x = output[0] if isinstance(output, tuple) else output
            if isinstance(x, Tensor) and x.numel():
                self.update_abs_max(name, x)

        return hook

    def update_abs_max(self, name: str, x: Tensor) -> None:
        """Records the largest |x|, padding included: NaN in padding spreads, even through a mask of zeros."""
        peaks = self.run.state.abs_max_by_module
        low, high = x.detach().aminmax()
        peaks[name] = max(peaks.get(name, 0.0), -float(low), float(high))

    def select_real_tokens(self, x: Tensor) -> Tensor:
        """Returns the real tokens (n, channels) of a batch."""
        x = x.detach()
        mask = next((mask for mask in self.masks if mask.shape == x.shape[:-1]), None)
        return x.reshape(-1, x.shape[-1]) if mask is None else x[mask]

    def write_sampled_tokens(self, *_: Any) -> None:
        if self.sampled_tokens:
            file = self.run.workspace.new_sample_file(self.block.name, self.call, self.runs)
            write_tensors(self.sampled_tokens, file)
            self.sampled_tokens = {}
        self.inputs = {}
        self.runs += 1


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Returns the input of a linear, however it was passed."""
    x: Tensor = args[0] if args else next(iter(kwargs.values()))
    return x


def sample_indices(num_tokens: int, count: int, name: str) -> Tensor:
    """Draws `count` of `num_tokens` tokens, sorted. The draw depends on the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(num_tokens, generator=generator)[:count].sort().values
