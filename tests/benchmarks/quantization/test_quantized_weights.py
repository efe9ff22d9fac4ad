"""What a quantized folder stores, put into the original pipeline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from helpers.tiny_families import qwen3
from safetensors.torch import save_file

from edgepress.benchmarks.quantization.quantized_weights import take_over_weights


def test_a_model_that_is_stored_without_its_head_is_taken_over(tmp_path: Path) -> None:
    pipeline = SimpleNamespace(text_encoder=qwen3(64))
    (tmp_path / "text_encoder").mkdir()
    norm = torch.arange(32.0)
    save_file({"layers.1.input_layernorm.weight": norm}, tmp_path / "text_encoder" / "model.safetensors")
    take_over_weights(pipeline, tmp_path)
    assert torch.equal(pipeline.text_encoder.model.layers[1].input_layernorm.weight, norm)
