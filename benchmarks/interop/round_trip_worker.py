"""Saves a pipeline that stock diffusers opened, and opens it again. `__main__.py` runs this without edgepress.

    python round_trip_worker.py FOLDER OUTPUT.json

auto-round computes with GPTQModel's layers here, which leave packed tensors as they are, in float16. Writes how many
tensors of FOLDER are equal after both, packed ones to the bit and floats to their cast, and whether the image is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from reader_worker import generate_image  # type: ignore[import-not-found, unused-ignore]  # beside this file
from safetensors.torch import load_file
from torch import Tensor

BACKEND, DTYPE = "torch", torch.float16
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def main(source: str, output: str) -> None:
    folder = Path(source)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    components = {name: index[name] for name in index if (folder / name / "config.json").exists() and index[name][0]}
    quantized = {name: entry for name, entry in components.items() if read_quantization(folder / name)}
    models = {name: open_component(folder, name, *entry) for name, entry in quantized.items()}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=DTYPE, **models)
    image = generate_image(pipeline)
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary)
        pipeline.save_pretrained(saved)
        counts = [compare_tensors(read_tensors(folder / name), read_tensors(saved / name)) for name in quantized]
        again = generate_image(diffusers.DiffusionPipeline.from_pretrained(saved, dtype=DTYPE))
    content = {
        "components": list(quantized),
        "tensors": sum(count for count, _ in counts),
        "equal": sum(equal for _, equal in counts),
        "is_image_equal": torch.equal(image, again),
    }
    Path(output).write_text(json.dumps(content), "utf-8")


def read_quantization(component: Path) -> dict[str, Any]:
    """The `quantization_config` of a component; empty if it has none."""
    config: dict[str, Any] = json.loads((component / "config.json").read_text("utf-8"))
    return dict(config.get("quantization_config", {}))


def open_component(folder: Path, name: str, library: str, class_name: str) -> Any:
    """Opens a component with the backend, and all else as its config says."""
    values = {key: value for key, value in read_quantization(folder / name).items() if key != "quant_method"}
    config = LIBRARIES[library].AutoRoundConfig(**values | {"backend": BACKEND})
    loader = getattr(LIBRARIES[library], class_name)
    return loader.from_pretrained(folder / name, dtype=DTYPE, quantization_config=config)


def read_tensors(component: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(component.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def compare_tensors(before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[int, int]:
    """The number of tensors, and of those that are equal after saving, cast to the dtype if they are floats."""
    pairs = [(tensor, after.get(name)) for name, tensor in before.items()]
    equal = [
        new is not None and torch.equal(old.to(DTYPE) if old.is_floating_point() else old, new) for old, new in pairs
    ]
    return len(pairs), sum(equal)


if __name__ == "__main__":
    main(*sys.argv[1:])
