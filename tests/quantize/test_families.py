"""Pipelines of other families: quantized, opened by diffusers, with the error that GPTQ promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_families import FLUX, KLEIN, QWEN, SD3, SDXL, SIDE, write_tiny_family
from safetensors.torch import load_file
from torch import Tensor, nn

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.benchmarks.quantization.quantized_weights import iterate_quantized, take_over_weights
from edgepress.benchmarks.synthetic.tiny_pipelines import build_tiny_pipeline
from edgepress.pipelines.quantized_modules import Int4Linear
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.calibration.collector import run_calibration
from edgepress.quantize.calibration.state import Calibration
from edgepress.quantize.calibration.streaming import load_streaming_pipeline
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.plan import QuantizationPlan, build_plan
from edgepress.quantize.result import QuantizeResult
from edgepress.quantize.workspace import Workspace
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe

pytestmark = pytest.mark.slow

SAMPLING = SamplingParams(height=SIDE, width=SIDE, steps=2, guidance=0.0)
PROMPT = Prompt(id="p", prompt="a cat", language="en")
DENOISERS = {FLUX: "transformer", KLEIN: "transformer", QWEN: "transformer", SD3: "transformer", SDXL: "unet"}


@pytest.fixture(scope="module", params=[FLUX, SDXL])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / request.param
    write_tiny_family(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def plan(source: Path) -> QuantizationPlan:
    return build_plan(source, QuantizationSettings(method="gptq"))


@pytest.fixture(scope="module")
def results(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, QuantizeResult]:
    folder = tmp_path_factory.mktemp("quantized")
    calibration = GenerationSettings(count=1, steps=2, size=(SIDE, SIDE))
    return {
        method: quantize_pipeline(
            Recipe(device="test", quantize=QuantizationSettings(method=method), calibration=calibration),
            source,
            folder / method,
        )
        for method in ("rtn", "awq", "best")
    }


@pytest.mark.parametrize("method", ["rtn", "best"])
def test_diffusers_opens_the_result_and_computes_with_the_stored_weights(
    source: Path, results: dict[str, QuantizeResult], method: str
) -> None:
    model = results[method].output / "model"
    expected = load_pipeline(source, torch.float32)
    take_over_weights(expected, model)
    reopened = load_pipeline(model, torch.float32)
    images, originals = (
        generate_images(pipeline, [PROMPT], SAMPLING, output_type="latent")[0] for pipeline in (reopened, expected)
    )
    assert torch.allclose(images, originals, rtol=1e-4, atol=1e-4 * float(originals.abs().max()))


def test_every_planned_linear_is_quantized(plan: QuantizationPlan, results: dict[str, QuantizeResult]) -> None:
    planned = {f"{block.component}.{linear}" for block in plan.blocks for linear in block.linears}
    model = results["rtn"].output / "model"
    assert {f"{quantized.component}.{quantized.path}" for quantized in iterate_quantized(model)} == planned
    assert {layer.layer for layer in results["rtn"].layers()} == planned
    denoiser = getattr(load_pipeline(model, torch.float32), plan.family.denoiser)
    linears = {path for path, module in denoiser.named_modules() if isinstance(module, Int4Linear)}
    assert {f"{plan.family.denoiser}.{path}" for path in linears} < planned


def test_best_is_no_worse_than_rounding_in_any_layer(results: dict[str, QuantizeResult]) -> None:
    best, rtn = ({layer.layer: layer.error for layer in results[method].layers()} for method in ("best", "rtn"))
    assert best.keys() == rtn.keys()
    assert all(best[name] <= rtn[name] for name in best)
    assert sum(best.values()) < 0.8 * sum(rtn.values())


def test_scaled_layers_compute_what_the_original_does(source: Path, results: dict[str, QuantizeResult]) -> None:
    """A scale that is folded wrongly would change images by far more than rounding does."""
    folders = {name: results[name].output / "model" for name in ("rtn", "awq")} | {"original": source}
    latents = {
        name: generate_images(load_pipeline(folder, torch.float32), [PROMPT], SAMPLING, output_type="latent")[0]
        for name, folder in folders.items()
    }
    errors = {name: float((latents[name] - latents["original"]).norm()) for name in ("rtn", "awq")}
    assert 0 < errors["awq"] < 1.25 * errors["rtn"]
    denoiser = [layer for layer in results["awq"].layers() if layer.layer.startswith(("transformer.", "unet."))]
    assert any("scale" in layer.steps for layer in denoiser)


def test_widths_take_the_largest_group_that_divides_them(results: dict[str, QuantizeResult]) -> None:
    """The tiny widths are 32, 64, 96 and multiples; the group is 128."""
    for file in sorted((results["rtn"].output / "model").glob("*/*.safetensors")):
        tensors = load_file(file)
        for name in [name for name in tensors if name.endswith(".qweight")]:
            inputs, groups = len(tensors[name]), len(tensors[name.replace("qweight", "scales")])
            expected = next(size for size in (128, 64, 32) if inputs % size == 0)
            assert inputs // groups == expected, name
    config = json.loads((results["rtn"].output / "model" / "text_encoder" / "config.json").read_text("utf-8"))
    assert config["quantization_config"]["group_size"] == 128


# ---------------------------------------------------------------- statistics


def calibrate(plan: QuantizationPlan, folder: Path, sampling: SamplingParams = SAMPLING) -> Calibration:
    workspace = Workspace(folder, "key")
    with workspace.lock():
        return run_calibration(plan, workspace, [PROMPT], 1, sampling, torch.float32, 2**33, lambda *_: None)


@pytest.mark.parametrize("guidance", [0.0, 5.0])
def test_linears_that_read_the_same_share_the_statistics_of_what_they_read(
    source: Path, plan: QuantizationPlan, tmp_path: Path, guidance: float
) -> None:
    """With guidance, tokens of both passes count."""
    sampling = SamplingParams(SIDE, SIDE, 2, guidance)
    calibration = calibrate(plan, tmp_path, sampling)
    pipeline = load_pipeline(source, torch.float32)
    inputs: dict[str, list[Tensor]] = {}
    for block in plan.blocks:
        for linear in block.linears:
            name, module = f"{block.component}.{linear}", getattr(pipeline, block.component).get_submodule(linear)
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, []).append(args[0]))
    generate_images(pipeline, [PROMPT], sampling, output_type="latent")
    for block in plan.blocks:
        grouped = calibration.group_linears(block)
        assert not grouped.idle
        for group in grouped.groups:
            x = torch.cat([tensor.flatten(0, -2) for tensor in inputs[f"{block.name}.{group.linears[0]}"]]).double()
            hessian = calibration.hessian(block, f"{block.name}.{group.linears[0]}").double()
            assert torch.allclose(hessian, x.T @ x / len(x), rtol=1e-3, atol=1e-4 * float(hessian.abs().max()))
            for linear in group.linears[1:]:
                pairs = zip(inputs[f"{block.name}.{linear}"], inputs[f"{block.name}.{group.linears[0]}"], strict=True)
                assert all(x is first for x, first in pairs)
    assert any(len(group.linears) == 3 for block in plan.blocks for group in calibration.group_linears(block).groups)


def test_a_layer_that_never_runs_stays_in_floats_and_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the pipeline skips the feed-forward of a text encoder's last layer, as it would an unused branch."""
    from edgepress.quantize.calibration import collector

    load = collector.load_streaming_pipeline

    def load_and_skip(*args: Any) -> Any:
        pipeline = load(*args)
        mlp = next(m for name, m in pipeline.text_encoder.named_modules() if name.endswith("layers.1.mlp"))
        mlp.forward = lambda x: x
        return pipeline

    monkeypatch.setattr(collector, "load_streaming_pipeline", load_and_skip)
    recipe = Recipe(
        device="test",
        quantize=QuantizationSettings(method="best", components=("text_encoder",)),
        calibration=GenerationSettings(count=1, steps=1, size=(SIDE, SIDE)),
    )
    result = quantize_pipeline(recipe, source, tmp_path / "artifact")
    floats = {layer.layer.rpartition(".")[2] for layer in result.layers() if layer.stays_float}
    assert floats == {"fc1", "fc2"}
    assert "no prompt of the calibration reached these layers, which stay in floating point: mlp.fc1" in caplog.text
    reopened = load_pipeline(tmp_path / "artifact" / "model", torch.float32)
    linears = dict(reopened.text_encoder.named_modules())
    assert type(next(m for name, m in linears.items() if name.endswith("layers.1.mlp.fc1"))) is nn.Linear
    assert type(next(m for name, m in linears.items() if name.endswith("layers.0.mlp.fc1"))) is Int4Linear


