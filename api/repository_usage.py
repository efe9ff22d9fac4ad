"""How each folder of a model repository is loaded: packages and code, for its card."""

from __future__ import annotations

from collections.abc import Sequence

from ..export.diffusers.readme import INSTALL, LIBRARIES
from ..storage.files import read_json_object
from ..storage.layout import COMFYUI, COMPRESSED_TENSORS, DIFFUSERS, GGUF, MODEL, MODEL_INDEX, ONNX, RKNN, Artifact
from ..storage.weight_export import read_weight_export
from .model_card import describe_relation

DOWNLOAD = "hf download {repo} --include '{folder}/*' --local-dir weights"
ENGINE = 'edgepress generate weights --prompt "a red door" --output door.png'
TITLES = {
    DIFFUSERS: "stock diffusers, with auto-round; without auto-round-lib a CPU opens the model without its weights",
    MODEL: "diffusers, with edgepress",
    GGUF: "GGUF: diffusers, ComfyUI-GGUF, sd.cpp",
    COMPRESSED_TENSORS: "the text encoder in transformers, with compressed-tensors",
    COMFYUI: "the transformer in ComfyUI's layout awq_w4a16",
    ONNX: "ONNX Runtime, without torch",
    RKNN: "a Rockchip NPU",
}
SHELL = {
    DIFFUSERS: INSTALL,
    MODEL: "pip install 'edgepress[quantize]'",
    GGUF: f"pip install {LIBRARIES} gguf\n{DOWNLOAD}",
    COMPRESSED_TENSORS: f"pip install {LIBRARIES} compressed-tensors==0.20.0\n{DOWNLOAD}",
    COMFYUI: DOWNLOAD,
    ONNX: f"pip install 'edgepress[runtime]'\n{DOWNLOAD}\n{ENGINE}",
    RKNN: f"pip install 'edgepress[runtime,rknn]'\n{DOWNLOAD}\n{ENGINE}",
}
PIPELINE = """\
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{repo}")"""
PYTHON = {
    DIFFUSERS: PIPELINE,
    MODEL: f"import edgepress.loading\n{PIPELINE}",
    GGUF: """\
import torch
from diffusers import DiffusionPipeline, GGUFQuantizationConfig, {class_name}

{denoiser} = {class_name}.from_single_file(
    "weights/gguf/{denoiser}.gguf",
    quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
    config="{base}",
    subfolder="{denoiser}",
    torch_dtype=torch.bfloat16,
)
pipeline = DiffusionPipeline.from_pretrained("{base}", {denoiser}={denoiser}, torch_dtype=torch.bfloat16)""",
    COMPRESSED_TENSORS: """\
from transformers import AutoModel, CompressedTensorsConfig

encoder = AutoModel.from_pretrained(
    "weights/compressed-tensors/{encoder}", quantization_config=CompressedTensorsConfig(dequantize=True)
)""",
}
DENOISERS = ("transformer", "unet")


def describe_usage(artifact: Artifact, folders: Sequence[str], repo_id: str, original: str) -> list[str]:
    """The sections of a card that say how to load a repository.

    Args:
        artifact: The artifact.
        folders: The published folders.
        repo_id: The repository.
        original: The original on the Hub, or its folder.
    """
    return [text for folder in folders for text in _describe_folder(artifact, folder, repo_id, original)]


def _describe_folder(artifact: Artifact, folder: str, repo_id: str, original: str) -> list[str]:
    base = original if describe_relation(original) else repo_id  # where the components are that a file does not hold
    values = {"repo": repo_id, "folder": folder, "base": base, **_list_components(artifact, folder)}
    sections = [f"With {TITLES[folder]}:", f"```bash\n{SHELL[folder].format(**values)}\n```"]
    needs = {GGUF: "denoiser", COMPRESSED_TENSORS: "encoder"}.get(folder)
    if folder in PYTHON and (needs is None or needs in values):
        sections.append(f"```python\n{PYTHON[folder].format(**values)}\n```")
    return sections


def _list_components(artifact: Artifact, folder: str) -> dict[str, str]:
    """What the code names of a folder's components, as far as it has them: the denoiser and a text encoder."""
    if folder not in (GGUF, COMPRESSED_TENSORS):
        return {}
    names = list(read_weight_export(artifact.path / folder).components)
    denoiser = next((name for name in names if name in DENOISERS), None)
    encoder = next((name for name in names if name.startswith("text_encoder")), None)
    values = {"encoder": encoder} if encoder else {}
    if denoiser:
        values |= {"denoiser": denoiser, "class_name": read_json_object(artifact.model / MODEL_INDEX)[denoiser][1]}
    return values
