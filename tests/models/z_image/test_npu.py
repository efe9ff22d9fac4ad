"""The NPU's graphs in torch, with reordered rows for rotary embedding, against diffusers and transformers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_graphs import enlarge_pad_tokens, load_component
from numpy.typing import NDArray

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.rknn.part_graph import make_part_weights
from edgepress.models.base.npu import load_npu_host_class, load_npu_spec
from edgepress.models.base.prompt_tokens import PromptTokens
from edgepress.models.shared.latents import patchify
from edgepress.models.z_image import npu_graphs
from edgepress.models.z_image.family import FAMILY

SIZE, TOKENS = (64, 48), 64
NPU = load_npu_spec(FAMILY)
Arrays = dict[str, NDArray[Any]]


def read_configs(pipeline: Path) -> dict[str, Any]:
    names = {"transformer": "config", "vae": "config", "text_encoder": "config", "scheduler": "scheduler_config"}
    return {name: json.loads((pipeline / name / f"{file}.json").read_text()) for name, file in names.items()}


class TorchRunner:
    """Runs graphs by name in torch; a stack runs in parts of one block."""

    def __init__(self, pipeline: Path) -> None:
        self._pipeline = pipeline

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        graph = NPU.graph(name)
        assert graph is not None
        assert list(inputs) == [port.name for port in graph.inputs]
        tensors = [torch.from_numpy(np.asarray(inputs[port.name])) for port in graph.inputs]
        with torch.no_grad():
            for module in self._make_modules(name):
                tensors[0] = module(*tensors)
        output: NDArray[np.float32] = tensors[0].numpy()
        return output

    def _make_modules(self, name: str) -> list[Any]:
        graph = NPU.graph(name)
        assert graph is not None
        module, _, cls = graph.module.partition(":")
        module_class = getattr(importlib.import_module(module), cls)
        stack = NPU.stacks.get(name)
        component = self._load_component(graph.component)
        if stack is None:
            return [module_class(component)]
        count = len(getattr(component, stack.path)) - stack.unused_blocks
        return [module_class(component, range(number, number + 1)) for number in range(count)]

    def _load_component(self, name: str) -> Any:
        """Loads a component and reorders its rows as the graphs require."""
        component = load_component(self._pipeline, name)
        if name == "transformer":
            component = enlarge_pad_tokens(component)
        source = make_part_weights(open_source(self._pipeline), NPU, name)
        for key, parameter in component.named_parameters():
            if not key.endswith("pad_token"):
                parameter.data = source.materialize(key).float()
        return component


@pytest.fixture(scope="module")
def host(tiny: Path) -> Any:
    table = load_component(tiny, "text_encoder").embed_tokens.weight.detach().numpy()
    return load_npu_host_class(NPU)(read_configs(tiny), SIZE, TOKENS, table)


@pytest.mark.parametrize("length", [5, 33, 64])
def test_velocity_of_a_masked_prompt_equals_diffusers(tiny: Path, host: Any, length: int) -> None:
    """Pads are large, so that a misplaced one or a missing mask changes the velocity."""
    ids = np.random.default_rng(length).integers(0, 250, length)
    text_encoder, transformer = (
        load_component(tiny, "text_encoder"),
        enlarge_pad_tokens(load_component(tiny, "transformer")),
    )
    latents = torch.randn(host.latent_shape(*SIZE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = text_encoder(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states[-2]
        time = torch.tensor([(1000 - 640.0) / 1000])
        expected = -transformer([latents[0, :, None]], time, [states[0]], return_dict=False)[0][0][:, 0]
    run = TorchRunner(tiny)
    prompt = host.encode_prompt(run, {"tokenizer": PromptTokens(ids)})
    velocity = host.predict_velocity(run, latents.numpy(), 640.0, prompt)
    assert velocity.shape == (1, *expected.shape)
    assert np.abs(velocity[0] - expected.numpy()).max() <= 1e-4 * float(expected.abs().max())


def test_axis_sizes(host: Any) -> None:
    patches = patchify(np.zeros(host.latent_shape(*SIZE), np.float32), 2)
    assert host.axis_sizes == {"T": 64, "L": 64, "N": -(-len(patches) // 32) * 32, "h": 8, "w": 6}
    with pytest.raises(UserError, match="exported for images of 64x48, but 64x64 was requested"):
        host.latent_shape(64, 64)


def test_prompt_tokens_must_be_a_multiple_of_32(tiny: Path) -> None:
    with pytest.raises(UserError, match="multiple of 32"):
        load_npu_host_class(NPU)(read_configs(tiny), SIZE, 40, np.zeros((4, 4), np.float32))


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 6), (8, 4)])
def test_attention_of_some_heads_at_a_time(heads: int, kv_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, size, generator = 10, 4, torch.Generator().manual_seed(0)
    shapes = (heads * size, kv_heads * size, kv_heads * size)
    rows = tuple(torch.randn(1, tokens, width, generator=generator) for width in shapes)
    norms = torch.nn.RMSNorm(size), torch.nn.RMSNorm(size)
    angles = torch.randn(tokens, size // 2, generator=generator), torch.randn(tokens, size // 2, generator=generator)
    attention = SimpleNamespace(head_dim=size)

    def attend(limit: int) -> torch.Tensor:
        monkeypatch.setattr(npu_graphs, "MAX_TRANSPOSED_ROWS", limit)
        with torch.no_grad():
            return npu_graphs._attend(rows, attention, norms, angles, torch.zeros(1, 1, 1, tokens))

    at_once = attend(heads * tokens)
    for limit in (heads * tokens - 1, 2 * tokens, 0):
        assert torch.allclose(attend(limit), at_once, atol=1e-6)
