"""`edgepress generate` with artifacts of all export settings, against diffusers with the dequantized weights.

The pad tokens of images and prompts are large random vectors, and every character of a prompt is a token.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers.tiles import without_tile_graphs
from helpers.tiny import edit_weights
from helpers.torch_graphs import generate_with_torch, psnr
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from edgepress.cli.main import main
from edgepress.export.onnx.exporter import export_onnx
from edgepress.numerics.awq_packing import AwqTensors
from edgepress.numerics.int4_matmul import dequantize_awq
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.runtime.generation_request import GenerationRequest

RECIPE = {
    "device": "test",
    "quantize": {
        "method": "rtn",
        "scheme": {"group_size": 64},
        "extra_schemes": {
            "symmetric": {"group_size": 64, "symmetric": True},
            "w8a8": {
                "bits": 8,
                "group_size": "channel",
                "symmetric": True,
                "narrow_range": True,
                "activations": "dynamic",
            },
        },
    },
    "calibration": {"count": 1, "steps": 1},
}
EXTRA_SCHEMES = {"qdq": "symmetric", "w8a8": "w8a8"}  # the other exports have the weights of the model
SETTINGS = {
    "fp32": ExportSettings(precision="fp32"),
    "fp16": ExportSettings(precision="fp16"),
    "int4": ExportSettings(),
    "int4 and fp16": ExportSettings(float_dtype="fp16"),
    "int4, level 4": ExportSettings(accuracy_level=4),
    "qdq": ExportSettings(format="qdq", opset=21),
    "w8a8": ExportSettings(precision="w8a8"),
}
# Square, wide, tall, one whose 35 tokens are no multiple of 32, and fewer than 32; tokens of the prompt.
CASES = [((128, 128), 32), ((64, 192), 1), ((192, 64), 512), ((80, 112), 33), ((16, 48), 31)]
# In dB, for these random weights, whose images are noise.
MIN_PSNR = {"fp32": 45, "int4": 38, "qdq": 38, "fp16": 40, "int4 and fp16": 38, "int4, level 4": 30, "w8a8": 30}

pytestmark = pytest.mark.slow


class Artifacts:
    """A quantized pipeline, its exports by name of their settings, and references in torch; each created once."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(tiny, folder / "pipeline")
        (folder / "pipeline" / "tokenizer" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        with edit_weights(folder / "pipeline" / "transformer") as tensors:
            for name in ("x_pad_token", "cap_pad_token"):
                tensors[name] = 5 * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1))
        quantize_pipeline(Recipe.model_validate(RECIPE), folder / "pipeline", folder / "artifact")

    @cache  # noqa: B019
    def export(self, name: str) -> Path:
        """Exports the pipeline and returns the folder of the artifact."""
        output = self._folder / name
        export_onnx(self._folder / "artifact", output, SETTINGS[name], verify=False)
        return output

    @cache  # noqa: B019
    def load_reference(self, scheme: str | None) -> Any:
        """Loads the pipeline in torch with the dequantized weights of the model, or of an extra scheme."""
        model = self._folder / "artifact" / "model"
        pipeline = load_pipeline(self._folder / "pipeline", torch.float32)
        for component in ("transformer", "text_encoder", "vae"):
            folders = [model / component, model / "solutions" / str(scheme) / component]
            weights = [load_weights(folder) for folder in folders if folder.exists()]
            state = {name: tensor for tensors in weights for name, tensor in tensors.items()}
            assert not getattr(pipeline, component).load_state_dict(state, strict=False).unexpected_keys
        return pipeline


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Loads all tensors of a component and dequantizes them, by their name in the class."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    linears = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    floats = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in linears}
    return floats | {f"{linear}.weight": dequantize_linear(tensors, linear) for linear in linears}


def dequantize_linear(tensors: dict[str, Tensor], linear: str) -> Tensor:
    if tensors[f"{linear}.qweight"].dtype == torch.int32:  # eight codes in each
        return dequantize_awq(AwqTensors(*(tensors[f"{linear}.{kind}"] for kind in AwqTensors._fields)))
    codes = tensors[f"{linear}.qweight"].float() - 128
    return (codes * tensors[f"{linear}.scales"].float()).T


@pytest.fixture(scope="module")
def artifacts(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with without_tile_graphs():
        yield Artifacts(tiny, tmp_path_factory.mktemp("exports"))


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [(name, *case) for name in SETTINGS for case in (CASES if name in ("fp32", "int4", "qdq") else CASES[3:4])],
)
def test_generated_image_equals_diffusers(
    artifacts: Artifacts, tmp_path: Path, name: str, size: tuple[int, int], tokens: int
) -> None:
    request = GenerationRequest("ab" * (tokens // 2) + "c" * (tokens % 2), seed=2**33 + tokens, steps=2, size=size)
    reference = artifacts.load_reference(EXTRA_SCHEMES.get(name))
    assert len(reference.tokenizer(request.prompt).input_ids) == tokens
    options = ["--prompt", request.prompt, "--seed", str(request.seed), "--steps", "2"]
    options += ["--size", f"{size[0]}x{size[1]}"]
    output = tmp_path / "a.png"
    result = CliRunner().invoke(main, ["generate", str(artifacts.export(name)), *options, "-o", str(output)])
    assert result.exit_code == 0, result.output
    with Image.open(output) as image:
        assert psnr(generate_with_torch(reference, request), image) > MIN_PSNR[name]
