"""Pipelines as they are published: several dtypes in a component, tied weights, biases, other classes, unused ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import edit_weights
from helpers.tiny_families import FLUX, SIDE, write_tiny_family
from safetensors.torch import load_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.export.graph.source_model import open_source
from edgepress.pipelines.quantized_modules import Int4Linear
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe

pytestmark = pytest.mark.slow

COMPONENTS = ("text_encoder", "text_encoder_2", "transformer", "vae")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EMBEDDING, TIED = "shared.weight", "encoder.embed_tokens.weight"
HEAD_TENSORS = ("lm_head.weight", "decoder.final_layer_norm.weight")  # of a T5 of which only the encoder is used
STEP = 1 / 15  # of the range of a row, which no group exceeds


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "flux"
    write_tiny_family(FLUX, folder)
    with edit_weights(folder / "text_encoder_2") as tensors:
        tensors[TIED] = tensors[EMBEDDING].clone()
        tensors.update({name: torch.ones(64) for name in HEAD_TENSORS})
    with edit_weights(folder / "text_encoder") as tensors:
        renamed = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)
    for component in COMPONENTS:
        with edit_weights(folder / component) as tensors:
            for number, name in enumerate(name for name in sorted(tensors) if name != TIED):
                tensors[name] = tensors[name].to(DTYPES[number % len(DTYPES)])
            if TIED in tensors:
                tensors[TIED] = tensors[EMBEDDING].clone()
    config = folder / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["T5ForConditionalGeneration"]}))
    for name in ("safety_checker", "prior"):
        shutil.copytree(folder / "vae", folder / name)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"safety_checker": [None, None]}))
    return folder


@pytest.fixture(scope="module")
def model(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    calibration = GenerationSettings(count=1, steps=1, size=(SIDE, SIDE))
    recipe = Recipe(
        device="test", dtype="float32", quantize=QuantizationSettings(method="rtn"), calibration=calibration
    )
    return quantize_pipeline(recipe, source, tmp_path_factory.mktemp("artifact") / "artifact").model


def open_with_diffusers(folder: Path) -> Any:
    from diffusers import FluxPipeline

    return FluxPipeline.from_pretrained(folder, dtype=torch.float32)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_diffusers_opens_the_result_with_the_values_of_the_source(source: Path, model: Path) -> None:
    original, reopened = open_with_diffusers(source), open_with_diffusers(model)
    for component in COMPONENTS:
        modules = dict(getattr(reopened, component).named_modules())
        linears = {name: module for name, module in modules.items() if isinstance(module, Int4Linear)}
        assert bool(linears) == (component != "vae")
        has_biases = any(module.bias is not None for module in linears.values())
        assert has_biases == (component in ("text_encoder", "transformer"))
        stored = getattr(reopened, component).state_dict()
        for name, value in getattr(original, component).state_dict().items():
            path, _, kind = name.rpartition(".")
            if path in linears and kind == "weight":
                step = STEP * (value.amax(1).clamp_min(0) - value.amin(1).clamp_max(0))
                assert ((linears[path].dequantize() - value).abs().amax(1) <= 0.51 * step + 1e-6).all(), name
            else:
                assert torch.equal(stored[name].float(), value.float()), name
    t5 = reopened.text_encoder_2
    assert t5.shared.weight.data_ptr() == t5.encoder.embed_tokens.weight.data_ptr()
    generator = torch.Generator().manual_seed(0)
    image = reopened("a cat", height=SIDE, width=SIDE, num_inference_steps=1, generator=generator, output_type="np")
    assert torch.from_numpy(image.images).isfinite().all()


def test_exports_take_the_same_weights(source: Path, model: Path) -> None:
    for folder in (source, model):
        open_source(folder).check_weights()


def test_what_is_not_quantized_has_the_dtype_of_its_file(source: Path, model: Path) -> None:
    for component in COMPONENTS:
        before, after = load_tensors(source / component), load_tensors(model / component)
        before = {name.removeprefix("text_model."): tensor for name, tensor in before.items()}
        after = {name.removeprefix("text_model."): tensor for name, tensor in after.items()}
        unchanged = before.keys() & after.keys()
        assert {before[name].dtype for name in unchanged} == set(DTYPES)
        assert all(torch.equal(before[name], after[name]) for name in unchanged)
        assert all(before[name].dtype == after[name].dtype for name in unchanged)


def test_what_the_pipeline_does_not_use_is_not_stored_again(model: Path) -> None:
    stored = load_tensors(model / "text_encoder_2")
    assert not stored.keys() & {*HEAD_TENSORS}
    assert EMBEDDING in stored
