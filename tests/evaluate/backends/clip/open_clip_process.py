"""A process of its own, with open_clip on its path: embeds pictures and prompts, and tries what must be refused."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

# torchvision's compiled part misses these where torch is a CPU build; nothing here calls them.
missing = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    missing.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from edgepress.common.errors import UserError  # noqa: E402
from edgepress.evaluate.backends.clip.embedder import load_encoders  # noqa: E402
from edgepress.evaluate.backends.clip.spec import parse_clip_spec  # noqa: E402
from edgepress.evaluate.images.image_file import load_image  # noqa: E402


def embed(spec: str, pictures: dict[str, str]) -> dict[str, list[list[float]]]:
    towers = load_encoders(parse_clip_spec(spec))
    assert towers.library.startswith("open_clip")
    assert towers.tokenize
    found = {}
    for text, file in pictures.items():
        pair = (
            towers.encode_image(load_image(Path(file))),
            towers.encode_text(towers.tokenize(text, towers.context_length)),
        )
        found[text] = [(vector / vector.norm()).tolist() for vector in pair]
    return found


def refused(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> bool:
    """Whether the weights are refused once they are changed."""
    with tempfile.TemporaryDirectory() as new:
        copy = Path(shutil.copytree(folder, Path(new) / "clip"))
        weights = load_file(copy / "open_clip_model.safetensors")
        change(weights)
        save_file(weights, copy / "open_clip_model.safetensors")
        try:
            load_encoders(parse_clip_spec(f"local-dir:{copy}"))
        except UserError:
            return True
        return False


def stretch(weights: dict[str, torch.Tensor]) -> None:
    """Position embeddings of a larger picture, which open_clip would interpolate."""
    weights["visual.positional_embedding"] = torch.tensor(np.zeros((26, 32), np.float32))


def main() -> None:
    job, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    folder = parse_clip_spec(job["small"]).path
    with tempfile.TemporaryDirectory() as new:  # the small one under a name, as open_clip's own architectures have one
        settings = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        settings["text_cfg"]["hf_tokenizer_name"] = str(folder)
        (Path(new) / "named.json").write_text(json.dumps(settings))
        open_clip.add_model_config(Path(new) / "named.json")
        tried = {
            "missing": refused(folder, lambda weights: weights.pop("text_projection")),
            "stretched": refused(folder, stretch),
            "other": refused(folder, lambda weights: weights.update(more=torch.zeros(2))),
        }
        specs = {"demo": job["demo"], "small": job["small"], "named": f"named:{folder / 'open_clip_model.safetensors'}"}
        results = {name: embed(spec, job["pictures"]) for name, spec in specs.items()}
    output.write_text(json.dumps(results | {"refused": tried}))


if __name__ == "__main__":
    main()
