"""The NPU's graphs, run in torch with halves of heads in their order, beside the component classes of the libraries."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_graphs import load, with_large_pads
from numpy.typing import NDArray

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.rknn.part_graph import make_part_weights
from edgepress.models.base.npu import load_npu_host_class, load_npu_spec
from edgepress.models.z_image import npu_graphs
from edgepress.models.z_image.family import FAMILY
from edgepress.models.z_image.host import patchify

SIZE, TOKENS = (64, 48), 64
NPU = load_npu_spec(FAMILY)
Arrays = dict[str, NDArray[Any]]


def configs(pipeline: Path) -> dict[str, Any]:
    names = {"transformer": "config", "vae": "config", "text_encoder": "config", "scheduler": "scheduler_config"}
    return {name: json.loads((pipeline / name / f"{file}.json").read_text()) for name, file in names.items()}


class InTorch:
    """Runs the graphs by name as torch modules; a stack is run in parts of one block."""

    def __init__(self, pipeline: Path) -> None:
        self._pipeline = pipeline

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        graph = NPU.graph(name)
        assert graph is not None
        assert list(inputs) == [port.name for port in graph.inputs]
        given = [torch.from_numpy(np.asarray(inputs[port.name])) for port in graph.inputs]
        with torch.no_grad():
            for module in self._modules(name):
                given[0] = module(*given)
        output: NDArray[np.float32] = given[0].numpy()
        return output

    def _modules(self, name: str) -> list[Any]:
        graph = NPU.graph(name)
        assert graph is not None
        module, _, cls = graph.module.partition(":")
        make = getattr(importlib.import_module(module), cls)
        stack = NPU.stacks.get(name)
        component = self._component(graph.component)
        if stack is None:
            return [make(component)]
        count = len(getattr(component, stack.path)) - stack.unused_blocks
        return [make(component, range(number, number + 1)) for number in range(count)]

    def _component(self, name: str) -> Any:
        """The component with its rows as the graphs want them."""
        component = load(self._pipeline, name)
        if name == "transformer":
            component = with_large_pads(component)
        source = make_part_weights(open_source(self._pipeline), NPU, name)
        for key, parameter in component.named_parameters():
            if not key.endswith("pad_token"):
                parameter.data = source.materialize(key).float()
        return component


@pytest.fixture(scope="module")
def host(tiny: Path) -> Any:
    table = load(tiny, "text_encoder").embed_tokens.weight.detach().numpy()
    return load_npu_host_class(NPU)(configs(tiny), SIZE, TOKENS, table)


@pytest.mark.parametrize("length", [5, 33, 64])
def test_a_masked_prompt_in_fixed_shapes_gives_the_velocity_of_the_prompt_alone(
    tiny: Path, host: Any, length: int
) -> None:
    """Pads are large, so that one in a wrong place, or one that is read beyond them, would show."""
    ids = np.random.default_rng(length).integers(0, 250, length)
    text_encoder, transformer = load(tiny, "text_encoder"), with_large_pads(load(tiny, "transformer"))
    latents = torch.randn(host.latent_shape(*SIZE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = text_encoder(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states[-2]
        time = torch.tensor([(1000 - 640.0) / 1000])
        expected = -transformer([latents[0, :, None]], time, [states[0]], return_dict=False)[0][0][:, 0]
    run = InTorch(tiny)
    found = host.velocity(run, latents.numpy(), 640.0, host.encode(run, ids))
    assert found.shape == (1, *expected.shape)
    assert np.abs(found[0] - expected.numpy()).max() <= 1e-4 * float(expected.abs().max())


def test_shapes_are_those_of_the_one_size(host: Any) -> None:
    patches = patchify(np.zeros(host.latent_shape(*SIZE), np.float32), 2)
    assert host.sizes == {"T": 64, "L": 64, "N": -(-len(patches) // 32) * 32, "h": 8, "w": 6}
    with pytest.raises(UserError, match="paint 64x48 only, not 64x64"):
        host.latent_shape(64, 64)


def test_prompts_must_be_padded_to_what_pads_fill(tiny: Path) -> None:
    with pytest.raises(UserError, match="multiple of 32"):
        load_npu_host_class(NPU)(configs(tiny), SIZE, 40, np.zeros((4, 4), np.float32))


@pytest.mark.parametrize(("heads", "shared"), [(6, 6), (8, 4)])
def test_heads_that_are_taken_some_at_a_time_find_the_same(
    heads: int, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, size, generator = 10, 4, torch.Generator().manual_seed(0)
    shapes = (heads * size, shared * size, shared * size)
    rows = tuple(torch.randn(1, tokens, width, generator=generator) for width in shapes)
    norms = torch.nn.RMSNorm(size), torch.nn.RMSNorm(size)
    angles = torch.randn(tokens, size // 2, generator=generator), torch.randn(tokens, size // 2, generator=generator)
    attention = SimpleNamespace(head_dim=size)

    def attended(limit: int) -> torch.Tensor:
        monkeypatch.setattr(npu_graphs, "TURNED_OVER", limit)
        with torch.no_grad():
            return npu_graphs._attend(rows, attention, norms, angles, torch.zeros(1, 1, 1, tokens))

    at_once = attended(heads * tokens)
    for limit in (heads * tokens - 1, 2 * tokens, 0):
        assert torch.allclose(attended(limit), at_once, atol=1e-6)
