"""Components without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.onnx_graphs import load_component
from torch.utils._python_dispatch import TorchDispatchMode

from edgepress.pipelines.empty_modules import build_empty_module, find_config_part

FILLS = (torch.ops.aten.normal_, torch.ops.aten.uniform_, torch.ops.aten.fill_, torch.ops.aten.zero_)


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


class FillRecorder(TorchDispatchMode):
    """Records the operators that give tensors on the meta device random or constant values."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in FILLS and args[0].is_meta:
            self.names.append(str(func))
        return result


@pytest.mark.parametrize(
    ("library", "name", "component"),
    [("diffusers", "AutoencoderKL", "vae"), ("transformers", "Qwen3Model", "text_encoder")],
)
def test_no_time_is_spent_on_values_of_parameters_and_buffers_have_theirs(
    library: str, name: str, component: str, tiny: Path
) -> None:
    """Filling took two thirds of the time to build a large text encoder."""
    config = json.loads((tiny / component / "config.json").read_text("utf-8"))
    with FillRecorder() as recorder:
        module = build_empty_module(library, name, config)
    assert recorder.names == []
    expected = dict(load_component(tiny, component).named_buffers())
    assert {key: buffer.tolist() for key, buffer in module.named_buffers()} == {
        key: buffer.tolist() for key, buffer in expected.items()
    }


def test_a_component_of_transformers_can_have_another_dtype(tiny: Path) -> None:
    config = json.loads((tiny / "text_encoder" / "config.json").read_text("utf-8"))
    module = build_empty_module("transformers", "Qwen3Model", config, torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_an_unknown_class_is_an_error() -> None:
    with pytest.raises(AttributeError):
        build_empty_module("diffusers", "NoSuchModel", {})


def test_an_encoder_alone_is_made_from_its_part_of_the_config() -> None:
    """As T5Gemma's, of which a pipeline has only the encoder: the config is that of the whole model."""
    part = {
        "vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    }  # fmt: skip
    config = {"model_type": "t5gemma", "encoder": part, "decoder": part}
    assert find_config_part("T5GemmaEncoder", config) == "encoder"
    assert find_config_part("T5GemmaModel", config) == find_config_part("T5EncoderModel", {"d_model": 8}) == ""
    module: Any = build_empty_module("prx", "T5GemmaEncoder", config)
    assert (len(module.layers), module.embed_tokens.weight.shape) == (2, (16, 8))
