"""LoRAs as adapters beside layers that quantization scaled.

The reference is the original pipeline, into which diffusers or PEFT load the same LoRAs. Its quantized weights are the
dequantized ones, with the stored scales taken out again, and nothing else of it changes: it computes what the quantized
pipeline does only if these scales are those that were folded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.lora import make_factors, write_diffusers_lora
from helpers.loud_pipeline import copy_enlarged, copy_rescaled
from helpers.tiny import edit_weights
from safetensors.torch import load_file
from torch import Tensor, nn

from edgepress.common.errors import UserError
from edgepress.pipelines.quantized_modules import Int4Linear
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import Recipe
from edgepress.storage.checksums import read_checksums
from edgepress.storage.layout import LORA_SCALES
from edgepress.storage.weight_files import find_stray_files

peft = pytest.importorskip("peft")

LINEARS = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")
TEXT_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOLERANCE = 2e-3  # relative; a norm adds to a variance that powers of two have made smaller


class Case(NamedTuple):
    """An artifact and the pipeline that it was quantized from."""

    source: Path
    output: Path

    @property
    def model(self) -> Path:
        return self.output / "model"


def enlarge_channels(component: Path) -> None:
    """Enlarges channels of the inputs of linears, which scaling then protects."""
    with edit_weights(component) as tensors:
        for name, tensor in tensors.items():
            if name.startswith("layers.") and name.endswith(("_norm1.weight", "norm.weight")):
                tensor[::17] *= 8


@pytest.fixture(scope="module", params=["awq", "best", "fp16_safe"])
def case(request: pytest.FixtureRequest, lean: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, safe = tmp_path_factory.mktemp("lora"), request.param == "fp16_safe"
    source = copy_enlarged(lean, folder / "source")
    if safe:
        source = copy_rescaled(source, folder / "loud")
    else:
        enlarge_channels(source / "transformer")
    settings = {"method": "awq" if safe else request.param, "fp16_safe": safe}
    recipe = {"device": "test", "quantize": settings, "calibration": {"count": 2, "steps": 2}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgepress.quantize.confirmation.MIN_GAIN", -1e9)  # `best` takes the variant that scales
        quantize_pipeline(Recipe.model_validate(recipe), source, folder / "artifact")
    return Case(source, folder / "artifact")


def read_scales(case: Case, component: str) -> dict[str, Tensor]:
    file = case.model / component / LORA_SCALES
    return load_file(file) if file.exists() else {}


def load_reference(case: Case, quantized: Any, component: str) -> Any:
    """The original pipeline with a component's quantized weights, without their scales."""
    pipeline, scales = load_pipeline(case.source, torch.float32), read_scales(case, component)
    model, unscaled = getattr(pipeline, component), torch.ones(1)
    for name, module in getattr(quantized, component).named_modules():
        if isinstance(module, Int4Linear):
            read, returned = (scales.get(f"{name}.lora_{kind}_scale", unscaled) for kind in ("input", "output"))
            linear = model.get_submodule(name)
            linear.weight.data = module.dequantize() / returned[:, None] / read
            if module.bias is not None:
                linear.bias.data = module.bias / returned
    return pipeline


def denoise(pipeline: Any) -> Tensor:
    generator, model = torch.Generator().manual_seed(3), pipeline.transformer
    width = model.config.cap_feat_dim
    latents, text = (torch.randn(shape, generator=generator).to(model.dtype) for shape in ((16, 1, 8, 8), (7, width)))
    with torch.no_grad():
        sample: Tensor = model([latents], torch.tensor([0.5], dtype=model.dtype), [text], return_dict=False)[0][0]
    return sample.float()


def encode(pipeline: Any) -> Tensor:
    with torch.no_grad():
        states = pipeline.text_encoder(torch.arange(5)[None], output_hidden_states=True).hidden_states
    state: Tensor = states[-2]
    return state.float()