# ---------------------------------------------------------------- memory

MORE_LAYERS: dict[str, dict[str, Any]] = {
    FLUX: {"num_layers": 2, "num_single_layers": 2},
    KLEIN: {"num_layers": 2, "num_single_layers": 2},
    QWEN: {"num_layers": 4},
    SD3: {"num_layers": 4},
    SDXL: {"layers_per_block": 2},
}


def measure_peak_bytes(source: Path) -> int:
    """The most bytes that the denoiser's weights take at any time while images are generated."""
    plan = build_plan(source, QuantizationSettings())
    pipeline = load_streaming_pipeline(plan, torch.float32)
    denoiser = getattr(pipeline, plan.family.denoiser)
    peaks = []

    def measure(*_: Any) -> None:
        peaks.append(sum(p.nbytes for p in denoiser.parameters() if p.device.type != "meta"))

    for module in list(denoiser.modules()):
        if not list(module.children()):
            module.register_forward_hook(measure)
    generate_images(pipeline, [PROMPT], SAMPLING, output_type="latent")
    return max(peaks)


@pytest.mark.parametrize("name", MORE_LAYERS)
def test_twice_the_layers_take_no_more_memory(name: str, tmp_path: Path) -> None:
    for folder, changes in (("once", {}), ("twice", MORE_LAYERS[name])):
        write_tiny_family(name, tmp_path / folder, **changes)
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / folder / DENOISERS[name]).glob("*.safetensors"))
        for folder in ("once", "twice")
    ]
    assert sizes[1] > 1.4 * sizes[0]
    assert measure_peak_bytes(tmp_path / "twice") == measure_peak_bytes(tmp_path / "once") < sizes[0]


UNDESCRIBED = {
    "AuraFlowPipeline": ("transformer", {"num_mmdit_layers": 2, "num_single_dit_layers": 2}),
    "Lumina2Pipeline": ("transformer", {"num_layers": 2}),
}


@pytest.mark.parametrize("name", UNDESCRIBED)
def test_twice_the_layers_of_a_class_that_nobody_described_take_no_more_memory(name: str, tmp_path: Path) -> None:
    component, changes = UNDESCRIBED[name]
    for folder, configs in (("once", None), ("twice", {component: changes})):
        build_tiny_pipeline(name, configs).save_pretrained(tmp_path / folder)
    once, twice = (
        sum(file.stat().st_size for file in (tmp_path / folder / component).glob("*.safetensors"))
        for folder in ("once", "twice")
    )
    assert twice > 1.3 * once
    assert measure_peak_bytes(tmp_path / "twice") == measure_peak_bytes(tmp_path / "once") < once
