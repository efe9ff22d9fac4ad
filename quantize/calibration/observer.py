"""Observes one call of a block: adds the inputs of its linears to the statistics."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...storage.checkpoint import write_tensors
from ..plan import QuantBlock, QuantizationPlan
from ..workspace import Workspace
from .state import CalibrationState
from .statistics import ActivationStats


class CalibrationRun(Protocol):
    """What observing reads of a calibration that runs; `collector` documents it."""

    plan: QuantizationPlan
    workspace: Workspace
    state: CalibrationState
    stores_hessian: dict[str, bool]
    tokens_per_call: int
    extra_tokens_per_call: int
    validation_tokens_per_call: int
    validates: bool
    allocate: Callable[[int, int], Tensor]


class BlockObserver:
    """Records one call of a block: sums, largest magnitudes and, where H is too large, some tokens in a file.

    Attributes:
        model_masks: Which tokens of the component's inputs are real, each (batch, tokens) bool.
        masks: Which tokens in the block are real: where the shape fits, the first one counts.
        runs: How often the block ran in this call; with guidance the text encoder reads two batches.
    """

    def __init__(self, run: CalibrationRun, block: QuantBlock, model_masks: list[Tensor], call: int) -> None:
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
            if self.run.validates and name not in names:
                return
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
        if self.run.validates:
            self.update_abs_max(f"{name}:in", x)
            if name in stats_by_input:
                self.store_validation_tokens(name, tokens)
            return
        if name not in stats_by_input:
            stores_hessian = self.run.stores_hessian[self.block.component]
            width = tokens.shape[-1]
            hessian = self.run.allocate(width, width) if stores_hessian else None
            stats_by_input[name] = ActivationStats.empty(width, hessian, tokens.device)
        stats_by_input[name].add(tokens, normalized=self.run.plan.settings.chooses_steps)
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

    def store_validation_tokens(self, name: str, tokens: Tensor) -> None:
        """Samples some tokens of prompts that are held out."""
        stats, count = self.run.state.stats_by_input[name], self.run.validation_tokens_per_call
        sample = tokens[sample_indices(len(tokens), count, f"{name}:{self.call}:{self.runs}")]
        if stats.hessian is None:
            self.sampled_tokens[name] = sample
        else:
            stats.keep_validation(sample)

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
            kind = "validation" if self.run.validates else "samples"
            file = self.run.workspace.new_sample_file(self.block.name, self.call, self.runs, kind)
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
