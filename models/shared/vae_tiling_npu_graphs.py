"""AutoencoderKL's decoder in stages for NPUs: no comparisons, at most four axes, one output a graph.

Moments are means and standard deviations sqrt(variance + eps), because float16 may not hold a variance. Those of a
stage are (1, norms * 2 * groups, 1, 1): for each norm its means, then its deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ..base.npu import MIN_VARIANCE, SQUARE_PRESCALE
from .vae_tiling_graphs import FirstStage, count_norms, get_input_channels, run_up_stage

SPATIAL_AXES = (2, 3)  # height and width
MAX_ATTENTION_SCORES = 2**24  # computed at once: all those of an image of 512x512 pixels


class NpuFirstStage(FirstStage):
    """The stages that run whole."""

    def run_middle(self, features: Tensor) -> Tensor:
        """Runs a UNetMidBlock2D of diffusers without a time embedding; its attention takes some rows at a time."""
        block: Any = self.model.decoder.mid_block
        features = block.resnets[0](features, None)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            if attention is not None:
                features = (features + _run_attention(attention, features)) / attention.rescale_output_factor
            features = resnet(features, None)
        return features


class NpuFirstStage1(NpuFirstStage):
    num_stages = 1


class NpuFirstStage2(NpuFirstStage):
    num_stages = 2


class NpuFirstStage3(NpuFirstStage):
    num_stages = 3


class _TileStageModule(nn.Module):
    """A later stage of the decoder, on a tile.

    Attributes:
        number: Index of the up block.
    """

    number: int

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def _example_features(self, sizes: Mapping[str, int]) -> Tensor:
        channels = get_input_channels(self.model.decoder, self.number)
        return torch.zeros(1, channels, sizes[f"h{self.number}"], sizes[f"w{self.number}"])

    def _example_moments(self) -> Tensor:
        norms = count_norms(self.model.decoder, self.number)
        return torch.ones(1, 2 * norms * self.model.config.norm_num_groups, 1, 1)


class TileMoments(_TileStageModule):
    """Measures the moments of a stage's norms on a tile."""

    def forward(self, features: Tensor, moments: Tensor, weights: Tensor, own: Tensor) -> Tensor:
        """Measures moments.

        Args:
            features: Tile of the features before this stage, with its margin, (1, C, h, w).
            moments: Moments over the whole image, (1, norms * 2 * groups, 1, 1).
            weights: Equal in the tile, 0 in its margin, and 1 on average, (1, 1, 2h, 2w).
            own: 1 to normalize with the moments of the tile, 0 to normalize with `moments`, (1, 1, 1, 1).

        Returns:
            Moments over this tile without its margin, (1, norms * 2 * groups, 1, 1).
        """
        norms = _MeasuringNorms(moments, weights, own)
        run_up_stage(self.model.decoder, self.number, features, norms)
        return torch.cat(norms.measured, 1)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes a tile of h by w."""
        weights = torch.ones(1, 1, sizes[f"H{self.number}"], sizes[f"W{self.number}"])
        return self._example_features(sizes), self._example_moments(), weights, torch.ones(1, 1, 1, 1)


class TileDecode(_TileStageModule):
    """Computes a stage's features of a tile."""

    def forward(self, features: Tensor, moments: Tensor) -> Tensor:
        """Computes features.

        Args:
            features: Tile of the features before this stage, with its margin, (1, C, h, w).
            moments: Moments over the whole image, (1, norms * 2 * groups, 1, 1).

        Returns:
            Features (1, C', 2h, 2w); the image after the last stage.
        """
        return run_up_stage(self.model.decoder, self.number, features, _GivenMomentNorms(moments))

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes a tile of h by w."""
        return self._example_features(sizes), self._example_moments()


class TileMoments1(TileMoments):
    number = 1


class TileMoments2(TileMoments):
    number = 2


class TileMoments3(TileMoments):
    number = 3


class TileDecode1(TileDecode):
    number = 1


class TileDecode2(TileDecode):
    number = 2


class TileDecode3(TileDecode):
    number = 3


def _run_attention(attention: Any, x: Tensor) -> Tensor:
    """Computes self-attention of one head over the positions of (1, C, h, w), the queries of some rows at a time."""
    _, _, height, width = x.shape
    normed = attention.group_norm(x)
    positions = normed.flatten(2).transpose(1, 2)
    keys, values = attention.to_k(positions).transpose(1, 2), attention.to_v(positions)
    outputs = []
    for rows in normed.split(max(MAX_ATTENTION_SCORES // (height * width) // width, 1), 2):
        queries = attention.to_q(rows.flatten(2).transpose(1, 2)) * attention.scale
        output = attention.to_out[0](torch.softmax(queries @ keys, -1) @ values)
        outputs.append(output.transpose(1, 2).unflatten(2, rows.shape[2:]))
    return torch.cat(outputs, 2)


class _GivenMomentNorms:
    """Applies group norms, one after another, with given moments."""

    def __init__(self, moments: Tensor) -> None:
        self._moments, self._offset = moments, 0

    def __call__(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """Normalizes x (1, channels, height, width)."""
        mean, deviation = self._next_moment(norm), self._next_moment(norm)
        return _normalize(norm, x, mean, deviation)

    def _next_moment(self, norm: nn.GroupNorm) -> Tensor:
        """Returns the next means or deviations, (1, groups, 1, 1)."""
        begin, self._offset = self._offset, self._offset + norm.num_groups
        return self._moments[:, begin : self._offset]


class _MeasuringNorms(_GivenMomentNorms):
    """Applies group norms with given moments or with those of the tile, and collects the moments of the tile."""

    def __init__(self, moments: Tensor, weights: Tensor, use_tile: Tensor) -> None:
        super().__init__(moments)
        self._weights, self._use_tile = weights, use_tile
        self.measured: list[Tensor] = []

    def __call__(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        mean = self._masked_mean(norm, x)
        centred = (x - _expand_groups(norm, mean)) * SQUARE_PRESCALE  # float16 holds the squares of these
        variance = self._masked_mean(norm, centred * centred)
        deviation = torch.sqrt(variance + max(norm.eps * SQUARE_PRESCALE**2, MIN_VARIANCE)) / SQUARE_PRESCALE
        self.measured += [mean, deviation]
        mean, deviation = self._select(mean, self._next_moment(norm)), self._select(deviation, self._next_moment(norm))
        return _normalize(norm, x, mean, deviation)

    def _masked_mean(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """Returns the means (1, groups, 1, 1) of (1, channels, height, width) over the tile without its margin."""
        means = (x * self._weights).mean(SPATIAL_AXES, keepdim=True)
        return conv2d(means, _make_group_matrix(norm).T[..., None, None] / _group_size(norm))

    def _select(self, measured: Tensor, given: Tensor) -> Tensor:
        return measured * self._use_tile + given * (1 - self._use_tile)


def _normalize(norm: nn.GroupNorm, x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Normalizes x (1, channels, height, width) with moments (1, groups, 1, 1)."""
    weight, bias = (parameter[None, :, None, None] for parameter in (norm.weight, norm.bias))
    return (x - _expand_groups(norm, mean)) / _expand_groups(norm, deviation) * weight + bias


def _expand_groups(norm: nn.GroupNorm, values: Tensor) -> Tensor:
    """Repeats the values of groups (1, groups, 1, 1) for their channels, (1, channels, 1, 1)."""
    return conv2d(values, _make_group_matrix(norm)[..., None, None])


def _make_group_matrix(norm: nn.GroupNorm) -> Tensor:
    """Returns (channels, groups): 1 where a channel belongs to a group."""
    return torch.eye(norm.num_groups).repeat_interleave(_group_size(norm), 0)


def _group_size(norm: nn.GroupNorm) -> int:
    return norm.num_channels // norm.num_groups
