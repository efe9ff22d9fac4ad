"""Qwen-Image's components as functions of tensors: what the exported graphs compute.

Patches and rotary tables are inputs. Inputs and outputs are float32, whatever the dtype of the weights. The modules
modify the component: they replace its attention processors, and its convolutions of videos by those of one frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..flux.graphs import FluxRealRopeProcessor
from ..shared.vae import VaeEncoder

NUM_AXES = 3  # of positions in Qwen2.5-VL: time, row and column; all the same for text


class QwenTextEncoder(nn.Module):
    """Returns the normalized hidden states of the last layer of the language model."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids (1, T) int64 to hidden states (1, T, D)."""
        language_model = self.model.model.language_model
        states: Tensor = language_model.embed_tokens(ids)
        positions = torch.arange(ids.shape[1])[None, None].expand(NUM_AXES, 1, -1)
        angles = language_model.rotary_emb(states, positions)
        for layer in language_model.layers:
            states = layer(states, attention_mask=None, position_embeddings=angles)
        hidden: Tensor = language_model.norm(states)
        return hidden.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes the ids of T tokens."""
        return (torch.zeros(1, sizes["T"], dtype=torch.int64),)


class QwenTransformer(nn.Module):
    """One denoising step: predicts the velocity of an image's patches."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        for block in component.transformer_blocks:
            block.attn.set_processor(QwenRealRopeProcessor())

    def forward(
        self,
        patches: Tensor,
        timestep: Tensor,
        hidden: Tensor,
        image_cos: Tensor,
        image_sin: Tensor,
        text_cos: Tensor,
        text_sin: Tensor,
    ) -> Tensor:
        """Computes the transformer's output, as diffusers does.

        Args:
            patches: Patches of the latents, (1, N, channels).
            timestep: From 1 (noise) to 0, (1,).
            hidden: Hidden states of the text encoder, (1, L, width).
            image_cos: Cosines of the image's positions, (N, head size / 2).
            image_sin: Sines of the image's positions, (N, head size / 2).
            text_cos: Cosines of the prompt's positions, (L, head size / 2).
            text_sin: Sines of the prompt's positions, (L, head size / 2).

        Returns:
            Velocity, (1, N, channels).
        """
        dtype, model = self.model.dtype, self.model
        image, text = model.img_in(patches.to(dtype)), model.txt_in(model.txt_norm(hidden.to(dtype)))
        modulation = model.time_text_embed(timestep.to(dtype), image)
        angles = torch.cat([text_cos, image_cos]), torch.cat([text_sin, image_sin])
        for block in model.transformer_blocks:
            text, image = block(image, text, None, modulation, angles)
        velocity: Tensor = model.proj_out(model.norm_out(image, modulation))
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches and L tokens."""
        image, text, config = sizes["N"], sizes["L"], self.model.config
        half = sum(config.axes_dims_rope) // 2
        angles = (torch.zeros(length, half) for length in (image, image, text, text))
        hidden = torch.zeros(1, text, config.joint_attention_dim)
        return torch.zeros(1, image, config.in_channels), torch.zeros(1), hidden, *angles


class QwenRealRopeProcessor(FluxRealRopeProcessor):
    """An attention processor that applies rotary embedding by ONNX's operator; no token of the prompt is a pad."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        encoder_hidden_states_mask: Tensor | None = None,  # noqa: ARG002  diffusers passes it by name
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Computes attention as `FluxRealRopeProcessor` does."""
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)


class QwenDecoder(nn.Module):
    """Decodes the latents of an image, a video of one frame, that are already scaled back."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = use_single_frames(component)

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents (1, channels, h, w) to an image (1, 3, 8h, 8w) in [-1, 1]."""
        video = self.model.decoder(self.model.post_quant_conv(latents[:, :, None].to(self.model.dtype)))
        image: Tensor = video[:, :, 0].clamp(-1, 1)
        return image.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes latents of h by w."""
        return (torch.zeros(1, self.model.config.z_dim, sizes["h"], sizes["w"]),)


class QwenEncoder(VaeEncoder):
    """Encodes an image, a video of one frame, to the distribution of its latents, before they are scaled."""

    def __init__(self, component: Any) -> None:
        super().__init__(use_single_frames(component))

    def compute_moments(self, image: Tensor) -> Tensor:
        """Maps an image (1, 3, 8h, 8w) to means and logarithms of variances (1, 2 * channels, h, w)."""
        moments: Tensor = self.model.quant_conv(self.model.encoder(image[:, :, None]))[:, :, 0]
        return moments


class FrameConvolution(nn.Module):
    """A causal convolution of videos, for one frame: the frames before it, and so all slices but one, are zeros."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        left, _, top, *_ = convolution._padding
        self._padding = top, left

    def forward(self, video: Tensor, _cache: Tensor | None = None) -> Tensor:
        """Maps a frame (1, channels, 1, h, w) to one (1, channels', 1, h, w)."""
        return F.conv2d(video[:, :, 0], self.weight[:, :, -1], self.bias, padding=self._padding)[:, :, None]


class DoublingUpsample(nn.Module):
    """Repeats rows and columns: nearest and exactly nearest neighbours are the same at a factor of 2."""

    def forward(self, frame: Tensor) -> Tensor:
        """Maps a frame (1, channels, h, w) to one (1, channels, 2h, 2w)."""
        return F.interpolate(frame, scale_factor=2.0, mode="nearest")


def use_single_frames(component: Any) -> Any:
    """Replaces what a VAE reads and writes videos with by what does the same for one frame, in place."""
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d, QwenImageUpsample

    for name, module in list(component.named_modules()):
        if isinstance(module, QwenImageCausalConv3d):
            component.set_submodule(name, FrameConvolution(module))
        elif isinstance(module, QwenImageUpsample):
            component.set_submodule(name, DoublingUpsample())
    return component
