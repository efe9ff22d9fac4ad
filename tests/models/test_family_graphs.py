"""The graph modules of families without a host, in torch, against the components of their pipelines."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_families import FLUX, QWEN, SD3, SDXL, clip, qwen_vae, randomize, t5, vae, write_tiny_family

from edgepress.models.base.graph import Graph
from edgepress.models.base.reference import GoldenIO, load_observer
from edgepress.models.registry import get_family
from edgepress.models.shared.text_encoders import ClipHidden, ClipPooled, ClipProjected, T5Encoder
from edgepress.models.shared.vae_tiling import VAE_TILE_GRAPHS
from edgepress.pipelines.sampling import load_pipeline

SIZES = [(64, 64), (32, 112), (96, 80)]
ODD = (72, 88)  # 9 by 11 latents, which halve to 5 by 6 and 3 by 3
# Variants of each family's denoiser.
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


def observe_pipeline(pipeline: Any, size: tuple[int, int] = (32, 64)) -> list[GoldenIO]:
    return load_observer(get_family(type(pipeline).__name__))(pipeline, "a cat", size)


def get_graph(pipeline: Any, name: str) -> Graph:
    """Returns a graph for the component's config; only components of diffusers have inputs that depend on it."""
    graph = get_family(type(pipeline).__name__).graph(name)
    assert graph is not None
    config = getattr(pipeline, graph.component).config
    return graph.for_config(config if isinstance(config, Mapping) else {})


def make_module(graph: Graph, component: Any) -> torch.nn.Module:
    """Makes the module of a graph from a copy of the component, which it modifies."""
    module, name = graph.module.split(":")
    wrapper: torch.nn.Module = getattr(importlib.import_module(module), name)(copy.deepcopy(component))
    return wrapper


@torch.no_grad()
def run_module(pipeline: Any, golden: GoldenIO) -> dict[str, torch.Tensor]:
    """Runs the module of a graph on golden inputs; returns its outputs by port."""
    graph = get_graph(pipeline, golden.graph)
    assert [port.name for port in graph.inputs] == list(golden.inputs)
    outputs = make_module(graph, getattr(pipeline, graph.component))(*map(torch.from_numpy, golden.inputs.values()))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return dict(zip([port.name for port in graph.outputs], outputs, strict=True))


# ---------------------------------------------------------------- whole pipelines


@pytest.mark.slow
def test_modules_equal_the_components_of_the_pipeline(pipeline: Any) -> None:
    family = get_family(type(pipeline).__name__)
    sizes = [*SIZES, ODD] if family.patch_size == 1 else SIZES
    goldens = [golden for size in sizes for golden in observe_pipeline(pipeline, size)]
    observed = [graph.name for graph in family.graphs if graph not in VAE_TILE_GRAPHS]  # those have their own tests
    assert [golden.graph for golden in goldens] == observed * len(sizes)
    for golden in goldens:
        outputs = run_module(pipeline, golden)
        assert outputs.keys() == golden.outputs.keys()
        for port, expected in golden.outputs.items():
            tolerance = 1e-5 * abs(expected).max()
            torch.testing.assert_close(outputs[port], torch.from_numpy(expected), rtol=0, atol=tolerance)


@pytest.mark.slow
def test_inputs_and_outputs_are_float32_for_bfloat16_weights(pipeline: Any) -> None:
    for graph in get_family(type(pipeline).__name__).graphs:
        module = make_module(graph, getattr(pipeline, graph.component)).to(torch.bfloat16)
        inputs = module.example({"T": 5, "L": 6, "N": 12, "h": 6, "w": 8})
        ports = get_graph(pipeline, graph.name).inputs
        assert [str(tensor.dtype).removeprefix("torch.") for tensor in inputs] == [port.dtype for port in ports]
        assert [tensor.ndim for tensor in inputs] == [len(port.axes) for port in ports]
        with torch.no_grad():
            outputs = module(*inputs)
        assert {tensor.dtype for tensor in (outputs if isinstance(outputs, tuple) else [outputs])} == {torch.float32}


@pytest.mark.slow
def test_denoiser_depends_on_every_input(pipeline: Any) -> None:
    """So the tests above would detect a mistake in any of them."""
    golden = observe_pipeline(pipeline)[-2]
    (port,), (expected,) = golden.outputs, golden.outputs.values()
    for name, array in golden.inputs.items():
        changed = array[..., ::-1].copy() if np.ptp(array) else array + 1
        wrong = dataclasses.replace(golden, inputs=golden.inputs | {name: changed})
        assert abs(run_module(pipeline, wrong)[port].numpy() - expected).max() > 1e-3 * abs(expected).max(), name


