"""Runs in a process with open_clip on its path: embeds images and prompts, and loads weights that must be refused."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

# torchvision's compiled part lacks these operators if torch is a CPU build; nothing here calls them.
operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from edgepress.common.errors import UserError  # noqa: E402
from edgepress.evaluate.backends.clip.embedder import load_encoders  # noqa: E402
from edgepress.evaluate.backends.clip.spec import parse_clip_spec  # noqa: E402
from edgepress.evaluate.images.image_file import load_image  # noqa: E402

SIZES = ((640, 427), (427, 640), (641, 480), (480, 641), (640, 480), (129, 128), (128, 131), (64, 64), (5, 3))


def embed(spec: str, images: dict[str, str]) -> dict[str, list[list[float]]]:
    """Returns the embeddings of image and prompt, by prompt."""
    encoders = load_encoders(parse_clip_spec(spec))
    assert encoders.library.startswith("open_clip")
    assert encoders.tokenize
    embeddings = {}
    for text, file in images.items():
        tokens = encoders.tokenize(text, encoders.context_length)
        pair = encoders.encode_image(load_image(Path(file))), encoders.encode_text(tokens)
        embeddings[text] = [(vector / vector.norm()).tolist() for vector in pair]
    return embeddings


def count_differences(spec: str) -> int:
    """Returns the number of image sizes for which open_clip itself prepares an image otherwise."""
    preprocessing = load_encoders(parse_clip_spec(spec)).preprocessing
    _, transform = open_clip.create_model_from_pretrained(spec)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    return sum(not torch.equal(preprocessing.apply(image), transform(Image.fromarray(image))[None]) for image in images)


def is_refused(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> bool:
    """Returns whether the weights are refused after a change."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder, Path(temporary) / "clip"))
        weights = load_file(copy / "open_clip_model.safetensors")
        change(weights)
        save_file(weights, copy / "open_clip_model.safetensors")
        try:
            load_encoders(parse_clip_spec(f"local-dir:{copy}"))
        except UserError:
            return True
        return False


def resize_positions(weights: dict[str, torch.Tensor]) -> None:
    """Replaces the position embeddings by those of a larger image, which open_clip would interpolate."""
    weights["visual.positional_embedding"] = torch.tensor(np.zeros((26, 32), np.float32))


def main() -> None:
    job, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    folder = parse_clip_spec(job["small"]).path
    with tempfile.TemporaryDirectory() as temporary:  # registers the small model under a name
        config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        config["text_cfg"]["hf_tokenizer_name"] = str(folder)
        (Path(temporary) / "named.json").write_text(json.dumps(config))
        open_clip.add_model_config(Path(temporary) / "named.json")
        refused = {
            "missing": is_refused(folder, lambda weights: weights.pop("text_projection")),
            "resized": is_refused(folder, resize_positions),
            "unknown": is_refused(folder, lambda weights: weights.update(more=torch.zeros(2))),
        }
        specs = {"demo": job["demo"], "small": job["small"], "named": f"named:{folder / 'open_clip_model.safetensors'}"}
        embeddings = {name: embed(spec, job["images"]) for name, spec in specs.items()}
        differences = {"differences": count_differences(job["demo"]) + count_differences(job["small"])}
    output.write_text(json.dumps(embeddings | differences | {"refused": refused}))


if __name__ == "__main__":
    main()
