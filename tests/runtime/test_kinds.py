"""`edgepress generate` with artifacts of every kind, against torch's own pipeline with the weights of their codes.

What pads images and prompts are large random vectors, and every character of a prompt is a token.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers.tiny import edit_weights
from helpers.torch_graphs import psnr, torchs_picture
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from edgepress.cli.main import main
from edgepress.export.graph import source_model
from edgepress.export.onnx.exporter import export_onnx
from edgepress.models.base.family import Family
from edgepress.models.registry import get_family
from edgepress.models.shared.vae_tiling import VAE_TILE_GRAPHS
from edgepress.numerics.awq_packing import AwqTensors
from edgepress.numerics.int4_matmul import dequantize_awq
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.runtime.pipeline import GenerationRequest

RECIPE = {
    "device": "test",
    "quantize": {
        "method": "rtn",
        "scheme": {"group_size": 64},
        "also": {
            "signed": {"group_size": 64, "zero_point": False},
            "bytes": {
                "bits": 8,
                "group_size": "channel",
                "zero_point": False,
                "narrow": True,
                "activations": "dynamic",
            },
        },
    },
    "calibration": {"count": 1, "steps": 1},
}
SOLUTIONS = {"qdq": "signed", "w8a8": "bytes"}  # the others carry over what the model itself holds
KINDS = {
    "fp32": ExportSettings(precision="fp32"),
    "fp16": ExportSettings(precision="fp16"),
    "int4": ExportSettings(),
    "int4 in halves": ExportSettings(float_dtype="fp16"),
    "int4, level 4": ExportSettings(accuracy_level=4),
    "qdq": ExportSettings(format="qdq", opset=21),
    "w8a8": ExportSettings(precision="w8a8"),
}
# Square, wide, tall, one whose 35 tokens are no multiple of 32, and fewer than 32; tokens of the prompt.
CASES = [((128, 128), 32), ((64, 192), 1), ((192, 64), 512), ((80, 112), 33), ((16, 48), 31)]
# Of these random weights, whose pictures are noise.
LEAST = {"fp32": 45, "int4": 38, "qdq": 38, "fp16": 40, "int4 in halves": 38, "int4, level 4": 30, "w8a8": 30}

pytestmark = pytest.mark.slow


class Made:
    """A pressed pipeline, its artifacts by kind, and torch's pipelines with their weights; each made once."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(tiny, folder / "pipeline")
        (folder / "pipeline" / "tokenizer" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        with edit_weights(folder / "pipeline" / "transformer") as tensors:
            for name in ("x_pad_token", "cap_pad_token"):
                tensors[name] = 5 * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1))
        quantize_pipeline(Recipe.model_validate(RECIPE), folder / "pipeline", folder / "artifact")

    @cache  # noqa: B019
    def artifact(self, kind: str) -> Path:
        return export_onnx(self._folder / "artifact", self._folder / kind, KINDS[kind], verify=False).folder.parent

    @cache  # noqa: B019
    def pipeline(self, solution: str | None) -> Any:
        """The pipeline that was pressed, with the weights that the codes stand for."""
        pressed = self._folder / "artifact" / "model"
        pipeline = load_pipeline(self._folder / "pipeline", torch.float32)
        for component in ("transformer", "text_encoder", "vae"):
            folders = [pressed / component, pressed / "solutions" / str(solution) / component]
            found = {name: value for folder in folders if folder.exists() for name, value in weights(folder).items()}
            assert not getattr(pipeline, component).load_state_dict(found, strict=False).unexpected_keys
        return pipeline


def weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a component's folder as a float, by its name in the class."""
    (file,) = folder.glob("*.safetensors")
    stored = load_file(file)
    linears = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    plain = {name: value for name, value in stored.items() if name.rpartition(".")[0] not in linears}
    return plain | {f"{linear}.weight": weight(stored, linear) for linear in linears}


def weight(stored: dict[str, Tensor], linear: str) -> Tensor:
    if stored[f"{linear}.qweight"].dtype == torch.int32:  # eight codes each
        return dequantize_awq(AwqTensors(*(stored[f"{linear}.{kind}"] for kind in AwqTensors._fields)))
    codes = stored[f"{linear}.qweight"].float() - 128
    return (codes * stored[f"{linear}.scales"].float()).T


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Without the graphs that decode in tiles, which have tests of their own and take as long to trace as the rest."""

    def family(name: str) -> Family:
        whole = get_family(name)
        return replace(whole, graphs=tuple(graph for graph in whole.graphs if graph not in VAE_TILE_GRAPHS))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source_model, "family_of", family)
        yield Made(tiny, tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize(
    ("kind", "size", "tokens"),
    [(kind, *case) for kind in KINDS for case in (CASES if kind in ("fp32", "int4", "qdq") else CASES[3:4])],
)
def test_it_paints_what_torch_paints(made: Made, tmp_path: Path, kind: str, size: tuple[int, int], tokens: int) -> None:
    wish = GenerationRequest("ab" * (tokens // 2) + "c" * (tokens % 2), seed=2**33 + tokens, steps=2, size=size)
    pipeline = made.pipeline(SOLUTIONS.get(kind))
    assert len(pipeline.tokenizer(wish.prompt).input_ids) == tokens
    words = ["--prompt", wish.prompt, "--seed", str(wish.seed), "--steps", "2", "--size", f"{size[0]}x{size[1]}"]
    output = tmp_path / "a.png"
    result = CliRunner().invoke(main, ["generate", str(made.artifact(kind)), *words, "-o", str(output)])
    assert result.exit_code == 0, result.output
    with Image.open(output) as found:
        assert psnr(torchs_picture(pipeline, wish), found) > LEAST[kind]
