"""The modules for graphs of families without a host, as torch runs them, against their pipelines' own parts."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_families import FLUX, SD3, SDXL, clip, randomize, t5, write_tiny_family

from edgepress.models.base.graph import Graph
from edgepress.models.base.reference import GoldenIO, load_observer
from edgepress.models.registry import get_family
from edgepress.models.shared.text_encoders import T5Encoder, ClipHidden, ClipPooled, ClipProjected
from edgepress.pipelines.sampling import load_pipeline

SIZES = [(64, 64), (32, 112), (96, 80)]
ODD = (72, 88)  # 9 by 11 latents, which halve to 5 by 6 and 3 by 3
# Of each family, what its denoiser may be.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    (FLUX, {}),
    (FLUX, {"guidance_embeds": False}),
    (SD3, {}),
    (SD3, {"dual_attention_layers": (), "qk_norm": None}),
    (SDXL, {}),
    (SDXL, {"time_cond_proj_dim": 8}),
    (SDXL, {"mid_block_type": None}),
]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: f"{variant[0]} {variant[1]}")
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name, config = request.param
    folder = tmp_path_factory.mktemp("family")
    write_tiny_family(name, folder, **config)
    return load_pipeline(folder, torch.float32)


def exchanges(pipeline: Any, size: tuple[int, int] = (32, 64)) -> list[GoldenIO]:
    return load_observer(get_family(type(pipeline).__name__))(pipeline, "a cat", size)


def graph_of(pipeline: Any, name: str) -> Graph:
    """A graph as the component's config wants it; only those of diffusers want anything."""
    graph = get_family(type(pipeline).__name__).graph(name)
    assert graph is not None
    config = getattr(pipeline, graph.component).config
    return graph.for_config(config if isinstance(config, Mapping) else {})


def module_of(graph: Graph, component: Any) -> torch.nn.Module:
    """Made of a copy of the component, since it changes what it is made of."""
    module, name = graph.module.split(":")
    found: torch.nn.Module = getattr(importlib.import_module(module), name)(copy.deepcopy(component))
    return found


@torch.no_grad()
def answers(pipeline: Any, one: GoldenIO) -> dict[str, torch.Tensor]:
    """What a graph's module gives for the inputs of an exchange, by port."""
    graph = graph_of(pipeline, one.graph)
    assert [port.name for port in graph.inputs] == list(one.inputs)
    found = module_of(graph, getattr(pipeline, graph.component))(*map(torch.from_numpy, one.inputs.values()))
    return dict(zip([port.name for port in graph.outputs], found if isinstance(found, tuple) else [found], strict=True))


# ---------------------------------------------------------------- whole pipelines


@pytest.mark.slow
def test_all_modules_give_what_the_pipelines_parts_gave(pipeline: Any) -> None:
    family = get_family(type(pipeline).__name__)
    sizes = [*SIZES, ODD] if family.patch_size == 1 else SIZES
    asked = [one for size in sizes for one in exchanges(pipeline, size)]
    assert [one.graph for one in asked] == [graph.name for graph in family.graphs] * len(sizes)
    for one in asked:
        found = answers(pipeline, one)
        assert found.keys() == one.outputs.keys()
        for port, expected in one.outputs.items():
            torch.testing.assert_close(found[port], torch.from_numpy(expected), rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.slow
def test_inputs_and_outputs_are_float32_whatever_the_weights_are(pipeline: Any) -> None:
    for graph in get_family(type(pipeline).__name__).graphs:
        module = module_of(graph, getattr(pipeline, graph.component)).to(torch.bfloat16)
        inputs = module.example({"T": 5, "L": 6, "N": 12, "h": 6, "w": 8})
        ports = graph_of(pipeline, graph.name).inputs
        assert [str(tensor.dtype).removeprefix("torch.") for tensor in inputs] == [port.dtype for port in ports]
        assert [tensor.ndim for tensor in inputs] == [len(port.axes) for port in ports]
        with torch.no_grad():
            found = module(*inputs)
        assert {tensor.dtype for tensor in (found if isinstance(found, tuple) else [found])} == {torch.float32}


@pytest.mark.slow
def test_what_is_fed_to_the_denoiser_is_read(pipeline: Any) -> None:
    """With any input turned around or raised, the answer is another one: the tests above would see a mistake there."""
    one = exchanges(pipeline)[-2]
    (port,), (expected,) = one.outputs, one.outputs.values()
    for name, array in one.inputs.items():
        other = array[..., ::-1].copy() if np.ptp(array) else array + 1
        wrong = dataclasses.replace(one, inputs=one.inputs | {name: other})
        assert abs(answers(pipeline, wrong)[port].numpy() - expected).max() > 1e-3 * abs(expected).max(), name


# ---------------------------------------------------------------- watching


@pytest.mark.slow
def test_a_pipeline_is_as_it_was_when_it_has_been_watched(pipeline: Any) -> None:
    first, again = exchanges(pipeline), exchanges(pipeline)
    for one, other in zip(first, again, strict=True):
        for port, array in one.outputs.items():
            assert (array == other.outputs[port]).all()
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert not [part for part in parts if {"forward", "decode"} & set(vars(part))]


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sd3")
    write_tiny_family(SD3, folder)
    return load_pipeline(folder, torch.float32)


def test_a_size_beyond_the_table_of_positions_is_refused_and_leaves_nothing_behind(sd3: Any) -> None:
    with pytest.raises(ValueError, match="pos_embed_max_size"):
        exchanges(sd3, (16 * 13, 64))
    assert "forward" not in vars(sd3.transformer)


def test_a_pipeline_may_lack_t5(sd3: Any) -> None:
    without = type(sd3)(**sd3.components | {"text_encoder_3": None, "tokenizer_3": None})
    without.set_progress_bar_config(disable=True)
    asked = exchanges(without)
    assert [one.graph for one in asked] == ["text_encoder", "text_encoder_2", "transformer", "vae_decoder"]
    hidden = asked[2].inputs["hidden"]
    assert not hidden[:, 77:].any()
    assert hidden[:, :77].any()


# ---------------------------------------------------------------- text encoders


@pytest.mark.parametrize("tokens", [1, 2, 17, 128, 300])
def test_t5_reads_prompts_of_all_lengths(tokens: int) -> None:
    """Tokens further apart than the table knows are among them."""
    model = reader(t5())
    ids = torch.randint(64, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    with torch.no_grad():
        expected = model(ids)[0]
        torch.testing.assert_close(T5Encoder(model)(ids), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("eos", "end"), [(1, 1), (2, 63)])
@pytest.mark.parametrize("place", [1, 30, 76])
def test_clip_pools_where_the_text_ends(eos: int, end: int, place: int) -> None:
    """At the first end token, which later padding may repeat; with the first models' config, at the largest token."""
    model, projected = reader(clip(eos=eos)), reader(clip(projected=True, eos=eos))
    ids = torch.randint(3, 60, (1, 77), generator=torch.Generator().manual_seed(place))
    ids[:, place:] = 1
    ids[:, place] = end
    with torch.no_grad():
        found = model(ids, output_hidden_states=True)
        torch.testing.assert_close(ClipPooled(model)(ids), found.pooler_output)
        torch.testing.assert_close(ClipHidden(model)(ids), found.hidden_states[-2])
        both = projected(ids, output_hidden_states=True)
        hidden, pooled = ClipProjected(projected)(ids)
    torch.testing.assert_close(hidden, both.hidden_states[-2])
    torch.testing.assert_close(pooled, both.text_embeds)


def reader(model: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return randomize(model)
