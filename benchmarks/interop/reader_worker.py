"""Opens an export with the program that it is for. `__main__.py` runs this in an environment without edgepress.

    python reader_worker.py ARTIFACT FOLDER FORMAT...

Writes FOLDER/FORMAT.safetensors: the weight of every linear layer as the program computes with it, float32 (out, in),
which is the layer's outputs for the unit vectors; an image; and whether `save_pretrained` and opening the result again
changes any weight.
"""

from __future__ import annotations

import json
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PROMPT = 'a plain white wall, large red letters, top: "OPEN"'
STEPS, SEED = 8, 0
MAX_REASON = 240  # characters of an error


def main(artifact: str, output: str, *names: str) -> None:
    for name in names:
        write_readings(name, Path(artifact), Path(output) / f"{name}.safetensors")


def write_readings(name: str, artifact: Path, output: Path) -> None:
    """Writes what the program makes of an export."""
    pipeline, components = READERS[name](artifact)
    tensors = dict(pair for component in components for pair in read_weights(component, getattr(pipeline, component)))
    tensors["image"] = generate_image(pipeline)
    saved = describe_saving(pipeline, tensors) if name == "diffusers" else ""
    stored = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(stored, output, {"save_pretrained": saved})


def generate_image(pipeline: Any) -> Tensor:
    """An image, uint8 (height, width, 3)."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    size = {"height": pipeline.vae.config.sample_size, "width": pipeline.vae.config.sample_size}
    with torch.no_grad():
        result = pipeline(PROMPT, num_inference_steps=STEPS, guidance_scale=0.0, generator=generator, **size)
    return torch.from_numpy(np.array(result.images[0]))


def read_weights(component: str, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of all layers that multiply by a matrix: packages replace linear layers by classes of their own."""
    for name, module in model.named_modules():
        width = getattr(module, "in_features", None) or getattr(module, "infeatures", None)
        if width and not list(module.children()):
            yield f"{component}.{name}", read_weight(module, int(width))


def read_weight(module: Any, width: int) -> Tensor:
    """The weight (out, in) from the layer's outputs for the unit vectors."""
    with torch.no_grad():
        outputs = module(torch.eye(width)).float()
        if getattr(module, "bias", None) is not None:
            outputs = outputs - module(torch.zeros(1, width)).float()
    transposed: Tensor = outputs.T
    return transposed


def describe_saving(pipeline: Any, tensors: dict[str, Tensor]) -> str:
    """Says whether the transformer has the same weights after `save_pretrained` and `from_pretrained`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            pipeline.transformer.save_pretrained(folder)
            again = type(pipeline.transformer).from_pretrained(folder, torch_dtype=torch.float32)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            return f"fails ({textwrap.shorten(str(error).splitlines()[0], MAX_REASON, placeholder=' …')})"
        is_equal = all(torch.equal(weight, tensors[name]) for name, weight in read_weights("transformer", again))
        return "gives equal weights" if is_equal else "gives other weights"


# ---------------------------------------------------------------- one function for each format


def open_gguf(artifact: Path) -> tuple[Any, list[str]]:
    from diffusers import GGUFQuantizationConfig

    config = GGUFQuantizationConfig(compute_dtype=torch.float32)
    transformer = open_single_file(artifact, artifact / "gguf" / "transformer.gguf", quantization_config=config)
    encoder = open_text_encoder(artifact, artifact / "gguf", gguf_file="text_encoder.gguf")
    return assemble(artifact, transformer=transformer, text_encoder=encoder), ["transformer", "text_encoder"]


def open_diffusers(artifact: Path) -> tuple[Any, list[str]]:
    return assemble(artifact), ["transformer", "text_encoder"]


def open_compressed_tensors(artifact: Path) -> tuple[Any, list[str]]:
    from transformers import AutoModel, CompressedTensorsConfig

    folder = artifact / "compressed-tensors" / "text_encoder"
    config = CompressedTensorsConfig(dequantize=True)
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, quantization_config=config)
    return assemble(artifact, text_encoder=encoder), ["text_encoder"]


def open_comfyui(artifact: Path) -> tuple[Any, list[str]]:
    """The weights as comfy-kitchen dequantizes them, in the model of diffusers: ComfyUI itself is not run."""
    from comfy_kitchen.tensor.awq_w4a16 import TensorCoreAWQW4A16Layout as Layout

    stored = load_file(artifact / "comfyui" / "transformer.safetensors")
    weights = {name: tensor for name, tensor in stored.items() if not name.endswith(("_scale", "_zero", "comfy_quant"))}
    for name in [name.removesuffix("comfy_quant") for name in stored if name.endswith(".comfy_quant")]:
        options = json.loads(bytes(stored[f"{name}comfy_quant"].tolist()))
        codes, scale, zero = (stored[f"{name}weight{suffix}"] for suffix in ("", "_scale", "_zero"))
        params = Layout.Params(
            scale=scale.float(),
            orig_dtype=torch.float32,
            orig_shape=(codes.shape[0], 2 * codes.shape[1]),
            zeros=zero.float(),
            group_size=options["group_size"],
        )
        weights[f"{name}weight"] = Layout.dequantize(codes, params)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dequantized.safetensors"
        save_file({name: tensor.float().contiguous() for name, tensor in weights.items()}, file)
        return assemble(artifact, transformer=open_single_file(artifact, file)), ["transformer"]


READERS: dict[str, Callable[[Path], tuple[Any, list[str]]]] = {
    "gguf": open_gguf,
    "diffusers": open_diffusers,
    "compressed-tensors": open_compressed_tensors,
    "comfyui": open_comfyui,
}


def open_single_file(artifact: Path, file: Path, **options: Any) -> Any:
    """Opens a transformer in one file with the class that the pipeline names, in float32."""
    import diffusers

    folder = artifact / "diffusers"
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    loader = getattr(diffusers, index["transformer"][1])
    return loader.from_single_file(
        str(file), config=str(folder), subfolder="transformer", torch_dtype=torch.float32, **options
    )


def open_text_encoder(artifact: Path, folder: Path, **options: Any) -> Any:
    """Opens a text encoder with the artifact's config, in float32."""
    from transformers import AutoConfig, AutoModel

    values = json.loads((artifact / "diffusers" / "text_encoder" / "config.json").read_text("utf-8"))
    values.pop("quantization_config")
    config = AutoConfig.for_model(**values)
    return AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, **options)


def assemble(artifact: Path, **components: Any) -> Any:
    """The pipeline of the folder for stock diffusers, with other components."""
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(artifact / "diffusers", torch_dtype=torch.float32, **components)


if __name__ == "__main__":
    main(*sys.argv[1:])
