"""A pipeline whose activations float16 cannot hold, which computes the same as another in float32."""

from __future__ import annotations

import shutil
from pathlib import Path

from helpers.tiny import edit_weights

# The norms after queries and keys, attention and feed-forward cancel these.
DIT = {"to_q": 18, "to_k": 18, "to_v": 9, "to_out.0": 12, "w3": 10, "w2": 12}
# What is multiplied at values and up-projections is divided again at the next linear.
TEXT = {"q_proj": 18, "k_proj": 18, "v_proj": 18, "o_proj": -18, "up_proj": 18, "down_proj": -18}


def scale_weights(component: Path, exponents: dict[str, int]) -> None:
    """Multiplies the weights of all linears so named by powers of two."""
    with edit_weights(component) as tensors:
        for name, tensor in tensors.items():
            for linear, exponent in exponents.items():
                if name.endswith(f".{linear}.weight"):
                    tensor *= 2.0**exponent


def copy_enlarged(pipeline: Path, folder: Path) -> Path:
    """Copies a pipeline, its text encoder's small weights enlarged so that they stay normal in float16 when divided."""
    shutil.copytree(pipeline, folder)
    scale_weights(folder / "text_encoder", {"o_proj": 6, "down_proj": 6})
    return folder


def copy_rescaled(original: Path, folder: Path) -> Path:
    shutil.copytree(original, folder)
    scale_weights(folder / "transformer", DIT)
    scale_weights(folder / "text_encoder", TEXT)
    return folder
