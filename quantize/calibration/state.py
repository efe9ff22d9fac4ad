"""What calibration has gathered: its state while it runs, on disk, and as the solver reads it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...storage.checkpoint import write_tensors
from ..compute_device import CPU, move_tensors
from ..plan import QuantBlock
from ..torch_file import save_torch_file
from ..workspace import Workspace, iterate_tensors, list_tensor_names, read_metadata, read_tensor
from .statistics import (
    ACTIVATION_TOKENS,
    HESSIAN_SUFFIX,
    ActivationStats,
    WeightedMean,
    compute_hessian,
    compute_power_floor,
    normalize_tokens,
)


@dataclass
class CalibrationState:
    """Everything that calibration has gathered so far. Names are `component.module`.

    Attributes:
        stats_by_input: Statistics of the input of each group of linears, by the first of them.
        input_by_linear: For linears that no fold names, the name under which their input has statistics: that of the
            linear of the same block which read it first.
        abs_max_by_module: Largest |x| at the outputs of linears and blocks and, under `...:in`, at groups' inputs.
        text_batches: Finished batches of prompts through the text encoders.
        image_batches: Finished batches of images.
        denoiser_calls: Finished calls of denoisers in the batch of images that is not finished.
        earlier_calls: Calls of denoisers in finished batches of images.
    """

    stats_by_input: dict[str, ActivationStats] = field(default_factory=dict)
    input_by_linear: dict[str, str] = field(default_factory=dict)
    abs_max_by_module: dict[str, float] = field(default_factory=dict)
    text_batches: int = 0
    image_batches: int = 0
    denoiser_calls: int = 0
    earlier_calls: int = 0


class Calibration:
    """The statistics of a plan's inputs. Sampled tokens are read from the workspace.

    Args:
        workspace: Where the samples are.
        state: What was gathered.
        normalized: Whether large tokens count less in H than their squares.
        device: Where the statistics are, and where sampled tokens are moved.
    """

    def __init__(
        self, workspace: Workspace, state: CalibrationState, normalized: bool = False, device: torch.device = CPU
    ) -> None:
        self._workspace, self._state, self._normalized, self._device = workspace, state, normalized, device

    def group_linears(self, block: QuantBlock) -> QuantBlock:
        """Returns a block with its linears grouped by the input that they read, and those set apart that never ran."""
        linears = [linear for group in block.unfolded for linear in group]
        inputs = {linear: self._state.input_by_linear.get(f"{block.name}.{linear}", "") for linear in linears}
        groups: dict[str, list[str]] = {}
        for linear, name in inputs.items():
            if name in self._state.stats_by_input:
                first = name.removeprefix(f"{block.name}.")
                groups.setdefault(first, [first]).extend([linear] if linear != first else [])
        idle = [linear for linear, name in inputs.items() if name not in self._state.stats_by_input]
        stats = self._state.stats_by_input
        folded = [group for group in block.groups if group.fold]
        unread = [group for group in folded if f"{block.name}.{group.linears[0]}" not in stats]
        idle += [linear for group in unread for linear in group.linears]
        folds = tuple(fold for fold in block.spec.folds if all(group.fold != fold for group in unread))
        unfolded = [group.linears for group in folded if group not in unread and group.fold not in folds]
        chains = tuple(chain for chain in block.spec.chains if not set(idle).intersection(chain.linears))
        spec = replace(block.spec, folds=folds, chains=chains)
        ordered = tuple(linear for linear in block.relative_linears if linear in idle)
        return replace(block, spec=spec, unfolded=(*unfolded, *map(tuple, groups.values())), idle=ordered)

    @property
    def abs_max_by_module(self) -> dict[str, float]:
        return self._state.abs_max_by_module

    def mean_abs(self, name: str) -> Tensor:
        """Returns mean |x| of each channel of an input, (in,)."""
        return self._state.stats_by_input[name].mean_abs()

    def abs_max(self, name: str) -> Tensor:
        """Returns the largest |x| of each channel of an input, (in,)."""
        return self._state.stats_by_input[name].abs_max

    def hessian(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor:
        """Returns H of an input, (in, in) float32.

        Args:
            centered: Of the input minus its mean.
        """
        stats = self._state.stats_by_input[name]
        mean = self.mean(block, name) if centered else None
        if stats.hessian is None:
            return compute_hessian(self._normalize(self._read_sampled_tokens(block, name), mean))
        hessian = stats.hessian / stats.count
        if mean is not None:
            hessian.addr_(mean, mean, alpha=-float(stats.mean.sum_of_weights) / stats.count)
        return hessian

    def mean(self, block: QuantBlock, name: str) -> Tensor:
        """Returns the mean of an input, with the weights that tokens have in H, (in,) float32."""
        stats = self._state.stats_by_input[name]
        if stats.hessian is not None:
            return stats.mean.value()
        tokens = self._read_sampled_tokens(block, name)
        mean = WeightedMean.empty(tokens.shape[1], tokens.device)
        mean.add(tokens, compute_power_floor(tokens))
        return mean.value()

    def validation_tokens(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor | None:
        """Returns tokens of an input that are not in its H, normalized alike, (n, in) float32; None without such.

        Args:
            centered: Minus the mean of the tokens in H.
        """
        tokens = self._state.stats_by_input[name].validation
        if tokens is None:
            files = self._workspace.validation_files(block.name)
            samples = [read_tensor(file, name) for file in files if name in list_tensor_names(file)]
            tokens = torch.cat(samples).to(self._device) if samples else None
        if tokens is None or not len(tokens):
            return None
        return self._normalize(tokens, self.mean(block, name) if centered else None)

    def _normalize(self, tokens: Tensor, mean: Tensor | None = None) -> Tensor:
        return normalize_tokens(tokens, compute_power_floor(tokens), mean) if self._normalized else tokens

    def tokens(self, block: QuantBlock, name: str) -> Tensor:
        """Returns about `ACTIVATION_TOKENS` tokens of an input, equally many of every call, (n, in)."""
        tokens = self._state.stats_by_input[name].tokens
        if tokens is not None:
            return tokens
        sample = self._read_sampled_tokens(block, name)
        return sample[:: max(1, len(sample) // ACTIVATION_TOKENS)]

    def _read_sampled_tokens(self, block: QuantBlock, name: str) -> Tensor:
        samples = [read_tensor(file, name) for file in self._workspace.sample_files(block.name)]
        return torch.cat(samples).to(self._device)


def save_state(workspace: Workspace, state: CalibrationState) -> None:
    position = [state.text_batches, state.image_batches, state.denoiser_calls, state.earlier_calls]
    tensors = {"position": torch.tensor(position)}
    for name, stats in state.stats_by_input.items():
        tensors |= stats.state_dict(name)
    for name, peak in state.abs_max_by_module.items():
        tensors[f"{name}/peak"] = torch.tensor(peak, dtype=torch.float64)
    write_tensors(tensors, workspace.statistics_file, json.dumps(state.input_by_linear))


def load_block_calibration(workspace: Workspace, block: str, normalized: bool) -> Calibration:
    """Returns what a calibration that is complete has stored of the inputs of a block, by the block's name."""
    return Calibration(workspace, load_state(workspace, block=block), normalized)


