"""Exported graphs run by ONNX Runtime, against the components' own classes: one model for all sizes and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import error, inputs_of, load, picture, session, with_large_pads
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.graph.lowering import lower_graph
from edgepress.export.graph.trace_cache import trace_cached
from edgepress.models.registry import get_family

pytestmark = pytest.mark.slow

FAMILY = get_family("ZImagePipeline")
NAMES = [graph.name for graph in FAMILY.graphs]
# Of the latents: square, wide, tall, one whose tokens are no multiple of 32, and fewer than 32.
SIZES = [(8, 8), (8, 32), (32, 16), (12, 14), (2, 4)]
PROMPTS = [1, 33, 512]
TARGETS = [(23, True), (23, False), (21, True), (18, False), (24, True)]
targets = pytest.mark.parametrize(("opset", "microsoft"), TARGETS)


def named(name: str, tiny: Path) -> ir.Model:
    graph = FAMILY.graph(name)
    assert graph is not None
    return trace_cached(graph, tiny / graph.component)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


@targets
def test_velocities_at_all_sizes_and_prompts(tiny: Path, opset: int, microsoft: bool) -> None:
    model = with_large_pads(load(tiny, "transformer"))
    caption, transformer = (
        session(lower_graph(named(name, tiny), opset, microsoft), model.state_dict())
        for name in ("caption", "transformer")
    )
    for size in SIZES:
        for tokens in PROMPTS:
            latents, text = noise(16, *size), noise(tokens, 128)
            _, expected = picture(model, latents, text)
            first, second = inputs_of(model, latents, text)
            found = transformer.run(None, second | {"caption": caption.run(None, first)[0]})[0]
            assert error(found[:, : expected.shape[1]], expected) < 1e-5, (size, tokens)


@targets
def test_hidden_states_of_all_prompts(tiny: Path, opset: int, microsoft: bool) -> None:
    model = load(tiny, "text_encoder")
    encoder = session(lower_graph(named("text_encoder", tiny), opset, microsoft), model.state_dict())
    for tokens in (1, 2, 31, 200, 512):
        ids = torch.arange(tokens)[None] % 250
        with torch.no_grad():
            expected = model(ids, output_hidden_states=True).hidden_states[-2]
        assert error(encoder.run(None, {"ids": ids.numpy()})[0], expected) < 1e-5, tokens


@targets
@pytest.mark.parametrize("attention", [False, True])
def test_pictures_of_all_sizes(tmp_path: Path, tiny: Path, opset: int, microsoft: bool, attention: bool) -> None:
    """The published decoder has attention in its middle, the tiny one has none."""
    from diffusers import AutoencoderKL

    config = load(tiny, "vae").config
    vae: Any = AutoencoderKL.from_config({**config, "mid_block_add_attention": attention}).eval()
    vae.save_config(tmp_path)
    graph = FAMILY.graph("vae_decoder")
    assert graph is not None
    decoder = session(lower_graph(trace_cached(graph, tmp_path), opset, microsoft), vae.state_dict())
    for height, width in ((4, 4), (6, 10), (1, 3), (32, 16)):
        latents = noise(1, 16, height, width)
        with torch.no_grad():
            expected = vae.decode(latents).sample
        assert error(decoder.run(None, {"latents": latents.numpy()})[0], expected) < 1e-5, (height, width)


@pytest.mark.parametrize("name", NAMES)
@targets
def test_every_model_is_sound(tiny: Path, name: str, opset: int, microsoft: bool) -> None:
    model = lower_graph(named(name, tiny), opset, microsoft)
    assert model.opset_imports[""] == opset
    assert microsoft or set(model.opset_imports) == {""}
    for value in model.graph.initializers.values():
        if value.const_value is None:
            assert isinstance(value.shape, ir.Shape)
            value.const_value = ir.tensor(np.zeros(value.shape.numpy(), np.float32))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_operators_are_fused_where_the_target_has_them(tiny: Path) -> None:
    fused = {"RMSNormalization", "RotaryEmbedding"}
    of_microsoft = operators(lower_graph(named("transformer", tiny), 23, True))
    assert of_microsoft >= fused | {"MultiHeadAttention"}
    assert not of_microsoft & {"Softmax", "Attention"}
    assert operators(lower_graph(named("transformer", tiny), 23, False)) >= fused | {"Attention"}
    assert not operators(lower_graph(named("transformer", tiny), 18, False)) & (fused | {"Attention"})
    assert "GroupNormalization" in operators(lower_graph(named("vae_decoder", tiny), 23, False))
    assert "GroupNormalization" not in operators(lower_graph(named("vae_decoder", tiny), 23, True))


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_is_lost_or_renamed(tiny: Path, name: str) -> None:
    graph = FAMILY.graph(name)
    assert graph is not None
    before = {key for key, value in named(name, tiny).graph.initializers.items() if value.const_value is None}
    after = lower_graph(named(name, tiny), 18, False).graph.initializers
    assert before == {key for key, value in after.items() if value.const_value is None}
    assert before <= set(load(tiny, graph.component).state_dict())


@pytest.mark.parametrize("opset", [17, 99])
def test_an_opset_that_cannot_be_written(tiny: Path, opset: int) -> None:
    with pytest.raises(UserError, match=f"Opset {opset} cannot be written; give one from 18 to 24"):
        lower_graph(named("caption", tiny), opset, True)
