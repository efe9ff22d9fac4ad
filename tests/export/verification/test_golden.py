"""Golden inputs and outputs: where they come from, and the files in which boards get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.torch_graphs import read_host_configs

from edgepress.common.errors import UserError
from edgepress.export.verification.golden import (
    TorchReference,
    build_golden_inputs,
    compute_goldens,
    run_all_graphs,
    save_goldens,
)
from edgepress.models.base.family import Family
from edgepress.models.base.graph import Graph
from edgepress.models.base.host import Host, load_host, run_first_outputs
from edgepress.models.base.prompt_tokens import PromptTokens
from edgepress.models.base.reference import GoldenIO
from edgepress.models.registry import get_family
from edgepress.pipelines.hub import DEMO_PIPELINE, read_pipeline_class

TOKENS = {"tokenizer": PromptTokens(np.arange(5))}


@pytest.fixture(scope="module")
def family() -> Family:
    return get_family(read_pipeline_class(DEMO_PIPELINE))


@pytest.fixture(scope="module")
def host(tiny: Path, family: Family) -> Host:
    return load_host(family, read_host_configs(tiny))


def test_each_size_has_an_input_of_standard_normal_noise(host: Host) -> None:
    first, second = build_golden_inputs(host, TOKENS, [(256, 384), (384, 256)])
    assert first.latents.shape == host.latent_shape(256, 384)
    assert second.latents.shape == host.latent_shape(384, 256)
    assert abs(first.latents.mean()) < 0.05
    assert abs(first.latents.std() - 1) < 0.05
    assert not np.array_equal(first.latents.flat[:10], second.latents.flat[:10])
    again = build_golden_inputs(host, TOKENS, [(256, 384), (384, 256)])
    assert np.array_equal(again[1].latents, second.latents)


def test_only_the_first_case_of_a_graph_is_saved(tmp_path: Path) -> None:
    cases = [
        GoldenIO(graph, {"x": np.full(2, number)}, {"y": np.full(3, -number)})
        for number, graph in enumerate(["a", "b", "a"], 1)
    ]
    save_goldens(cases, tmp_path / "golden")
    assert sorted(file.name for file in (tmp_path / "golden").iterdir()) == ["a.npz", "b.npz"]
    with np.load(tmp_path / "golden" / "a.npz") as arrays:
        assert {name: array.tolist() for name, array in arrays.items()} == {"in.x": [1, 1], "out.y": [-1, -1, -1]}


def test_torch_computes_what_the_components_themselves_do(tiny: Path, family: Family, host: Host) -> None:
    """The decoder's golden output is that of the pipeline's own VAE, for the same latents."""
    import torch
    from diffusers import AutoencoderKL

    inputs = build_golden_inputs(host, TOKENS, [(64, 32)])
    seen: list[tuple[str, int, int]] = []
    goldens = compute_goldens(TorchReference(tiny, family, {}), host, inputs, lambda *call: seen.append(call))
    assert [golden.graph for golden in goldens] == ["text_encoder", "caption", "transformer", "vae_decoder"]
    golden = next(golden for golden in goldens if golden.graph == host.decoder_graph)
    (latents,), (image,) = golden.inputs.values(), golden.outputs.values()
    with torch.no_grad():
        expected = AutoencoderKL.from_pretrained(tiny / "vae").decode(torch.from_numpy(latents)).sample.numpy()
    np.testing.assert_allclose(image, expected, atol=1e-5)
    components = len({graph.component for graph in family.graphs})
    assert [(done, total) for _, done, total in seen] == [(done, components) for done in range(components + 1)]


class RecordingHost:
    """A host that only records the order of what it is asked for."""

    encoder_graph = "encoder"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)


@pytest.mark.parametrize("has_encoder", [False, True])
def test_images_are_encoded_only_if_there_is_a_graph_for_it(has_encoder: bool, host: Host) -> None:
    graphs = (Graph("encoder", "vae", "", (), ()),) if has_encoder else ()
    recording: Any = RecordingHost()
    (golden_input,) = build_golden_inputs(host, TOKENS, [(64, 64)])
    run = run_first_outputs(lambda *_: np.zeros(1, np.float32))
    run_all_graphs(recording, run, golden_input, Family("SomePipeline", "transformer", graphs=graphs))
    calls = ["encode_prompt", "predict_velocity", "decode_latents"]
    assert recording.calls == calls + ["encode_image"] * has_encoder


def test_sizes_that_the_pipeline_does_not_accept(host: Host) -> None:
    with pytest.raises(UserError, match="Invalid image size 100x64"):
        build_golden_inputs(host, TOKENS, [(100, 64)])
