"""AutoencoderKL's decoder in stages for NPUs: no comparisons, four axes at most, one output a graph.

Moments are means and deviations, √(variance + ε), as float16 may not hold a variance; (1, norms · 2 · groups, 1, 1) of
a stage, each norm's means and then its deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ..base.npu import MIN_VARIANCE, SQUARE_PRESCALE
from . import vae_tiling_graphs
from .vae_tiling_graphs import count_norms, get_input_channels, run_up_stage

SPATIAL_AXES = (2, 3)  # the axes of height and width
MAX_ATTENTION_SCORES = 2**24  # of attention that are there at once: all those of 512x512 pixels


class Begin(vae_tiling_graphs.Begin):
    """The stages that run whole."""

    def middle(self, features: Tensor) -> Tensor:
        """diffusers' UNetMidBlock2D without a time embedding; its attention takes some rows at a time."""
        block: Any = self.model.decoder.mid_block
        features = block.resnets[0](features, None)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            if attention is not None:
                features = (features + _run_attention(attention, features)) / attention.rescale_output_factor
            features = resnet(features, None)
        return features


class Begin1(Begin):
    stages = 1


class Begin2(Begin):
    stages = 2


class Begin3(Begin):
    stages = 3


class _Stage(nn.Module):
    """A later stage of the decoder, on a tile."""

    number: int  # of the upward block

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def _features(self, sizes: Mapping[str, int]) -> Tensor:
        channels = get_input_channels(self.model.decoder, self.number)
        return torch.zeros(1, channels, sizes[f"h{self.number}"], sizes[f"w{self.number}"])

    def _moments(self) -> Tensor:
        norms = count_norms(self.model.decoder, self.number)
        return torch.ones(1, 2 * norms * self.model.config.norm_num_groups, 1, 1)


class Measure(_Stage):
    """Measures the moments of a stage's norms on a tile."""

    def forward(self, features: Tensor, moments: Tensor, weights: Tensor, own: Tensor) -> Tensor:
        """What the norms measure.

        Args:
            features: (1, C, h, w), a tile of the stage before with its margin.
            moments: (1, norms · 2 · groups, 1, 1), over the whole picture.
            weights: (1, 1, 2h, 2w) of mean 1, all alike in the tile and 0 in its margin.
            own: (1, 1, 1, 1), 1 where norms take their tile's moments, 0 where they take those that are given.

        Returns:
            moments (1, norms · 2 · groups, 1, 1) over this tile without its margin.
        """
        norms = _MeasuringNorms(moments, weights, own)
        run_up_stage(self.model.decoder, self.number, features, norms)
        return torch.cat(norms.measured, 1)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """A tile of h by w."""
        weights = torch.ones(1, 1, sizes[f"H{self.number}"], sizes[f"W{self.number}"])
        return self._features(sizes), self._moments(), weights, torch.ones(1, 1, 1, 1)


class Make(_Stage):
    """Makes a stage's features of a tile."""

    def forward(self, features: Tensor, moments: Tensor) -> Tensor:
        """features (1, C, h, w) with their margin, moments (1, norms · 2 · groups, 1, 1) over the whole picture ->
        features (1, C', 2h, 2w), or the picture after the last stage."""
        return run_up_stage(self.model.decoder, self.number, features, _GivenMomentNorms(moments))

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """A tile of h by w."""
        return self._features(sizes), self._moments()


class Measure1(Measure):
    number = 1


class Measure2(Measure):
    number = 2


class Measure3(Measure):
    number = 3


class Make1(Make):
    number = 1


class Make2(Make):
    number = 2


class Make3(Make):
    number = 3


def _run_attention(attention: Any, x: Tensor) -> Tensor:
    """Self-attention of one head over all places of (1, C, h, w), the queries of some rows at a time."""
    _, _, height, width = x.shape
    normed = attention.group_norm(x)
    places = normed.flatten(2).transpose(1, 2)
    keys, values = attention.to_k(places).transpose(1, 2), attention.to_v(places)
    found = []
    for rows in normed.split(max(MAX_ATTENTION_SCORES // (height * width) // width, 1), 2):
        queries = attention.to_q(rows.flatten(2).transpose(1, 2)) * attention.scale
        attended = attention.to_out[0](torch.softmax(queries @ keys, -1) @ values)
        found.append(attended.transpose(1, 2).unflatten(2, rows.shape[2:]))
    return torch.cat(found, 2)


class _GivenMomentNorms:
    """Group norms one after another, with moments that are given."""

    def __init__(self, moments: Tensor) -> None:
        self._moments, self._at = moments, 0

    def __call__(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """x (1, channels, height, width), normalized."""
        mean, deviation = self._next(norm), self._next(norm)
        return _normalize(norm, x, mean, deviation)

    def _next(self, norm: nn.GroupNorm) -> Tensor:
        """Means or deviations (1, groups, 1, 1)."""
        begin, self._at = self._at, self._at + norm.num_groups
        return self._moments[:, begin : self._at]


class _MeasuringNorms(_GivenMomentNorms):
    """Group norms one after another, with moments that are given or the tile's own; collects those that it measures."""

    def __init__(self, moments: Tensor, weights: Tensor, own: Tensor) -> None:
        super().__init__(moments)
        self._weights, self._own = weights, own
        self.measured: list[Tensor] = []

    def __call__(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        mean = self._masked_mean(norm, x)
        centred = (x - _expand_groups(norm, mean)) * SQUARE_PRESCALE  # whose squares float16 holds
        variance = self._masked_mean(norm, centred * centred)
        deviation = torch.sqrt(variance + max(norm.eps * SQUARE_PRESCALE**2, MIN_VARIANCE)) / SQUARE_PRESCALE
        self.measured += [mean, deviation]
        return _normalize(norm, x, self._blend(mean, self._next(norm)), self._blend(deviation, self._next(norm)))

    def _masked_mean(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """The mean of (1, channels, height, width) over the tile without its margin, (1, groups, 1, 1)."""
        return conv2d(
            (x * self._weights).mean(SPATIAL_AXES, keepdim=True),
            _make_group_matrix(norm).T[..., None, None] / _group_size(norm),
        )

    def _blend(self, own: Tensor, given: Tensor) -> Tensor:
        return own * self._own + given * (1 - self._own)


def _normalize(norm: nn.GroupNorm, x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """x (1, channels, height, width), with moments (1, groups, 1, 1)."""
    weight, bias = (each[None, :, None, None] for each in (norm.weight, norm.bias))
    return (x - _expand_groups(norm, mean)) / _expand_groups(norm, deviation) * weight + bias


def _expand_groups(norm: nn.GroupNorm, values: Tensor) -> Tensor:
    """Values of groups (1, groups, 1, 1) as those of their channels (1, channels, 1, 1)."""
    return conv2d(values, _make_group_matrix(norm)[..., None, None])


def _make_group_matrix(norm: nn.GroupNorm) -> Tensor:
    """(channels, groups): 1 where a channel is of a group."""
    return torch.eye(norm.num_groups).repeat_interleave(_group_size(norm), 0)


def _group_size(norm: nn.GroupNorm) -> int:
    return norm.num_channels // norm.num_groups
