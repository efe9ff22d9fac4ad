"""LoRAs of several families: merged they are what diffusers fuses, and as adapters what it computes beside a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_families import FLUX, KLEIN, QWEN, SD3, SDXL, SIDE, write_tiny_family
from torch import Tensor, nn

from edgepress.benchmarks.quantization.quantized_weights import take_over_weights
from edgepress.pipelines.lora_files import LoraSpec
from edgepress.pipelines.lora_merging import merge_loras
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from edgepress.storage.checkpoint import Checkpoint

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.slow

DENOISERS = {FLUX: "transformer", SD3: "transformer", SDXL: "unet", KLEIN: "transformer", QWEN: "transformer"}
LAYERS = ("to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "proj_mlp", "proj_out", "ff.net.2", "conv1", "proj_in")
WEIGHT = 0.7
PROMPT = Prompt(id="p", prompt="a cat", language="en")


@pytest.fixture(scope="module", params=DENOISERS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline, and beside it a LoRA for its denoiser as diffusers writes it."""
    folder = tmp_path_factory.mktemp("lora") / request.param
    write_tiny_family(request.param, folder)
    pipeline, denoiser = load_pipeline(folder, torch.float32), DENOISERS[request.param]
    model = getattr(pipeline, denoiser)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    targets = [name for name in linears if name.endswith(tuple(f".{layer}" for layer in LAYERS))]
    torch.manual_seed(0)
    model.add_adapter(peft.LoraConfig(r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False))
    metadata = {f"{denoiser}_lora_adapter_metadata": model.peft_config["default"].to_dict()}
    pipeline.save_lora_weights(
        folder.parent / "lora", **{f"{denoiser}_lora_layers": peft.get_peft_model_state_dict(model)}, **metadata
    )
    return folder


def locate_lora(source: Path) -> Path:
    return source.parent / "lora" / "pytorch_lora_weights.safetensors"


def generate(pipeline: Any) -> Tensor:
    sampling = SamplingParams(height=SIDE, width=SIDE, steps=2, guidance=1.0)
    latents: Any = generate_images(pipeline, [PROMPT], sampling, output_type="latent")
    return torch.as_tensor(latents[0])


def test_merged_weights_are_those_that_diffusers_fuses(source: Path) -> None:
    denoiser = DENOISERS[source.name]
    expected = load_pipeline(source, torch.float32)
    before = {name: weight.clone() for name, weight in getattr(expected, denoiser).state_dict().items()}
    expected.load_lora_weights(locate_lora(source))
    expected.fuse_lora(lora_scale=WEIGHT)
    expected.unload_lora_weights()
    checkpoints = {denoiser: Checkpoint(source / denoiser)}
    merged = merge_loras([LoraSpec(locate_lora(source), WEIGHT)], source, checkpoints)[denoiser]
    fused = getattr(expected, denoiser).state_dict()
    assert sum(not torch.equal(fused[name], weight) for name, weight in before.items()) >= 4
    for name, weight in fused.items():
        assert torch.allclose(merged.load_tensor(name), weight, rtol=1e-5, atol=1e-5), name


def test_adapters_beside_quantized_layers_compute_what_they_do_beside_weights(source: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        device="test",
        quantize=QuantizationSettings(method="rtn"),
        calibration=GenerationSettings(count=1, steps=2, size=(SIDE, SIDE)),
    )
    model = quantize_pipeline(recipe, source, tmp_path / "artifact").model
    quantized, expected = load_pipeline(model, torch.float32), load_pipeline(source, torch.float32)
    take_over_weights(expected, model)
    before = generate(quantized)
    for pipeline in (quantized, expected):
        for name in ("first", "second"):  # the second one beside layers that already have an adapter
            pipeline.load_lora_weights(locate_lora(source), adapter_name=name)
        pipeline.set_adapters(["first", "second"], [WEIGHT, -0.2])
    latents, expected_latents = generate(quantized), generate(expected)
    assert torch.allclose(latents, expected_latents, rtol=1e-3, atol=1e-4 * float(latents.abs().max()))
    assert float((latents - before).norm() / before.norm()) > 0.01
    quantized.disable_lora()
    assert torch.equal(generate(quantized), before)
