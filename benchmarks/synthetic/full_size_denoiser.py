"""Writes a pipeline whose denoiser has the exact shapes of a published one and random weights, streamed to disk.

    python -m edgepress.benchmarks.synthetic.full_size_denoiser FluxPipeline --output DIR

What the denoiser reads has the published widths too; the rest of the pipeline is tiny, so that the denoiser's cost is
what is measured. FLUX.1 takes 23.8 GB in bfloat16, Qwen-Image 40.9 GB.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from ...storage.checkpoint import write_sharded
from .full_size import draw_weights
from .tiny_pipelines import build_tiny_pipeline
from .tiny_sizes import HEAD_WIDTH

COMPONENT = "transformer"
STEM = "diffusion_pytorch_model"


@dataclass(frozen=True)
class FullSizeDenoiser:
    """A published denoiser and what it reads.

    Attributes:
        model: Name of the published model.
        parameters: Number of its parameters.
        config: Arguments of its class, as the published config.json gives them.
        depth: The arguments that say how many blocks of each kind it has.
        inputs: Changes of the tiny components' configs, so that the denoiser can read their outputs.
    """

    model: str
    parameters: int
    config: dict[str, Any]
    depth: tuple[str, ...]
    inputs: dict[str, dict[str, Any]]

    def with_layers(self, layers: int) -> dict[str, Any]:
        """Returns the arguments of a denoiser of the same width with fewer blocks of each kind."""
        return self.config | dict.fromkeys(self.depth, layers)


# https://huggingface.co/black-forest-labs/FLUX.1-dev and https://huggingface.co/Qwen/Qwen-Image, each transformer's
# config.json.
DENOISERS = {
    "FluxPipeline": FullSizeDenoiser(
        model="FLUX.1-dev",
        parameters=11_901_408_320,
        config={
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": [16, 56, 56],
        },
        depth=("num_layers", "num_single_layers"),
        inputs={
            "text_encoder": {"hidden_size": 768},
            "text_encoder_2": {"d_model": 4096},
            "vae": {"latent_channels": 16},
            COMPONENT: {"joint_attention_dim": 4096, "pooled_projection_dim": 768, "in_channels": 64},
        },
    ),
    "QwenImagePipeline": FullSizeDenoiser(
        model="Qwen-Image",
        parameters=20_430_401_088,
        config={
            "in_channels": 64,
            "out_channels": 16,
            "num_layers": 60,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 3584,
            "axes_dims_rope": [16, 56, 56],
        },
        depth=("num_layers",),
        inputs={
            "text_encoder": {
                "text_config": {"hidden_size": 3584, "num_attention_heads": 3584 // HEAD_WIDTH},
                "vision_config": {"out_hidden_size": 3584},
            },
            "vae": {"z_dim": 16, "latents_mean": [0.0] * 16, "latents_std": [1.0] * 16},
            COMPONENT: {"joint_attention_dim": 3584, "in_channels": 64, "out_channels": 16},
        },
    ),
}


def write_denoiser_pipeline(name: str, folder: Path, layers: int | None = None) -> None:
    """Writes the pipeline folder, unless it exists.

    Args:
        name: A pipeline class, one of `DENOISERS`.
        folder: The folder. It appears only when it is complete.
        layers: Number of blocks of each kind; None for the published number.
    """
    if folder.exists():
        return
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    denoiser = DENOISERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = build_tiny_pipeline(name, denoiser.inputs)
    pipeline.to(torch.bfloat16).save_pretrained(new)
    shutil.rmtree(new / COMPONENT)
    model = make_meta_denoiser(name, layers)
    model.save_config(new / COMPONENT)
    write_sharded(draw_weights(COMPONENT, model), new / COMPONENT, STEM)
    new.replace(folder)


def make_meta_denoiser(name: str, layers: int | None = None) -> Any:
    """Returns the genuine denoiser on the meta device, without memory for its weights."""
    import diffusers

    denoiser = DENOISERS[name]
    cls = getattr(diffusers, name.replace("Pipeline", "Transformer2DModel"))
    with torch.device("meta"):
        return cls(**(denoiser.with_layers(layers) if layers else denoiser.config))


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(DENOISERS)))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The pipeline folder to write.")
@click.option("--layers", type=click.IntRange(1), help="Write fewer blocks of each kind.")
def main(name: str, output: Path, layers: int | None) -> None:
    write_denoiser_pipeline(name, output, layers)


if __name__ == "__main__":
    main()
