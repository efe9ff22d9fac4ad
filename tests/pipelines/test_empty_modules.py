"""Components without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgepress.pipelines.empty_modules import build_empty_module


@pytest.mark.parametrize(
    ("library", "name", "component"),
    [("diffusers", "ZImageTransformer2DModel", "transformer"), ("transformers", "Qwen3Model", "text_encoder")],
)
def test_parameters_are_on_the_meta_device(library: str, name: str, component: str, tiny: Path) -> None:
    config = json.loads((tiny / component / "config.json").read_text("utf-8"))
    module = build_empty_module(library, name, config)
    assert type(module).__name__ == name
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    assert all(buffer.device.type == "cpu" for buffer in module.buffers())


def test_a_component_of_transformers_can_have_another_dtype(tiny: Path) -> None:
    config = json.loads((tiny / "text_encoder" / "config.json").read_text("utf-8"))
    module = build_empty_module("transformers", "Qwen3Model", config, torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_an_unknown_class_is_an_error() -> None:
    with pytest.raises(AttributeError):
        build_empty_module("diffusers", "NoSuchModel", {})
