"""AutoencoderKL's decoder in stages, so that a picture can be decoded in tiles and be the one that is decoded whole.

What sees the whole picture in a decoder are its norms and the attention in its middle. So the first stage, at the
latents' resolution, runs as one; of the others each takes a tile of the stage before with a margin around it, and the
moments of its norms over the whole picture, which it is told and measures (`runtime/tiles.py` says how).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .vae_tiling import UPSCALE

ApplyNorm = Callable[[nn.GroupNorm, Tensor], Tensor]  # each norm in its turn, of features (1, channels, height, width)


class Begin(nn.Module):
    """The first stage: the middle block and the first upward block's residual blocks."""

    num_stages = 1  # that run whole, this one with them

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, latents: Tensor) -> Tensor:
        """latents (1, channels, h, w) -> features (1, C, h, w)."""
        features = latents.to(self.model.dtype)
        if self.model.post_quant_conv is not None:
            features = self.model.post_quant_conv(features)
        decoder = self.model.decoder
        features = self.run_middle(decoder.conv_in(features))
        for number in range(self.num_stages):
            if number:
                (upsampler,) = decoder.up_blocks[number - 1].upsamplers
                features = upsampler(features)
            for block in decoder.up_blocks[number].resnets:
                features = block(features, None)
        found: Tensor = features.float()
        return found

    def run_middle(self, features: Tensor) -> Tensor:
        """(1, C, h, w) of the middle block."""
        made: Tensor = self.model.decoder.mid_block(features)
        return made

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Latents of h by w."""
        return (torch.zeros(1, self.model.config.latent_channels, sizes["h"], sizes["w"]),)


class Up(nn.Module):
    """A later stage: upsampling, then an upward block's residual blocks, and after the last of them the picture."""

    number: int  # of the upward block

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, features: Tensor, rows: Tensor, columns: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
        """A tile, and what its norms measured.

        Args:
            features: (1, C, h, w), a tile of the stage before with its margin.
            rows, columns: (h,) and (w,), 1 in the tile and 0 in its margin.
            moments: (norms, 2, groups), means and variances over the whole picture; where a variance is negative, the
                norm takes its tile's own.

        Returns:
            features (1, C', 2h, 2w) and measured (norms, 2, groups), the moments over this tile without its margin.
        """
        norms = _TileNorms(rows.repeat_interleave(UPSCALE), columns.repeat_interleave(UPSCALE), moments)
        features = run_up_stage(self.model.decoder, self.number, features.to(self.model.dtype), norms)
        return features.float(), torch.stack(norms.measured)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """A tile of h by w."""
        features = torch.zeros(1, get_input_channels(self.model.decoder, self.number), sizes["h"], sizes["w"])
        moments = torch.zeros(count_norms(self.model.decoder, self.number), 2, self.model.config.norm_num_groups)
        return features, torch.ones(sizes["h"]), torch.ones(sizes["w"]), moments


def get_input_channels(decoder: Any, number: int) -> int:
    """Of the features that a later stage takes."""
    channels: int = decoder.up_blocks[number - 1].resnets[-1].out_channels
    return channels


def count_norms(decoder: Any, number: int) -> int:
    """Group norms of a later stage, in the order in which `upward` comes to them."""
    return 2 * len(decoder.up_blocks[number].resnets) + (number == len(decoder.up_blocks) - 1)


def run_up_stage(decoder: Any, number: int, features: Tensor, norms: ApplyNorm) -> Tensor:
    """A later stage of a decoder, (1, C, h, w) -> (1, C', 2h, 2w), its norms computed by `norms`."""
    (upsampler,) = decoder.up_blocks[number - 1].upsamplers
    features = upsampler(features)
    for block in decoder.up_blocks[number].resnets:
        features = _run_resnet(block, features, norms)
    if number == len(decoder.up_blocks) - 1:
        features = decoder.conv_out(decoder.conv_act(norms(decoder.conv_norm_out, features)))
    return features


class Up1(Up):
    number = 1


class Up2(Up):
    number = 2


class Up3(Up):
    number = 3


class _TileNorms:
    """Group norms one after another, with moments that are given; collects those that are measured."""

    def __init__(self, rows: Tensor, columns: Tensor, moments: Tensor) -> None:
        self._rows, self._columns, self._moments = rows, columns, moments
        self.measured: list[Tensor] = []

    def __call__(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """x (1, channels, height, width), normalized in float32 and given back in its dtype."""
        groups = x.float().unflatten(1, (norm.num_groups, -1))
        mean = self._masked_mean(groups)
        variance = self._masked_mean((groups - mean[:, None, None, None]).square())
        given = self._moments[len(self.measured)]
        self.measured.append(torch.stack([mean, variance]))
        own = given[1] < 0
        mean, variance = torch.where(own, mean, given[0]), torch.where(own, variance, given[1])
        weight = norm.weight.float().unflatten(0, (norm.num_groups, -1)) * (variance + norm.eps).rsqrt()[:, None]
        bias = norm.bias.float().unflatten(0, (norm.num_groups, -1)) - mean[:, None] * weight
        normalized: Tensor = (groups * weight[..., None, None] + bias[..., None, None]).flatten(1, 2)
        return normalized.to(x.dtype)

    def _masked_mean(self, groups: Tensor) -> Tensor:
        """The mean of (1, groups, channels, height, width) over the tile without its margin, (groups,)."""
        rows, columns = self._rows / self._rows.sum(), self._columns / self._columns.sum()
        return ((groups @ columns) @ rows).mean(2)[0]


def _run_resnet(block: Any, x: Tensor, norms: ApplyNorm) -> Tensor:
    """diffusers' ResnetBlock2D without a time embedding."""
    inner = block.conv1(block.nonlinearity(norms(block.norm1, x)))
    inner = block.conv2(block.nonlinearity(norms(block.norm2, inner)))
    skip = x if block.conv_shortcut is None else block.conv_shortcut(x)
    summed: Tensor = (skip + inner) / block.output_scale_factor
    return summed
