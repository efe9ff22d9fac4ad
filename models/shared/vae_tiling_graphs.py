"""AutoencoderKL's decoder in stages, so that an image decoded in tiles equals the image decoded as a whole.

Only the group norms and the attention of the middle block see the whole image. Therefore the first stage, at the
resolution of the latents, runs on all of it. Each later stage takes a tile of the features before it, with a margin,
and the moments of its norms over the whole image, which the tiles measure (see `runtime/vae_tiling.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .vae_tiling import UPSCALE

ApplyNorm = Callable[[nn.GroupNorm, Tensor], Tensor]  # applies the next norm to features (1, channels, height, width)


class FirstStage(nn.Module):
    """The first stage: the middle block and the residual blocks of the first up block.

    Attributes:
        num_stages: Number of stages that this one runs; more than one if later stages are small enough to run whole.
    """

    num_stages = 1

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents (1, channels, h, w) to features (1, C, h, w)."""
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
        output: Tensor = features.float()
        return output

    def run_middle(self, features: Tensor) -> Tensor:
        """Runs the middle block on features (1, C, h, w)."""
        output: Tensor = self.model.decoder.mid_block(features)
        return output

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes latents of h by w."""
        return (torch.zeros(1, self.model.config.latent_channels, sizes["h"], sizes["w"]),)


class UpStage(nn.Module):
    """A later stage: upsampling and the residual blocks of an up block, and after the last of them the image.

    Attributes:
        number: Index of the up block.
    """

    number: int

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, features: Tensor, rows: Tensor, columns: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Computes a tile and measures the moments of its norms.

        Args:
            features: Tile of the features before this stage, with its margin, (1, C, h, w).
            rows: 1 for rows of the tile, 0 for its margin, (h,).
            columns: The same for columns, (w,).
            moments: Means and variances over the whole image, (norms, 2, groups). Where a variance is negative, the
                norm uses the moments of the tile.

        Returns:
            Features (1, C', 2h, 2w), and the moments over this tile without its margin (norms, 2, groups).
        """
        norms = _TileNorms(rows.repeat_interleave(UPSCALE), columns.repeat_interleave(UPSCALE), moments)
        features = run_up_stage(self.model.decoder, self.number, features.to(self.model.dtype), norms)
        return features.float(), torch.stack(norms.measured)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes a tile of h by w."""
        features = torch.zeros(1, get_input_channels(self.model.decoder, self.number), sizes["h"], sizes["w"])
        moments = torch.zeros(count_norms(self.model.decoder, self.number), 2, self.model.config.norm_num_groups)
        return features, torch.ones(sizes["h"]), torch.ones(sizes["w"]), moments


def get_input_channels(decoder: Any, number: int) -> int:
    """Returns the number of input channels of a later stage."""
    channels: int = decoder.up_blocks[number - 1].resnets[-1].out_channels
    return channels


def count_norms(decoder: Any, number: int) -> int:
    """Returns the number of group norms that `run_up_stage` applies in a later stage."""
    return 2 * len(decoder.up_blocks[number].resnets) + (number == len(decoder.up_blocks) - 1)


def run_up_stage(decoder: Any, number: int, features: Tensor, apply_norm: ApplyNorm) -> Tensor:
    """Runs a later stage of a decoder: (1, C, h, w) -> (1, C', 2h, 2w).

    Args:
        decoder: The decoder.
        number: Index of the up block.
        features: Features before the stage.
        apply_norm: Computes the group norms.
    """
    (upsampler,) = decoder.up_blocks[number - 1].upsamplers
    features = upsampler(features)
    for block in decoder.up_blocks[number].resnets:
        features = _run_resnet(block, features, apply_norm)
    if number == len(decoder.up_blocks) - 1:
        features = decoder.conv_out(decoder.conv_act(apply_norm(decoder.conv_norm_out, features)))
    return features


class UpStage1(UpStage):
    number = 1


class UpStage2(UpStage):
    number = 2


class UpStage3(UpStage):
    number = 3


class _TileNorms:
    """Applies group norms, one after another, with given moments, and collects the moments of the tile."""

    def __init__(self, rows: Tensor, columns: Tensor, moments: Tensor) -> None:
        self._rows, self._columns, self._moments = rows, columns, moments
        self.measured: list[Tensor] = []

    def __call__(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """Normalizes x (1, channels, height, width) in float32 and returns it in its own dtype."""
        groups = x.float().reshape(1, norm.num_groups, -1, *x.shape[2:])
        mean = self._masked_mean(groups)
        variance = self._masked_mean((groups - mean[:, None, None, None]).square())
        given = self._moments[len(self.measured)]
        self.measured.append(torch.stack([mean, variance]))
        use_tile = given[1] < 0
        mean, variance = torch.where(use_tile, mean, given[0]), torch.where(use_tile, variance, given[1])
        weight = norm.weight.float().reshape(norm.num_groups, -1) * (variance + norm.eps).rsqrt()[:, None]
        bias = norm.bias.float().reshape(norm.num_groups, -1) - mean[:, None] * weight
        normalized: Tensor = (groups * weight[..., None, None] + bias[..., None, None]).reshape(x.shape)
        return normalized.to(x.dtype)

    def _masked_mean(self, groups: Tensor) -> Tensor:
        """Returns the means (groups,) of (1, groups, channels, height, width) over the tile without its margin."""
        rows, columns = self._rows / self._rows.sum(), self._columns / self._columns.sum()
        return ((groups @ columns) @ rows).mean(2)[0]


def _run_resnet(block: Any, x: Tensor, apply_norm: ApplyNorm) -> Tensor:
    """Runs a ResnetBlock2D of diffusers without a time embedding."""
    inner = block.conv1(block.nonlinearity(apply_norm(block.norm1, x)))
    inner = block.conv2(block.nonlinearity(apply_norm(block.norm2, inner)))
    skip = x if block.conv_shortcut is None else block.conv_shortcut(x)
    output: Tensor = (skip + inner) / block.output_scale_factor
    return output