def measure(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def write_loras(case: Case, folder: Path) -> dict[str, Path]:
    """Two LoRAs for every linear in the blocks of the transformer, of about the size of its weights."""
    model = load_pipeline(case.source, torch.float32).transformer
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = [name for name in names if name.startswith("layers.") and name.endswith(LINEARS)]
    files = {}
    for seed, adapter in enumerate(("first", "second")):
        factors = {
            name: (down, up * model.get_submodule(name).weight.std() * 20)
            for name, (down, up) in make_factors(case.source / "transformer", *names, seed=seed, size=0.2).items()
        }
        files[adapter] = write_diffusers_lora(folder / f"{adapter}.safetensors", factors)
    return files


def test_adapters_beside_scaled_layers_compute_what_they_do_beside_the_original_ones(
    case: Case, tmp_path: Path
) -> None:
    quantized = load_pipeline(case.model, torch.float32)
    reference = load_reference(case, quantized, "transformer")
    before, plain = denoise(quantized), denoise(reference)
    assert measure(before, plain) < TOLERANCE
    for pipeline in (quantized, reference):
        for name, file in write_loras(case, tmp_path).items():
            pipeline.load_lora_weights(file, adapter_name=name)
        pipeline.set_adapters(["first", "second"], [0.7, -0.4])
    adapted = denoise(reference)
    assert measure(plain, adapted) > 0.1
    assert measure(denoise(quantized), adapted) < TOLERANCE
    quantized.set_adapters("second")
    reference.set_adapters("second")
    assert measure(denoise(quantized), denoise(reference)) < TOLERANCE
    quantized.disable_lora()
    assert torch.equal(denoise(quantized), before)


def test_a_text_encoder_with_scaled_layers_takes_adapters_too(case: Case) -> None:
    quantized = load_pipeline(case.model, torch.float32)
    reference = load_reference(case, quantized, "text_encoder")
    before, plain = encode(quantized), encode(reference)
    assert measure(before, plain) < TOLERANCE
    config = peft.LoraConfig(r=2, lora_alpha=1, target_modules=TEXT_LINEARS, init_lora_weights=False)
    for pipeline in (quantized, reference):
        torch.manual_seed(0)
        pipeline.text_encoder.add_adapter(config, "style")
        for name, module in pipeline.text_encoder.named_modules():
            if hasattr(module, "lora_B") and name.endswith("proj"):
                weight = load_pipeline_weight(case, name)
                module.lora_B["style"].weight.data *= weight.std() * 10
    adapted = encode(reference)
    assert measure(plain, adapted) > 0.01
    assert measure(encode(quantized), adapted) < TOLERANCE
    quantized.text_encoder.disable_adapters()
    assert torch.equal(encode(quantized), before)


def load_pipeline_weight(case: Case, linear: str) -> Tensor:
    (file,) = (case.source / "text_encoder").glob("*.safetensors")
    return load_file(file)[f"{linear}.weight"].float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_scales_hold_in_half_precision(case: Case, tmp_path: Path, dtype: torch.dtype) -> None:
    """With small changes: what quantization keeps within float16 has no room for activations that a LoRA doubles."""
    exact, pipeline = load_pipeline(case.model, torch.float32), load_pipeline(case.model, dtype)
    before = denoise(pipeline)
    for name, file in write_loras(case, tmp_path).items():
        for loaded in (exact, pipeline):
            loaded.load_lora_weights(file, adapter_name=name)
            loaded.set_adapters(name, 0.1)
    assert measure(denoise(pipeline), denoise(exact)) < (0.05 if dtype == torch.bfloat16 else 0.01)
    pipeline.unload_lora_weights()
    assert torch.equal(denoise(pipeline), before)


def test_the_file_is_one_of_the_artifact(case: Case) -> None:
    """Hashed, and neither a weight file nor a stray one."""
    assert read_scales(case, "transformer")
    recorded = read_checksums(case.output)
    for component in ("transformer", "text_encoder"):
        assert (f"model/{component}/{LORA_SCALES}" in recorded) == bool(read_scales(case, component))
    assert find_stray_files(case.model) == []


def test_a_damaged_file_is_refused_in_a_sentence(case: Case, tmp_path: Path) -> None:
    shutil.copytree(case.model, tmp_path / "model")
    file = tmp_path / "model" / "transformer" / LORA_SCALES
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match=r"scales\.safetensors is corrupt or truncated"):
        load_pipeline(tmp_path / "model", torch.float32)
