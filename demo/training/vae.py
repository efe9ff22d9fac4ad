"""Trains the VAE on crops of signs, and later sharpens its decoder."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from ..signs import dataset
from .images import render_images, save_sheet, stream_signs
from .stage import DEVICE, TrainingStage, load_modules


def make_vae() -> Any:
    """Returns an untrained VAE."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64, 96, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=16,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).to(DEVICE, memory_format=torch.channels_last)


def draw_crops(rng: np.random.Generator, stream: Iterator[dataset.Sign], count: int, random_colours: bool) -> Tensor:
    """Draws 64-pixel crops on the patch grid. Half of them may have random colours, so that latents hold any colour."""
    size = 64
    batch = [next(stream) for _ in range(count)]
    images = torch.cat([render_images(batch[::2]), render_images(batch[1::2], random_colours)])
    offsets = rng.integers(0, (images.shape[-1] - size) // 16 + 1, (count, 2)) * 16
    patches = [image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, offsets, strict=True)]
    return torch.stack(patches).contiguous(memory_format=torch.channels_last)


def image_loss(out: Tensor, target: Tensor) -> Tensor:
    """Returns L1 + 2 MSE + L1 of horizontal and vertical differences, which matter for OCR."""
    error = out - target
    edges: Tensor = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def train_vae(run: Path, steps: int, batch: int) -> None:
    """Trains the VAE and measures its latents."""
    torch.manual_seed(0)
    vae = make_vae()
    rng, stream = np.random.default_rng(), stream_signs(random.randrange(2**32))

    def compute_loss() -> Tensor:
        target = draw_crops(rng, stream, batch, random_colours=True)
        latent = vae.encode(target).latent_dist.mean
        out = vae.decode(latent + 0.1 * torch.randn_like(latent)).sample
        loss: Tensor = image_loss(out.float(), target) + 1e-3 * latent.float().square().mean()
        return loss

    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    TrainingStage(run / "vae.pt", {"vae": vae}, [optimizer], steps).run(compute_loss, 3e-3)
    measure_latents(run, vae)
    report_vae(run, vae)


@torch.no_grad()
def measure_latents(run: Path, vae: Any) -> None:
    """Writes mean and standard deviation of the latents of 256 signs, which normalise the transformer's targets."""
    rng = random.Random(7)
    images = render_images([dataset.draw_sign(rng) for _ in range(256)])
    latent = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(32)])
    (run / "latents.json").write_text(json.dumps({"mean": latent.mean().item(), "std": latent.std().item()}))


@torch.no_grad()
def report_vae(run: Path, vae: Any) -> None:
    """Prints the reconstruction PSNR, and writes a sheet of original and decoded signs."""
    rng = random.Random(8)
    images = render_images([dataset.draw_sign(rng) for _ in range(32)])
    out = vae.decode(vae.encode(images).latent_dist.mean).sample
    psnr = 10 * torch.log10(4 / (out.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3)))
    click.echo(f"vae: {psnr.mean():.2f} dB")
    save_sheet(torch.cat([images[:16], out[:16]]), run / "vae.png")


def train_decoder(run: Path, steps: int, batch: int) -> None:
    """Sharpens the decoder on crops without random colours. The encoder, and so the latents, stay."""
    torch.manual_seed(3)
    vae = make_vae()
    load_modules(run / "vae.pt", vae=vae)
    vae.encoder.requires_grad_(False)
    rng, stream = np.random.default_rng(), stream_signs(random.randrange(2**32))

    def compute_loss() -> Tensor:
        target = draw_crops(rng, stream, batch, random_colours=False)
        with torch.no_grad():
            latent = vae.encode(target).latent_dist.mean
        out = vae.decode(latent + 0.1 * torch.randn_like(latent)).sample
        return image_loss(out.float(), target)

    optimizer = torch.optim.AdamW(vae.decoder.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    TrainingStage(run / "decoder.pt", {"vae": vae}, [optimizer], steps).run(compute_loss, 1.5e-3)
    report_vae(run, vae)
