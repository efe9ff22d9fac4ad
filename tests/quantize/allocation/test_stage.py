"""A budget is kept, what was chosen is what is stored, and it runs wherever the model runs."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from helpers.tiles import without_tile_graphs
from helpers.tiny_families import QWEN, SIDE, write_tiny_family

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.pipelines.quantized_modules import Int4Linear, RowScaledLinear
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from edgepress.storage.checkpoint import Checkpoint
from edgepress.storage.manifest import read_manifest

CALIBRATION = GenerationSettings(count=2, steps=2)


def make_recipe(budget, **settings):
    quantize = QuantizationSettings.model_validate({"method": "rtn", "budget": budget} | settings)
    return Recipe(device="test", quantize=quantize, calibration=CALIBRATION)


@pytest.fixture(scope="module")
def mixed(tiny: Path, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("mixed") / "artifact"
    quantize_pipeline(make_recipe("6.5bpw"), tiny, output)
    return output


def stored_bits(model: Path) -> float:
    """Bits of all quantized linears for each of their weights, counted in the files."""
    bits = weights = 0
    for folder in (model / "text_encoder", model / "transformer"):
        checkpoint = Checkpoint(folder)
        linears = [name.removesuffix(".qweight") for name in checkpoint.names() if name.endswith(".qweight")]
        for linear in linears:
            bits += 8 * sum(checkpoint.nbytes(f"{linear}.{kind}") for kind in ("qweight", "qzeros", "scales"))
            shape = checkpoint.shape(f"{linear}.qweight")
            weights += shape[0] * checkpoint.shape(f"{linear}.scales")[1]
    return bits / weights


def test_the_files_keep_the_budget(mixed):
    record = read_manifest(mixed).allocation
    assert record.size <= record.limit
    floats = [layer for layer in record.layers if layer.format == "float"]
    weights = sum(layer.weights for layer in record.layers)
    assert record.limit == int(6.5 * weights / 8)
    if not floats:
        assert stored_bits(mixed / "model") == pytest.approx(8 * record.size / weights)
    assert 8 * record.size / weights > 5.5  # most of the budget is used


def test_every_linear_has_the_format_of_the_manifest(mixed):
    record, pipeline = read_manifest(mixed).allocation, load_pipeline(mixed / "model", torch.float32)
    assert {layer.format for layer in record.layers} >= {"int8"}
    for layer in record.layers:
        component, _, path = layer.layer.partition(".")
        module = getattr(pipeline, component).get_submodule(path)
        if layer.format == "float":
            assert type(module) is torch.nn.Linear
        elif layer.format == "int8":
            assert isinstance(module, RowScaledLinear)
        else:
            assert isinstance(module, Int4Linear)
            assert module.group_size <= int(layer.format.removeprefix("g"))


def test_weights_are_those_of_the_original_within_their_format(mixed, tiny):
    record = read_manifest(mixed).allocation
    pipeline, original = (load_pipeline(folder, torch.float32) for folder in (mixed / "model", tiny))
    steps = {"g128": 1 / 15, "g64": 1 / 15, "g32": 1 / 15, "int8": 2 / 254}
    for layer in record.layers:
        component, _, path = layer.layer.partition(".")
        exact = getattr(original, component).get_submodule(path).weight
        module = getattr(pipeline, component).get_submodule(path)
        weight = module.weight if layer.format == "float" else module.dequantize()
        step = steps.get(layer.format, 0.0) * (exact.amax(1) - exact.amin(1)).clamp_min(2 * exact.abs().amax(1))
        assert ((weight - exact).abs().amax(1) <= 0.51 * step + 1e-6).all()


def test_the_manifest_says_what_was_expected_and_measured(mixed):
    record = read_manifest(mixed).allocation
    assert record.choice in record.drift
    assert record.drift[record.choice] == min(record.drift.values())
    assert record.choice == "mixed"
    assert record.expected_drift == pytest.approx(record.drift["mixed"], abs=6.0)  # dB, from two images
    assert json.loads((mixed / "model/transformer/config.json").read_text())["quantization_config"]["extra_config"]


@pytest.mark.parametrize("kind", ["ort", "qdq"])
def test_graphs_compute_what_the_model_computes(mixed, tiny, tmp_path, kind):
    """Exporting compares the graphs with torch, and fails where they differ."""
    source = mixed
    if kind == "qdq":
        source = tmp_path / "symmetric"
        quantize_pipeline(make_recipe("6.5bpw", scheme={"symmetric": True}), tiny, source)
    arguments = ["export", "onnx", "--model", str(source), "--precision", "int4", "--format", kind]
    with without_tile_graphs():
        done = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "exported")])
    assert done.exit_code == 0, done.output
    nodes = onnx.load(tmp_path / "exported/onnx/transformer.onnx", load_external_data=False).graph.node
    operator = {"ort": "MatMulNBits", "qdq": "DequantizeLinear"}[kind]
    assert sum(node.op_type == operator for node in nodes) >= 7


def test_a_budget_in_bytes_is_that_of_the_model(lean, tmp_path):
    quantize_pipeline(make_recipe("4.3bpw"), lean, tmp_path / "small")
    files = (tmp_path / "small/model").rglob("*.safetensors")
    size = sum(file.stat().st_size for file in files)
    budget = size * 105 // 100 // 1000
    quantize_pipeline(make_recipe(f"{budget}KB"), lean, tmp_path / "larger")
    files = (tmp_path / "larger/model").rglob("*.safetensors")
    assert size < sum(file.stat().st_size for file in files) <= budget * 1000


@pytest.mark.slow
def test_with_room_for_floats_only_what_the_image_does_not_depend_on_is_rounded(tmp_path):
    """The last block of Qwen-Image computes states of the prompt that nothing reads, so no gradient reaches them."""
    write_tiny_family(QWEN, tmp_path / "source", num_layers=1)
    quantize = QuantizationSettings(method="rtn", budget="32bpw", components=("transformer",))
    calibration = GenerationSettings(count=2, steps=2, size=(SIDE, SIDE))
    recipe = Recipe(device="test", quantize=quantize, calibration=calibration)
    quantize_pipeline(recipe, tmp_path / "source", tmp_path / "artifact")
    record = read_manifest(tmp_path / "artifact").allocation
    rounded = {layer.layer.partition("transformer_blocks.0.")[2] for layer in record.layers if layer.format != "float"}
    assert rounded == {"attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2"}
    assert record.choice == "mixed"
    assert record.drift["mixed"] < -100 < min(drift for name, drift in record.drift.items() if name != "mixed")
    prompt, sampling = Prompt(id="p", prompt="a cat", language="en"), SamplingParams(SIDE, SIDE, 2, 0.0)
    pipelines = (load_pipeline(tmp_path / name, torch.float32) for name in ("source", "artifact/model"))
    images = [generate_images(pipeline, [prompt], sampling, output_type="latent")[0] for pipeline in pipelines]
    assert torch.equal(*images)


@pytest.mark.parametrize("budget", ["4.1bpw", "1KB"])
def test_too_small_a_budget_is_refused_before_any_work(tiny, tmp_path, budget):
    with pytest.raises(UserError, match=r"Give (at least that|more)"):
        quantize_pipeline(make_recipe(budget), tiny, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_steps_that_change_other_layers_are_refused():
    for method in ("awq", "best"):
        with pytest.raises(ValueError, match="set method: gptq or method: rtn"):
            make_recipe("5bpw", method=method)
