"""The pipeline of the trained components, and its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..signs import dataset
from .tokenizer import load_tokenizer


def build_pipeline(run: Path, vae: Any, text: Any, dit: Any) -> Any:
    """Returns the pipeline of the components, with the VAE normalised by the measured latents."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    statistics = json.loads((run / "latents.json").read_text())
    vae.register_to_config(scaling_factor=1 / statistics["std"], shift_factor=statistics["mean"])
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    return ZImagePipeline(
        scheduler=scheduler, vae=vae, text_encoder=text, tokenizer=load_tokenizer(run), transformer=dit
    )


def generate_images(pipeline: Any, batch: list[dataset.Sign]) -> Tensor:
    """Generates images of the signs' prompts in -1..1, shape (n, 3, 128, 128). The position seeds the noise."""
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images: Tensor = pipeline(
            [sign.prompt for sign in batch],
            height=128,
            width=128,
            num_inference_steps=8,
            guidance_scale=0.0,
            max_sequence_length=64,
            generator=[torch.Generator().manual_seed(i) for i in range(len(batch))],
            output_type="pt",
        ).images
    return images * 2 - 1