def load_state(
    workspace: Workspace,
    allocate: Callable[[int, int], Tensor] = torch.zeros,
    block: str = "",
    device: torch.device = CPU,
) -> CalibrationState:
    """Returns what an interrupted run stored, or an empty state.

    Args:
        allocate: Makes a matrix for an H.
        block: Of the inputs, only those in this block; empty: all.
        device: Where all else is put.
    """
    if not workspace.statistics_file.exists():
        return CalibrationState()
    tensors = {}
    names = [name for name in list_tensor_names(workspace.statistics_file) if _is_needed(name, block)]
    for name, tensor in iterate_tensors(workspace.statistics_file, names):
        is_hessian = name.endswith(HESSIAN_SUFFIX)
        tensors[name] = allocate(*tensor.shape).copy_(tensor) if is_hessian else tensor.to(device)
    names = [key.removesuffix("/count") for key in tensors if key.endswith("/count")]
    stats = {name: ActivationStats.from_state_dict(name, tensors) for name in names}
    peaks = {key.removesuffix("/peak"): float(value) for key, value in tensors.items() if key.endswith("/peak")}
    inputs = read_metadata(workspace.statistics_file)
    return CalibrationState(stats, inputs, peaks, *(int(value) for value in tensors["position"]))


def _is_needed(name: str, block: str) -> bool:
    """Whether a stored tensor is about an input in a block, by its name, or about no input; empty: of any block."""
    return not block or name.startswith(f"{block}.") or name.endswith("/peak") or "/" not in name


def load_denoiser_outputs(workspace: Workspace, state: CalibrationState, device: torch.device = CPU) -> list[Any]:
    """Returns the outputs of denoisers' finished calls in the batch of images that is not finished, on a device."""
    if not state.denoiser_calls:
        return []
    outputs: list[Any] = torch.load(workspace.denoiser_outputs_file(state.image_batches), weights_only=True)
    return [_unpack_output(move_tensors(output, device)) for output in outputs[: state.denoiser_calls]]


def save_denoiser_outputs(workspace: Workspace, state: CalibrationState, outputs: Sequence[Any]) -> None:
    """Stores what the finished calls of denoisers in a batch of images returned."""
    packed = [_pack_output(output) for output in outputs]
    save_torch_file(packed, workspace.denoiser_outputs_file(state.image_batches))


def save_reference_outputs(workspace: Workspace, batch: int, outputs: Sequence[Any]) -> None:
    """Stores what denoisers returned for a batch of images that validates."""
    packed = [_pack_output(output) for output in outputs]
    save_torch_file(packed, workspace.reference_file(batch))


def load_reference_outputs(workspace: Workspace, batch: int, device: torch.device = CPU) -> list[Any]:
    """Returns what `save_reference_outputs` stored, on a device."""
    outputs = torch.load(workspace.reference_file(batch), weights_only=True)
    return [_unpack_output(move_tensors(output, device)) for output in outputs]


def _pack_output(output: Any) -> Any:
    """Returns an output as plain containers of tensors in memory, which are all that a file can safely hold."""
    if not isinstance(output, dict):
        return move_tensors(output, CPU)
    fields = move_tensors(dict(output), CPU)
    return {"class": f"{type(output).__module__}:{type(output).__qualname__}", "fields": fields}


def _unpack_output(output: Any) -> Any:
    """Returns what `_pack_output` was given. Only classes of diffusers and transformers are imported."""
    if not isinstance(output, dict):
        return output
    module, name = output["class"].split(":")
    if module.partition(".")[0] not in ("diffusers", "transformers"):
        return output["fields"]
    return getattr(importlib.import_module(module), name)(**output["fields"])
