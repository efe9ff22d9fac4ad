"""LoRAs with random values, written as diffusers, PEFT and kohya write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ATTENTION = "layers.0.attention.to_q"
FEED_FORWARD = "layers.0.feed_forward.w2"
RANK = 2
Factors = Mapping[str, tuple[Tensor, Tensor]]


def load_weights(component: Path) -> dict[str, Tensor]:
    """The tensors of a component's only weight file."""
    (file,) = component.glob("*.safetensors")
    return load_file(file)


def make_factors(component: Path, *paths: str, seed: int = 0, size: float = 0.05) -> Factors:
    """Random down (RANK, in) and up (out, RANK) matrices by the path of a linear of the component."""
    weights, generator = load_weights(component), torch.Generator().manual_seed(seed)
    factors = {}
    for path in paths:
        height, width = weights[f"{path}.weight"].shape
        down, up = torch.randn(RANK, width, generator=generator), torch.randn(height, RANK, generator=generator)
        factors[path] = size * down, size * up
    return factors


def merge(component: Path, factors: Factors, path: str, scale: float) -> Tensor:
    """The weight of a linear with a LoRA in it, in float64."""
    down, up = factors[path]
    return load_weights(component)[f"{path}.weight"].double() + scale * (up.double() @ down.double())


def write_diffusers_lora(
    file: Path, factors: Factors, component: str = "transformer", alpha: float | None = None
) -> Path:
    """Without alpha, the scale is 1."""
    tensors = {f"{component}.{path}.lora_A.weight": down for path, (down, _) in factors.items()}
    tensors |= {f"{component}.{path}.lora_B.weight": up for path, (_, up) in factors.items()}
    config = {"r": RANK, "lora_alpha": alpha, "alpha_pattern": {}, "use_rslora": False, "target_modules": list(factors)}
    metadata = {"format": "pt"}
    if alpha is not None:
        metadata["lora_adapter_metadata"] = json.dumps({f"{component}.{key}": value for key, value in config.items()})
    save_file(tensors, file, metadata)
    return file


def write_peft_lora(folder: Path, factors: Factors, alpha: float, **config: object) -> Path:
    folder.mkdir()
    tensors = {f"base_model.model.{path}.lora_A.weight": down for path, (down, _) in factors.items()}
    tensors |= {f"base_model.model.{path}.lora_B.weight": up for path, (_, up) in factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    content = {"peft_type": "LORA", "r": RANK, "lora_alpha": alpha, "target_modules": list(factors)} | config
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def write_kohya_lora(file: Path, factors: Factors, alpha: float) -> Path:
    tensors = {}
    for path, (down, up) in factors.items():
        name = f"lora_unet_{path.replace('.', '_')}"
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(alpha),
        }
    save_file(tensors, file)
    return file