# ---------------------------------------------------------------- observing a pipeline


@pytest.mark.slow
def test_observed_pipeline_is_unchanged(pipeline: Any) -> None:
    for first, second in zip(observe_pipeline(pipeline), observe_pipeline(pipeline), strict=True):
        for port, array in first.outputs.items():
            assert (array == second.outputs[port]).all()
    components = [component for component in pipeline.components.values() if isinstance(component, torch.nn.Module)]
    assert not [component for component in components if {"forward", "decode"} & set(vars(component))]


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sd3")
    write_tiny_family(SD3, folder)
    return load_pipeline(folder, torch.float32)


def test_size_beyond_the_position_table_is_an_error_and_changes_nothing(sd3: Any) -> None:
    with pytest.raises(ValueError, match="pos_embed_max_size"):
        observe_pipeline(sd3, (16 * 13, 64))
    assert "forward" not in vars(sd3.transformer)


def test_a_position_table_in_float32_leaves_the_computation_in_float16(sd3: Any) -> None:
    """Exports in float16 store the table as it was."""
    graph = get_graph(sd3, "transformer")
    module: Any = make_module(graph, sd3.transformer).to(torch.float16)
    module.model.pos_embed.pos_embed.data = module.model.pos_embed.pos_embed.float()
    with torch.no_grad():
        velocity = module(*module.example({"N": 12, "L": 6}))
    assert velocity.dtype == torch.float32
    assert velocity.isfinite().all()


def test_pipeline_without_t5(sd3: Any) -> None:
    pipeline = type(sd3)(**sd3.components | {"text_encoder_3": None, "tokenizer_3": None})
    pipeline.set_progress_bar_config(disable=True)
    goldens = observe_pipeline(pipeline)
    assert [golden.graph for golden in goldens] == ["text_encoder", "text_encoder_2", "transformer", "vae_decoder"]
    hidden = goldens[2].inputs["hidden"]
    assert not hidden[:, 77:].any()
    assert hidden[:, :77].any()


# ---------------------------------------------------------------- encoders of images


@torch.no_grad()
@pytest.mark.parametrize(("name", "make_vae", "is_video"), [(FLUX, vae, False), (QWEN, qwen_vae, True)])
def test_encoders_give_the_distribution_that_the_vae_gives(name: str, make_vae: Any, is_video: bool) -> None:
    """An image is a video of one frame to the VAE of Qwen-Image."""
    model = randomize_reproducibly(make_vae())
    (graph,) = get_family(name).optional_graphs
    for size in ((32, 64), ODD):
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        posterior = model.encode(image[:, :, None] if is_video else image).latent_dist
        expected = torch.cat([posterior.mean, posterior.std], dim=1).flatten(2)
        actual = make_module(graph, model)(image)
        assert actual.shape[2:] == (size[0] // 8, size[1] // 8)
        torch.testing.assert_close(actual.flatten(2), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert make_module(graph, model).to(torch.bfloat16)(image).dtype == torch.float32


# ---------------------------------------------------------------- text encoders


@pytest.mark.parametrize("tokens", [1, 2, 17, 128, 300])
def test_t5_encodes_prompts_of_all_lengths(tokens: int) -> None:
    """The longest prompts have tokens beyond the maximum distance of the position bias."""
    model = randomize_reproducibly(t5())
    ids = torch.randint(64, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    with torch.no_grad():
        expected = model(ids)[0]
        torch.testing.assert_close(T5Encoder(model)(ids), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("eos", "end"), [(1, 1), (2, 63)])
@pytest.mark.parametrize("position", [1, 30, 76])
def test_clip_pools_the_end_token(eos: int, end: int, position: int) -> None:
    """That is the first end token, which padding may repeat; or the largest id, with the config of the first models."""
    model, projected = (randomize_reproducibly(clip(projected=projected, eos=eos)) for projected in (False, True))
    ids = torch.randint(3, 60, (1, 77), generator=torch.Generator().manual_seed(position))
    ids[:, position:] = 1
    ids[:, position] = end
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True)
        torch.testing.assert_close(ClipPooled(model)(ids), expected.pooler_output)
        torch.testing.assert_close(ClipHidden(model)(ids), expected.hidden_states[-2])
        expected = projected(ids, output_hidden_states=True)
        hidden, pooled = ClipProjected(projected)(ids)
    torch.testing.assert_close(hidden, expected.hidden_states[-2])
    torch.testing.assert_close(pooled, expected.text_embeds)


def randomize_reproducibly(model: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return randomize(model)
