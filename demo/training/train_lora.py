"""Trains the demo's LoRA: signs with pink letters, a colour in which the demo pipeline never wrote.

    python -m edgepress.demo.training.train_lora

The attention of all blocks of the transformer learns; everything else stays as it is. Of the signs, a quarter have the
known colours, so that these are not forgotten. Random draws are seeded. It prints its loss, saves a checkpoint under
--run and resumes from it, and writes the LoRA in diffusers' format with the prompts to evaluate it with.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipelines.hub import DEMO_LORA, DEMO_PIPELINE
from ...prompts.prompt import Prompt, save_prompts
from ..signs import dataset
from .stage import DEVICE, TrainingStage
from .text_encoder import encode_prompts
from .transformer import compute_flow_loss

COLOUR, INK = "pink", (225, 0, 140)  # the demo knows the word, but for walls only
WEIGHTS = f"{COLOUR}.safetensors"
LINEARS = ("to_q", "to_k", "to_v", "to_out.0")  # of the attention in every block
RANK = 4
SIGNS = 512
ENCODED_AT_ONCE = 32
RATE = 4e-3


class LowRankAdapter(nn.Module):
    """What a LoRA adds to the output of a linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, RANK))
        linear.register_forward_hook(lambda _, inputs, output: output + self(inputs[0]))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up)


def draw_signs(rng: random.Random, count: int) -> list[dataset.Sign]:
    """Draws training signs, three of four of them in English and with the new colour."""
    signs: list[dataset.Sign] = []
    while len(signs) < count:
        sign = dataset.draw_sign(rng)
        if len(signs) % 4 == 3:
            signs.append(sign)
        elif sign.language == "en":
            signs.append(replace(sign, colour=COLOUR))
    return signs


def make_prompts() -> list[Prompt]:
    """Returns the prompts of the English evaluation signs, in the new colour."""
    signs = [sign for sign in dataset.held_out_signs("evaluation") if sign.language == "en"]
    return [
        Prompt(id=f"{COLOUR}-{number:03d}", prompt=replace(sign, colour=COLOUR).prompt, language="en", lines=sign.lines)
        for number, sign in enumerate(signs)
    ]


@torch.no_grad()
def encode_signs(pipeline: Any, signs: list[dataset.Sign]) -> tuple[Tensor, list[Tensor]]:
    """Returns the normalised latents of signs, (n, 16, 16, 16), and the features of their prompts."""
    latents, captions = [], []
    rng = np.random.default_rng(0)
    config = pipeline.vae.config
    for start in range(0, len(signs), ENCODED_AT_ONCE):
        part = signs[start : start + ENCODED_AT_ONCE]
        images = [dataset.render_sign(sign, rng, INK if sign.colour == COLOUR else None) for sign in part]
        pixels = torch.from_numpy(np.stack(images)).to(DEVICE).float().permute(0, 3, 1, 2) / 127.5 - 1
        latents.append((pipeline.vae.encode(pixels).latent_dist.mean - config.shift_factor) * config.scaling_factor)
        features, lengths = encode_prompts(pipeline.text_encoder, pipeline.tokenizer, part)
        captions += [row[:length] for row, length in zip(features, lengths, strict=True)]
    return torch.cat(latents), captions


def add_adapters(transformer: nn.Module) -> nn.ModuleDict:
    """Freezes a transformer, and adds adapters to it; returns them by the path of their layer, with `/` for a dot."""
    transformer.requires_grad_(False)
    paths = [path for path, _ in transformer.named_modules() if path.endswith(LINEARS) and "attention" in path]
    layers = {path: transformer.get_submodule(path) for path in paths}
    adapters = {path: LowRankAdapter(layer) for path, layer in layers.items() if isinstance(layer, nn.Linear)}
    return nn.ModuleDict({path.replace(".", "/"): adapter for path, adapter in adapters.items()}).to(DEVICE)


def save_lora(adapters: nn.ModuleDict, folder: Path) -> None:
    """Writes adapters in bfloat16 as diffusers stores a LoRA, with the prompts to evaluate it with."""
    from diffusers import ZImagePipeline

    tensors = {}
    for name, adapter in adapters.items():
        assert isinstance(adapter, LowRankAdapter)
        path = name.replace("/", ".")
        tensors[f"{path}.lora_A.weight"] = adapter.down.detach().bfloat16().cpu()
        tensors[f"{path}.lora_B.weight"] = adapter.up.detach().bfloat16().cpu()
    ZImagePipeline.save_lora_weights(folder, transformer_lora_layers=tensors, weight_name=WEIGHTS)
    save_prompts(make_prompts(), folder / "prompts.jsonl")


@click.command(help=__doc__)
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), default=Path("demo/runs"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=DEMO_LORA)
@click.option("--steps", type=int, default=480, show_default=True)
@click.option("--batch", type=int, default=4, show_default=True)
def main(run: Path, output: Path, steps: int, batch: int) -> None:
    from diffusers import ZImagePipeline

    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = random.Random(0)
    pipeline = ZImagePipeline.from_pretrained(DEMO_PIPELINE, dtype=torch.float32).to(DEVICE)
    latents, captions = encode_signs(pipeline, draw_signs(rng, SIGNS))
    adapters = add_adapters(pipeline.transformer)

    def compute_loss() -> Tensor:
        chosen = rng.sample(range(SIGNS), batch)
        with torch.autocast(DEVICE.type, enabled=False):  # bfloat16 is slow on processors that only emulate it
            return compute_flow_loss(pipeline.transformer, latents[chosen], [captions[index] for index in chosen])

    optimizer = torch.optim.AdamW(adapters.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    TrainingStage(run / "lora.pt", {"adapters": adapters}, [optimizer], steps).run(compute_loss, RATE)
    save_lora(adapters, output)


if __name__ == "__main__":
    main()
