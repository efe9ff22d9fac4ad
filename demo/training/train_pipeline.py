"""Trains the demo pipeline in stages.

    python -m edgepress.demo.training.train_pipeline --stage STAGE

The stages, in this order:

    tokenizer   byte-level BPE over the prompts
    vae         AutoencoderKL, on crops of signs; then mean and standard deviation of the latents
    text        Qwen3 learns to predict, at each character's token, the character, its position and its style
    dit         ZImageTransformer2DModel, together with Qwen3, by flow matching
    decoder     sharpens the VAE's decoder; the encoder, and with it the latents, stay
    save        writes the bfloat16 diffusers folder

Data is drawn on the fly by demo/signs/dataset.py. Every stage saves a checkpoint every few minutes under --run, resumes
from it, prints its loss, and writes sample sheets. It runs on CPU or CUDA with bfloat16 autocast.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
import torch

from ...prompts.prompt import save_prompts
from ..signs import dataset
from .pipeline import build_pipeline
from .stage import DEVICE, load_modules
from .text_encoder import make_text_encoder, train_text
from .tokenizer import load_tokenizer, train_tokenizer
from .transformer import make_dit, train_dit
from .vae import make_vae, train_decoder, train_vae


def save_pipeline(run: Path, folder: Path) -> None:
    """Writes the trained components as one bfloat16 diffusers folder, with the held-out prompt sets."""
    vae, text, dit = make_vae(), make_text_encoder(len(load_tokenizer(run))), make_dit()
    load_modules(run / ("decoder.pt" if (run / "decoder.pt").exists() else "vae.pt"), vae=vae)
    state = torch.load(run / "dit.pt", map_location=DEVICE, weights_only=True)
    text.load_state_dict(state["text_ema"])
    dit.load_state_dict(state["dit_ema"])
    vae.register_to_config(sample_size=dataset.GRID * dataset.PATCH)
    pipeline = build_pipeline(run, vae, text, dit).to(torch.bfloat16)
    pipeline.save_pretrained(folder)
    save_prompt_sets(folder / "prompts")


def save_prompt_sets(folder: Path) -> None:
    """Writes the held-out prompt sets."""
    folder.mkdir(exist_ok=True)
    for split in get_args(dataset.Split):
        save_prompts(dataset.prompt_set(split), folder / f"{split}.jsonl")


@click.command(help=__doc__)
@click.option("--stage", type=click.Choice(["tokenizer", "vae", "text", "dit", "decoder", "save"]), required=True)
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), default=Path("demo/runs"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo/pipeline"), show_default=True)
@click.option("--steps", type=int)
@click.option("--batch", type=int)
def main(stage: str, run: Path, output: Path, steps: int | None, batch: int | None) -> None:
    run.mkdir(parents=True, exist_ok=True)
    if stage == "tokenizer":
        train_tokenizer(run)
    elif stage == "vae":
        train_vae(run, steps or 1300, batch or 32)
    elif stage == "text":
        train_text(run, steps or 600, batch or 128)
    elif stage == "decoder":
        train_decoder(run, steps or 800, batch or 32)
    elif stage == "save":
        save_pipeline(run, output)
    else:
        train_dit(run, steps or 2400, batch or 48)


if __name__ == "__main__":
    main()
