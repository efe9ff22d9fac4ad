"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...storage.checkpoint import write_tensors
from ..plan import QuantBlock
from ..workspace import Workspace
from .statistics import ACTIVATION_TOKENS, ActivationStats, compute_hessian


@dataclass
class CalibrationState:
    """All that calibration finds, by "component.module".

    inputs: statistics of each input that some fold leads into. peaks: largest |x| at the outputs of linears and
    blocks, and, under "...:in", at those inputs. texts, pictures: batches that are finished; calls: finished calls of
    the denoiser in the batch that is not.
    """

    stats_by_input: dict[str, ActivationStats] = field(default_factory=dict)
    abs_max_by_module: dict[str, float] = field(default_factory=dict)
    text_batches: int = 0
    image_batches: int = 0
    denoiser_calls: int = 0


class Calibration:
    """The statistics of a plan's inputs, as stored in a work folder."""

    def __init__(self, work: Workspace, found: CalibrationState) -> None:
        self._workspace, self._state = work, found

    @property
    def abs_max_by_module(self) -> dict[str, float]:
        return self._state.abs_max_by_module

    def mean_abs(self, name: str) -> Tensor:
        """Mean |x| of each channel of an input, (in,)."""
        return self._state.stats_by_input[name].mean_abs()

    def abs_max(self, name: str) -> Tensor:
        """Largest |x| of each channel of an input, (in,)."""
        return self._state.stats_by_input[name].abs_max

    def hessian(self, unit: QuantBlock, name: str) -> Tensor:
        """H of an input, (in, in) float32."""
        statistics = self._state.stats_by_input[name]
        if statistics.hessian is not None:
            return statistics.hessian / statistics.count
        return compute_hessian(self._read_sampled_tokens(unit, name))

    def tokens(self, unit: QuantBlock, name: str) -> Tensor:
        """About `TOKENS` tokens of an input, equally many of every call, (n, in)."""
        kept = self._state.stats_by_input[name].tokens
        if kept is not None:
            return kept
        sample = self._read_sampled_tokens(unit, name)
        return sample[:: max(1, len(sample) // ACTIVATION_TOKENS)]

    def _read_sampled_tokens(self, unit: QuantBlock, name: str) -> Tensor:
        return torch.cat([self._workspace.read_tensor(file, name) for file in self._workspace.sample_files(unit.name)])


def save_state(work: Workspace, found: CalibrationState) -> None:
    tensors = {
        key: tensor for name, held in found.stats_by_input.items() for key, tensor in held.state_dict(name).items()
    }
    position = torch.tensor([found.text_batches, found.image_batches, found.denoiser_calls])
    peaks = {f"{name}/peak": torch.tensor(peak, dtype=torch.float64) for name, peak in found.abs_max_by_module.items()}
    write_tensors(tensors | peaks | {"position": position}, work.statistics_file)


def load_state(work: Workspace) -> CalibrationState:
    if not work.statistics_file.exists():
        return CalibrationState()
    stored = work.read_tensors(work.statistics_file)
    names = [key.removesuffix("/count") for key in stored if key.endswith("/count")]
    peaks = {key.removesuffix("/peak"): float(value) for key, value in stored.items() if key.endswith("/peak")}
    texts, pictures, calls = (int(value) for value in stored["position"])
    return CalibrationState(
        {name: ActivationStats.from_state_dict(name, stored) for name in names}, peaks, texts, pictures, calls
    )


def load_denoiser_outputs(work: Workspace, found: CalibrationState) -> list[Any]:
    """What the finished calls of an unfinished batch returned."""
    if not found.denoiser_calls:
        return []
    outputs: list[Any] = torch.load(work.denoiser_outputs_file(found.image_batches), weights_only=True)
    return outputs[: found.denoiser_calls]
