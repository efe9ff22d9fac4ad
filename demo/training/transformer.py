"""Trains the transformer, together with the text encoder, by flow matching."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..signs import dataset
from .images import render_images, save_sheet, stream_signs
from .pipeline import build_pipeline, generate_images
from .stage import DEVICE, TrainingStage, load_modules
from .text_encoder import encode_prompts, make_text_encoder
from .tokenizer import load_tokenizer
from .vae import make_vae

POOL_SIZE = 2048  # encoded signs; a quarter of a batch is replaced at each step
EMA_DECAY = 0.998


def make_dit() -> Any:
    """Returns an untrained transformer."""
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        in_channels=16,
        dim=384,
        n_layers=5,
        n_refiner_layers=1,
        n_heads=6,
        n_kv_heads=6,
        cap_feat_dim=256,
        axes_dims=[16, 24, 24],
        axes_lens=[256, 64, 64],
    ).to(DEVICE)


class RealRotaryProcessor:
    """The transformer's attention with rotary embedding in real numbers, which can be compiled. For training only."""

    def __call__(self, attn: Any, hidden_states: Tensor, freqs_cis: Tensor, **_: Any) -> Tensor:
        cos, sin = freqs_cis.real.unsqueeze(2), freqs_cis.imag.unsqueeze(2)

        def rotate(x: Tensor) -> Tensor:
            a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(3).type_as(x).transpose(1, 2)

        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = rotate(attn.norm_q(query)), rotate(attn.norm_k(key))
        out = F.scaled_dot_product_attention(query, key, value.transpose(1, 2))
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


class LatentPool:
    """Signs and their normalised latents (16, 16, 16), each encoded once and used about four times."""

    def __init__(self, run: Path, vae: Any) -> None:
        statistics = json.loads((run / "latents.json").read_text())
        self.mean, self.std = statistics["mean"], statistics["std"]
        self.vae, self.stream = vae.eval(), stream_signs(random.randrange(2**32))
        self.signs: list[dataset.Sign] = []
        self.latents = torch.empty(POOL_SIZE, 16, 16, 16, device=DEVICE)
        self.oldest = 0
        for _ in range(POOL_SIZE // 32):
            self.renew(32)

    @torch.no_grad()
    def renew(self, count: int) -> None:
        """Replaces the oldest signs."""
        drawn = [next(self.stream) for _ in range(count)]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            images = render_images(drawn).contiguous(memory_format=torch.channels_last)
            latents = (self.vae.encode(images).latent_dist.mean.float() - self.mean) / self.std
        for sign, latent in zip(drawn, latents, strict=True):
            self.latents[self.oldest] = latent
            self.signs[self.oldest : self.oldest + 1] = [sign]
            self.oldest = (self.oldest + 1) % POOL_SIZE

    def batch(self, count: int) -> tuple[list[dataset.Sign], Tensor]:
        """Returns random signs and their latents, and replaces a quarter as many."""
        self.renew(count // 4)
        chosen = random.sample(range(POOL_SIZE), count)
        return [self.signs[i] for i in chosen], self.latents[chosen]


def draw_noise_levels(count: int) -> Tensor:
    """Draws sigmas: 70 % distributed as in sampling (shift 3), 30 % uniform."""
    u = torch.rand(count, device=DEVICE)
    return torch.where(torch.rand(count, device=DEVICE) < 0.7, 3 * u / (1 + 2 * u), u)


def compute_flow_loss(dit: Any, clean: Tensor, captions: list[Tensor]) -> Tensor:
    """Computes the loss of flow matching at random noise levels.

    Args:
        dit: The transformer.
        clean: Normalised latents, (n, 16, 16, 16).
        captions: The features of each prompt, (tokens, 256).
    """
    sigma = draw_noise_levels(len(clean))
    noise = torch.randn_like(clean)
    noisy = clean + sigma[:, None, None, None] * (noise - clean)
    out = dit(list(noisy.unsqueeze(2)), 1 - sigma, captions, return_dict=False)[0]
    return F.mse_loss(torch.stack(out).squeeze(2).float(), clean - noise)


def make_optimizers(dit: Any, text: Any) -> list[torch.optim.Optimizer]:
    """Returns Muon for the matrices inside the blocks, AdamW for the rest; the text encoder gets 0.3 of the rate."""
    inside = [p for n, p in dit.named_parameters() if p.ndim == 2 and ("attention" in n or "feed_forward" in n)]
    chosen = {id(p) for p in inside}
    rest = [p for p in dit.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(inside, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": rest}, {"params": text.parameters(), "scale": 0.3}], betas=(0.9, 0.95), weight_decay=0.01
        ),
    ]


def train_dit(run: Path, steps: int, batch: int) -> None:
    """Trains the transformer and the text encoder by flow matching."""
    torch.manual_seed(2)
    tokenizer = load_tokenizer(run)
    vae, text, dit = make_vae(), make_text_encoder(len(tokenizer)), make_dit()
    load_modules(run / "vae.pt", vae=vae)
    load_modules(run / "text.pt", text=text)
    averages = {"text_ema": copy.deepcopy(text), "dit_ema": copy.deepcopy(dit)}
    for block in (*dit.noise_refiner, *dit.context_refiner, *dit.layers):
        block.attention.set_processor(RealRotaryProcessor())
        block.compile()
    pool = LatentPool(run, vae)
    sheet = dataset.held_out_signs("calibration")[:32]

    def compute_loss() -> Tensor:
        drawn, clean = pool.batch(batch)
        features, lengths = encode_prompts(text, tokenizer, drawn)
        return compute_flow_loss(dit, clean, [row[:n] for row, n in zip(features, lengths, strict=True)])

    def on_step(step: int) -> None:
        for average, module in ((averages["text_ema"], text), (averages["dit_ema"], dit)):
            pairs = list(zip(average.parameters(), module.parameters(), strict=True))
            with torch.no_grad():
                torch._foreach_lerp_(
                    [a for a, _ in pairs], [b for _, b in pairs], 1 - min(EMA_DECAY, step / (step + 10))
                )
        if step % 500 == 0:
            pipeline = build_pipeline(run, vae, averages["text_ema"], averages["dit_ema"])
            save_sheet(generate_images(pipeline, sheet), run / f"dit-{step:06d}.png")

    modules = {"text": text, "dit": dit, **averages}
    TrainingStage(run / "dit.pt", modules, make_optimizers(dit, text), steps).run(compute_loss, 2e-3, on_step)
