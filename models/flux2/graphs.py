"""FLUX.2 klein's components as functions of tensors: what the exported graphs compute.

Masks, patches and rotary tables are inputs. Inputs and outputs are float32, whatever the dtype of the weights. The
modules modify the component: they replace its attention processors, and make parameters of stored statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..flux.graphs import FluxRealRopeProcessor
from ..shared.rotary import apply_rotary_embedding
from ..shared.vae_tiling_graphs import FirstStage


class KleinTextEncoder(nn.Module):
    """Returns the states after several layers of a causal text encoder, concatenated by channels."""

    def __init__(self, component: Any, read_layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.read_layers = component.base_model, read_layers

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encodes a prompt.

        Args:
            ids: Token ids, pads included, (1, T) int64.
            mask: What is added to attention scores, (1, 1, T, T).

        Returns:
            Hidden states, (1, T, 3 * width).
        """
        states: Tensor = self.model.embed_tokens(ids)
        angles = self.model.rotary_emb(states, torch.arange(ids.shape[1])[None])
        mask, read = mask.to(states.dtype), []
        for number, layer in enumerate(self.model.layers[: self.read_layers[-1]], 1):
            states = layer(states, attention_mask=mask, position_embeddings=angles)
            if number in self.read_layers:
                read.append(states)
        return torch.cat(read, dim=-1).float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for T tokens."""
        length = sizes["T"]
        return torch.zeros(1, length, dtype=torch.int64), torch.zeros(1, 1, length, length)


class KleinTransformer(nn.Module):
    """One denoising step: predicts the velocity of an image's patches."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        for block in component.transformer_blocks:
            block.attn.set_processor(FluxRealRopeProcessor())
        for block in component.single_transformer_blocks:
            block.attn.set_processor(ParallelRealRopeProcessor())

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
            hidden: Output of `KleinTextEncoder`, (1, T, width).
            image_cos: Cosines of the image's positions, (N, head size / 2).
            image_sin: Sines of the image's positions, (N, head size / 2).
            text_cos: Cosines of the prompt's positions, (T, head size / 2).
            text_sin: Sines of the prompt's positions, (T, head size / 2).

        Returns:
            Velocity, (1, N, channels).
        """
        dtype, model = self.model.dtype, self.model
        time = model.time_guidance_embed((timestep * 1000).to(dtype), None)
        image_modulation = model.double_stream_modulation_img(time)
        text_modulation = model.double_stream_modulation_txt(time)
        angles = torch.cat([text_cos, image_cos]), torch.cat([text_sin, image_sin])
        image, text = model.x_embedder(patches.to(dtype)), model.context_embedder(hidden.to(dtype))
        for block in model.transformer_blocks:
            text, image = block(image, text, image_modulation, text_modulation, angles)
        states, modulation = torch.cat([text, image], dim=1), model.single_stream_modulation(time)
        for block in model.single_transformer_blocks:
            states = block(states, None, modulation, angles)
        velocity: Tensor = model.proj_out(model.norm_out(states[:, hidden.shape[1] :], time))
        return velocity.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Makes inputs for N patches and T tokens."""
        image, text, config = sizes["N"], sizes["T"], self.model.config
        half = sum(config.axes_dims_rope) // 2
        angles = (torch.zeros(length, half) for length in (image, image, text, text))
        hidden = torch.zeros(1, text, config.joint_attention_dim)
        return torch.zeros(1, image, config.in_channels), torch.zeros(1), hidden, *angles


class ParallelRealRopeProcessor:
    """A processor of attention and feed-forward in parallel that applies rotary embedding by ONNX's operator."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,  # noqa: ARG002  diffusers passes these by name and position
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Computes attention and feed-forward.

        Args:
            attn: The attention module.
            hidden_states: Text and image tokens, (1, tokens, dim).
            attention_mask: Not used.
            image_rotary_emb: Cos and sin of all tokens, (tokens, head size / 2) each.
        """
        assert image_rotary_emb is not None
        sizes = [attn.inner_dim] * 3 + [attn.mlp_hidden_dim * attn.mlp_mult_factor]
        *rows, gated = attn.to_qkv_mlp_proj(hidden_states).split(sizes, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in rows)
        query, key = (
            apply_rotary_embedding(norm(part), *image_rotary_emb)
            for norm, part in ((attn.norm_q, query), (attn.norm_k, key))
        )
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        output: Tensor = attn.to_out(torch.cat([attended, attn.mlp_act_fn(gated)], dim=-1))
        return output


class KleinDecoder(nn.Module):
    """Decodes latents as the denoiser makes them: normalized, and patches stacked as channels."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = store_statistics(component)

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents (1, 4 * channels, h, w) to an image (1, 3, 16h, 16w) in [-1, 1]."""
        image: Tensor = self.model.decode(denormalize(self.model, latents), return_dict=False)[0]
        return image.float()

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes latents of h by w."""
        return (_example_latents(self.model, sizes),)


class KleinFirstStage(FirstStage):
    """The first stage of decoding in tiles."""

    def __init__(self, component: Any) -> None:
        super().__init__(store_statistics(component))

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents (1, 4 * channels, h, w) to features (1, C, 2h, 2w)."""
        return super().forward(denormalize(self.model, latents))

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        """Makes latents of h by w."""
        return (_example_latents(self.model, sizes),)


def store_statistics(component: Any) -> Any:
    """Makes parameters of the statistics of a VAE's batch norm, which as buffers would become constants of a graph."""
    for name in ("running_mean", "running_var"):
        statistic = getattr(component.bn, name)
        if not isinstance(statistic, nn.Parameter):
            delattr(component.bn, name)
            setattr(component.bn, name, nn.Parameter(statistic, requires_grad=False))
    return component


def denormalize(component: Any, latents: Tensor) -> Tensor:
    """Maps latents (1, 4 * channels, h, w) of the denoiser to those of the VAE, (1, channels, 2h, 2w)."""
    norm = component.bn
    deviation = torch.sqrt(norm.running_var.float() + component.config.batch_norm_eps)
    latents = latents * deviation.reshape(1, -1, 1, 1) + norm.running_mean.float().reshape(1, -1, 1, 1)
    return F.pixel_shuffle(latents, component.config.patch_size[0]).to(component.dtype)


def _example_latents(component: Any, sizes: Mapping[str, int]) -> Tensor:
    config = component.config
    channels = config.latent_channels * config.patch_size[0] * config.patch_size[1]
    return torch.zeros(1, channels, sizes["h"], sizes["w"])
