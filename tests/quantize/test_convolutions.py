"""Convolutions in 8 bits, from the recipe to the graphs: what is stored, opened, counted and exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.tiles import without_tile_graphs
from helpers.tiny_families import SDXL, SIDE, write_tiny_family
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import edgepress
from edgepress.api.folder_info import PipelineInfo
from edgepress.api.inspection import info
from edgepress.export.diffusers.exporter import export_diffusers
from edgepress.export.onnx.exporter import export_onnx
from edgepress.pipelines.quantized_modules import Int8Conv
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.result import QuantizeResult
from edgepress.recipes.schema import ExportSettings, Recipe

pytestmark = pytest.mark.slow

PROMPT = Prompt(id="p", prompt="a cat", language="en")
SAMPLING = SamplingParams(height=SIDE, width=SIDE, steps=2, guidance=0.0)
COMPONENTS = ("unet", "vae")
ENDS = {f"{coder}.conv_{end}" for coder in ("encoder", "decoder") for end in ("in", "out")}
FLOAT_CONVOLUTIONS = {"unet": {"conv_in", "conv_out"}, "vae": ENDS | {"post_quant_conv", "quant_conv"}}


def quantize(source: Path, output: Path, **settings: Any) -> QuantizeResult:
    quantized = {"method": "rtn", "components": COMPONENTS, "conv": "int8"} | settings
    calibration = {"count": 1, "steps": 1, "size": (SIDE, SIDE)}
    recipe = Recipe.model_validate({"device": "test", "quantize": quantized, "calibration": calibration})
    return edgepress.quantize(recipe, model=source, output=output)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "sdxl"
    write_tiny_family(SDXL, folder)
    return folder


@pytest.fixture(scope="module")
def result(source: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    return quantize(source, tmp_path_factory.mktemp("artifact") / "artifact")


def iterate_convolutions(pipeline: Any) -> Iterator[tuple[str, str, nn.Conv2d]]:
    """Component, path and module of every convolution."""
    for component in COMPONENTS:
        for path, module in getattr(pipeline, component).named_modules():
            if isinstance(module, nn.Conv2d):
                yield component, path, module


def round_to_8_bits(weight: Tensor) -> Tensor:
    """Independently: float64 in numpy, the largest of each output channel at 127, scales rounded up to float16."""
    values = weight.double().numpy()
    exact = np.abs(values).reshape(len(values), -1).max(1) / 127
    scales = exact.astype(np.float16)
    scales = np.where(scales.astype(np.float64) < exact, np.nextafter(scales, np.float16(np.inf)), scales)
    steps = scales.astype(np.float64).reshape(-1, 1, 1, 1)
    return torch.from_numpy(np.round(values / steps) * steps)


def test_all_convolutions_in_repeated_blocks_have_a_byte_for_each_weight(source: Path, result: QuantizeResult) -> None:
    original = load_pipeline(source, torch.float32)
    stored = {name: load_file(next((result.model / name).glob("*.safetensors"))) for name in COMPONENTS}
    num_bytes = dict.fromkeys(COMPONENTS, 0)
    for component, path, module in iterate_convolutions(original):
        if path in FLOAT_CONVOLUTIONS[component]:
            assert torch.equal(stored[component][f"{path}.weight"], module.weight)
            continue
        codes, scales = (stored[component].pop(f"{path}.{kind}") for kind in ("codes", "scales"))
        assert (codes.dtype, scales.dtype, codes.shape) == (torch.int8, torch.float16, module.weight.shape)
        expected = round_to_8_bits(module.weight.detach())
        torch.testing.assert_close(codes.double() * scales.double(), expected, rtol=0, atol=1e-7)
        num_bytes[component] += module.weight.nbytes - codes.nbytes - scales.nbytes
    assert not [name for tensors in stored.values() for name in tensors if name.endswith(".codes")]
    assert result.manifest.size_savings["unet"]["8-bit convolutions"] == num_bytes["unet"] > 0
    assert result.manifest.size_savings["vae"]["8-bit convolutions"] == num_bytes["vae"] > 0


def test_the_pipeline_opens_and_computes_with_the_stored_weights(source: Path, result: QuantizeResult) -> None:
    reopened, expected = load_pipeline(result.model, torch.float32), load_pipeline(result.model, torch.float32)
    assert any(isinstance(module, Int8Conv) for module in reopened.vae.modules())
    for component, path, module in iterate_convolutions(load_pipeline(source, torch.float32)):
        if path not in FLOAT_CONVOLUTIONS[component]:
            module.weight = nn.Parameter(round_to_8_bits(module.weight.detach()).float())
            getattr(expected, component).set_submodule(path, module)
    images = [generate_images(pipeline, [PROMPT], SAMPLING, output_type="np")[0] for pipeline in (reopened, expected)]
    np.testing.assert_allclose(*images, atol=1e-4)
    cast = load_pipeline(result.model, torch.bfloat16)
    assert {m.scales.dtype for m in cast.unet.modules() if isinstance(m, Int8Conv)} == {torch.float16}
    assert np.isfinite(generate_images(cast, [PROMPT], SAMPLING, output_type="np")[0]).all()


def test_info_counts_the_convolutions_before_and_their_bits_after(source: Path, result: QuantizeResult) -> None:
    before, after = info(source, layers=True), info(result.model)
    assert isinstance(before, PipelineInfo)
    assert isinstance(after, PipelineInfo)
    unet = next(selection for selection in before.layers if selection.component == "unet")
    config = json.loads((result.model / "unet" / "config.json").read_text("utf-8"))["quantization_config"]
    assert list(unet.convolutions) == config["convolutions"]
    assert f"{len(unet.convolutions)} convolutions in 8 bits" in str(before)
    assert f"unet.{unet.convolutions[0]}: 8 bits" in before.list_layers()
    parameters = [{part.name: part.parameters for part in pipeline.components}["unet"] for pipeline in (before, after)]
    assert parameters[0] == parameters[1]
    assert next(part for part in after.components if part.name == "unet").dtypes["int8"] > 0.3


def test_without_the_key_convolutions_stay_as_they_are(source: Path, tmp_path: Path) -> None:
    plain = quantize(source, tmp_path / "artifact", conv="keep")
    names = load_file(next((plain.model / "unet").glob("*.safetensors"))).keys()
    assert not [name for name in names if name.endswith(".codes")]
    assert plain.manifest.size_savings["unet"]["8-bit convolutions"] == 0


# ---------------------------------------------------------------- exports


def test_graphs_dequantize_the_codes_and_equal_torch(result: QuantizeResult, tmp_path: Path) -> None:
    settings = ExportSettings(precision="int4", float_dtype="fp16")
    folder = export_onnx(result.output, tmp_path, settings).folder
    parity = json.loads((folder / "pipeline.json").read_text("utf-8"))["parity"]
    measured = next(iter(parity.values()))["graphs"]
    assert max(error["relative"] for error in measured.values()) < 2e-2
    for graph, component in (("unet", "unet"), ("vae_decoder", "vae")):
        model = onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph
        dtypes = {value.name: value.data_type for value in model.initializer}
        sources = {node.output[0]: node.input[0] for node in model.node if node.op_type == "DequantizeLinear"}
        weights = [node.input[1] for node in model.node if node.op_type == "Conv"]
        floats = {weight.removesuffix(".weight") for weight in weights if weight not in sources}
        assert floats <= FLOAT_CONVOLUTIONS[component]
        assert {dtypes[sources[weight]] for weight in weights if weight in sources} == {onnx.TensorProto.INT8}


def test_float_graphs_have_the_values_of_the_codes(result: QuantizeResult, tmp_path: Path) -> None:
    with without_tile_graphs():
        folder = export_onnx(result.output, tmp_path, ExportSettings(precision="fp32")).folder
    model = onnx.load(folder / "unet.onnx", load_external_data=False).graph
    assert not [node for node in model.node if node.op_type == "DequantizeLinear"]
    parity = next(iter(json.loads((folder / "pipeline.json").read_text("utf-8"))["parity"].values()))["graphs"]
    assert max(error["relative"] for error in parity.values()) < 1e-4


def test_other_programs_get_floats(result: QuantizeResult, tmp_path: Path) -> None:
    folder = export_diffusers(result.output, tmp_path).folder
    codes = load_file(next((result.model / "unet").glob("*.safetensors")))
    floats = load_file(next((folder / "unet").glob("*.safetensors")))
    path = next(name for name in codes if name.endswith(".codes")).removesuffix(".codes")
    expected = codes[f"{path}.codes"].double() * codes[f"{path}.scales"].double()
    torch.testing.assert_close(floats[f"{path}.weight"].double(), expected, rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------- LoRAs


def test_an_adapter_adds_its_convolution_and_is_switched_off_exactly(result: QuantizeResult, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = "down_blocks.0.resnets.0.conv1"
    pipeline = load_pipeline(result.model, torch.float32)
    layer = pipeline.unet.get_submodule(path)
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, 3, 3, generator=generator), torch.randn(32, 2, 1, 1, generator=generator)
    x = torch.randn(1, 32, 8, 8, generator=generator)
    before = layer(x)
    lora = {f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up}
    save_file(lora, tmp_path / "lora.safetensors")
    pipeline.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="style")
    pipeline.set_adapters(["style"], [0.5])
    added = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    expected = before + 0.5 * nn.functional.conv2d(x, added, padding=1)
    adapted = pipeline.unet.get_submodule(path)(x)
    torch.testing.assert_close(adapted, expected, rtol=1e-4, atol=1e-3)
    pipeline.disable_lora()
    assert torch.equal(pipeline.unet.get_submodule(path)(x), before)
    pipeline.unload_lora_weights()
    assert torch.equal(pipeline.unet.get_submodule(path)(x), before)


def test_the_sampling_of_this_file_shows_the_denoiser(source: Path) -> None:
    """Otherwise equal images would say nothing."""
    pipeline = load_pipeline(source, torch.float32)
    images = [
        generate_images(pipeline, [PROMPT], replace(SAMPLING, steps=steps), output_type="np")[0] for steps in (1, 2)
    ]
    assert np.abs(images[0] - images[1]).max() > 1e-2
