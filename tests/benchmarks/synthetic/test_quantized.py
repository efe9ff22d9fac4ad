"""Random quantized pipelines have the tensors and the config of quantized ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgepress.benchmarks.synthetic import quantized
from edgepress.benchmarks.synthetic.full_size import make_meta_models, write_pipeline
from edgepress.numerics.awq_packing import AwqTensors
from edgepress.numerics.int4_matmul import dequantize_awq
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import Recipe
from edgepress.storage.checkpoint import Checkpoint

NARROW = replace(  # features of 256 channels instead of 2560
    quantized.TINY_SHAPES,
    transformer=quantized.TINY_SHAPES.transformer | {"cap_feat_dim": 256},
    text_encoder=quantized.TINY_SHAPES.text_encoder | {"hidden_size": 256},
)
SMALL = replace(
    NARROW,
    transformer=NARROW.transformer | {"dim": 384, "n_heads": 6, "n_kv_heads": 6},
    text_encoder=NARROW.text_encoder | {"num_attention_heads": 4, "num_key_value_heads": 2},
)


@pytest.fixture(autouse=True)
def _narrow_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "TINY_SHAPES", NARROW)


def list_tensors(folder: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    checkpoint = Checkpoint(folder)
    return {name: (checkpoint.load_tensor(name).dtype, checkpoint.shape(name)) for name in checkpoint.names()}


@pytest.mark.slow
@pytest.mark.parametrize("component", quantized.COMPONENTS)
def test_names_shapes_and_config_are_those_of_a_quantized_component(component: str, tmp_path: Path) -> None:
    quantized.write_quantized(tmp_path / "random", [component], SMALL)
    original = tmp_path / "original"
    write_pipeline(original, replace(quantized.TINY_SHAPES, **{component: getattr(SMALL, component)}))
    recipe = {
        "device": "test",
        "quantize": {"method": "rtn", "components": [component], "embeddings": "int8"},
        "calibration": {"count": 1, "steps": 1, "size": [64, 64]},
    }
    model = quantize_pipeline(Recipe.model_validate(recipe), original, tmp_path / "artifact").output / "model"
    assert list_tensors(tmp_path / "random" / component) == list_tensors(model / component)
    random, real = (Checkpoint(folder / component).load_config() for folder in (tmp_path / "random", model))
    assert random["quantization_config"] == real["quantization_config"]
    pipeline = load_pipeline(tmp_path / "random", torch.float32)
    image = pipeline("a cat", height=64, width=64, num_inference_steps=1, guidance_scale=0.0, output_type="pt").images
    assert torch.isfinite(image).all()


def test_a_linear_layer_keeps_the_scale_of_its_inputs() -> None:
    model = make_meta_models(SMALL)["transformer"]
    tensors = dict(quantized.draw_quantized_weights("transformer", model))
    name = "layers.0.feed_forward.w1"
    weight = dequantize_awq(AwqTensors(*(tensors[f"{name}.{kind}"] for kind in AwqTensors._fields)))
    assert weight.shape == (1024, 384)
    x = torch.randn(256, 384, generator=torch.Generator().manual_seed(0))
    assert 0.7 < (x @ weight.T).square().mean() < 1.4


def test_every_zero_point_is_seven_or_eight() -> None:
    model = make_meta_models(SMALL)["transformer"]
    zeros = dict(quantized.draw_quantized_weights("transformer", model))["layers.0.attention.to_q.qzeros"]
    nibbles = torch.stack([(zeros >> shift) & 15 for shift in range(0, 32, 4)])
    assert nibbles.unique().tolist() == [7, 8]


def test_a_complete_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "existing").mkdir()
    quantized.write_quantized(tmp_path / "existing", ["transformer"], SMALL)
    assert list((tmp_path / "existing").iterdir()) == []
