"""Exported graphs run by ONNX Runtime, against the components in torch: one graph for all sizes and prompts."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import (
    build_graph_inputs,
    compute_error,
    compute_velocity,
    create_session,
    enlarge_pad_tokens,
    load_component,
)
from helpers.small_vae import make_vae
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.graph.lowering import lower_graph
from edgepress.export.graph.trace_cache import trace_cached
from edgepress.models.registry import get_family

pytestmark = pytest.mark.slow

FAMILY = get_family("ZImagePipeline")
NAMES = [graph.name for graph in FAMILY.graphs]
# Of the latents: square, wide, tall, one with a token count that is no multiple of 32, and one with fewer than 32.
SIZES = [(8, 8), (8, 32), (32, 16), (12, 14), (2, 4)]
PROMPTS = [1, 33, 512]
TARGETS = [(23, True), (23, False), (21, True), (18, False), (24, True)]
targets = pytest.mark.parametrize(("opset", "allow_contrib_ops"), TARGETS)


ONE_STAGE = {
    "block_out_channels": (8,),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
}


def trace(name: str, tiny: Path) -> ir.Model:
    """Traces a graph from the config alone: the folder that it reads has no weights."""
    graph = FAMILY.graph(name)
    assert graph is not None
    with TemporaryDirectory() as folder:
        shutil.copy(tiny / graph.component / "config.json", folder)
        return trace_cached(graph, Path(folder))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


@targets
def test_velocities_at_all_sizes_and_prompts(tiny: Path, opset: int, allow_contrib_ops: bool) -> None:
    model = enlarge_pad_tokens(load_component(tiny, "transformer"))
    caption, transformer = (
        create_session(lower_graph(trace(name, tiny), opset, allow_contrib_ops), model.state_dict())
        for name in ("caption", "transformer")
    )
    for size in SIZES:
        for tokens in PROMPTS:
            latents, text = noise(16, *size), noise(tokens, 128)
            _, expected = compute_velocity(model, latents, text)
            first, second = build_graph_inputs(model, latents, text)
            output = transformer.run(None, second | {"caption": caption.run(None, first)[0]})[0]
            assert compute_error(output[:, : expected.shape[1]], expected) < 1e-5, (size, tokens)


@targets
def test_hidden_states_of_all_prompts(tiny: Path, opset: int, allow_contrib_ops: bool) -> None:
    model = load_component(tiny, "text_encoder")
    encoder = create_session(lower_graph(trace("text_encoder", tiny), opset, allow_contrib_ops), model.state_dict())
    for tokens in (1, 2, 31, 200, 512):
        ids = torch.arange(tokens)[None] % 250
        with torch.no_grad():
            expected = model(ids, output_hidden_states=True).hidden_states[-2]
        assert compute_error(encoder.run(None, {"ids": ids.numpy()})[0], expected) < 1e-5, tokens


@targets
@pytest.mark.parametrize("attention", [False, True])
def test_images_of_all_sizes(tmp_path: Path, tiny: Path, opset: int, allow_contrib_ops: bool, attention: bool) -> None:
    """The published decoder has attention in its middle block, the tiny one does not. Here it has one stage."""
    vae: Any = make_vae(**ONE_STAGE) if attention else load_component(tiny, "vae")
    if attention:
        vae.save_config(tmp_path)
    graph = FAMILY.graph("vae_decoder")
    assert graph is not None
    model = trace_cached(graph, tmp_path) if attention else trace("vae_decoder", tiny)
    decoder = create_session(lower_graph(model, opset, allow_contrib_ops), vae.state_dict())
    for height, width in ((4, 4), (6, 10), (1, 3), (32, 16)):
        latents = noise(1, vae.config.latent_channels, height, width)
        with torch.no_grad():
            expected = vae.decode(latents).sample
        assert compute_error(decoder.run(None, {"latents": latents.numpy()})[0], expected) < 1e-5, (height, width)


@pytest.mark.parametrize("name", NAMES)
@targets
def test_every_model_passes_the_checker(tiny: Path, name: str, opset: int, allow_contrib_ops: bool) -> None:
    model = lower_graph(trace(name, tiny), opset, allow_contrib_ops)
    assert model.opset_imports[""] == opset
    assert allow_contrib_ops or set(model.opset_imports) == {""}
    for value in model.graph.initializers.values():
        if value.const_value is None:
            assert isinstance(value.shape, ir.Shape)
            value.const_value = ir.tensor(np.zeros(value.shape.numpy(), np.float32))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_operators_are_fused_where_the_target_supports_them(tiny: Path) -> None:
    fused = {"RMSNormalization", "RotaryEmbedding"}
    contrib = operators(lower_graph(trace("transformer", tiny), 23, True))
    assert contrib >= fused | {"MultiHeadAttention"}
    assert not contrib & {"Softmax", "Attention"}
    assert operators(lower_graph(trace("transformer", tiny), 23, False)) >= fused | {"Attention"}
    assert not operators(lower_graph(trace("transformer", tiny), 18, False)) & (fused | {"Attention"})
    assert "GroupNormalization" in operators(lower_graph(trace("vae_decoder", tiny), 23, False))
    assert "GroupNormalization" not in operators(lower_graph(trace("vae_decoder", tiny), 23, True))


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_is_lost_or_renamed(tiny: Path, name: str) -> None:
    graph = FAMILY.graph(name)
    assert graph is not None
    before = {key for key, value in trace(name, tiny).graph.initializers.items() if value.const_value is None}
    after = lower_graph(trace(name, tiny), 18, False).graph.initializers
    assert before == {key for key, value in after.items() if value.const_value is None}
    assert before <= set(load_component(tiny, graph.component).state_dict())


@pytest.mark.parametrize("opset", [17, 99])
def test_an_unsupported_opset_is_rejected(tiny: Path, opset: int) -> None:
    with pytest.raises(UserError, match=f"Opset {opset} is not supported. Choose one from 18 to 24"):
        lower_graph(trace("caption", tiny), opset, True)
