"""Pipelines whose denoiser has published shapes: what the denoiser reads has the published widths too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from edgepress.benchmarks.synthetic import full_size_denoiser
from edgepress.benchmarks.synthetic.full_size import count_parameters
from edgepress.benchmarks.synthetic.full_size_denoiser import DENOISERS, FullSizeDenoiser, make_meta_denoiser

pytestmark = pytest.mark.slow  # diffusers is imported


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_a_denoiser_has_the_published_number_of_parameters(name: str) -> None:
    assert count_parameters(make_meta_denoiser(name)) == DENOISERS[name].parameters


def narrow(denoiser: FullSizeDenoiser) -> FullSizeDenoiser:
    """The same denoiser with one block of each kind and one head, so that writing it takes no time."""
    config: dict[str, Any] = denoiser.with_layers(1) | {"num_attention_heads": 1}
    return FullSizeDenoiser(denoiser.model, denoiser.parameters, config, denoiser.depth, denoiser.inputs)


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_the_pipeline_opens_and_makes_an_image(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    monkeypatch.setitem(full_size_denoiser.DENOISERS, name, narrow(DENOISERS[name]))
    full_size_denoiser.write_denoiser_pipeline(name, tmp_path / "pipeline")
    pipeline = getattr(diffusers, name).from_pretrained(tmp_path / "pipeline", torch_dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", height=64, width=64, num_inference_steps=1, output_type="pt").images
    assert image.shape == (1, 3, 64, 64)
    assert image.isfinite().all()


def test_weights_are_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(full_size_denoiser.DENOISERS, "FluxPipeline", narrow(DENOISERS["FluxPipeline"]))
    first, second = (
        _read_weight(tmp_path / folder, "transformer_blocks.0.attn.to_q.weight") for folder in ("first", "second")
    )
    assert torch.equal(first, second)


def _read_weight(folder: Path, name: str) -> torch.Tensor:
    full_size_denoiser.write_denoiser_pipeline("FluxPipeline", folder)
    file = next(file for file in (folder / "transformer").glob("*.safetensors"))
    with safe_open(file, "pt") as weights:
        return weights.get_tensor(name)
