"""The exported tile graphs of the decoder, in ONNX Runtime and in the simulator, against diffusers' decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_graphs import load_component
from helpers.toolkit import needs_toolkit
from numpy.typing import NDArray

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.rknn.exporter import export_rknn
from edgepress.export.rknn.part_graph import make_part_weights, write_part_onnx
from edgepress.export.rknn.planning.estimator import MemoryEstimator
from edgepress.export.rknn.preflight import open_host
from edgepress.models.base.npu import GraphPart, load_npu_host_class, load_npu_spec, with_tiled_decoder
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.rknn import RknnSettings
from edgepress.recipes.schema import QuantizationSettings, Recipe
from edgepress.runtime.onnx.sessions import SessionPool
from edgepress.runtime.rknn.backend import open_backend
from edgepress.runtime.rknn.exported import load_exported_rknn
from edgepress.runtime.rknn.part_chain import PartRef
from edgepress.runtime.rknn.vae_tiling import chain_graphs

VAE = ("vae",)
SETTINGS = RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32, size=(64, 128), tile=64)


def make_latents(height: int, width: int) -> NDArray[np.float32]:
    """Returns latents of an image whose left differs from its right."""
    noise = np.random.default_rng(0).standard_normal((1, 16, height // 8, width // 8))
    return (noise + np.linspace(-2, 2, width // 8)).astype(np.float32)


def decode_whole(pipeline: Path, latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decodes latents with diffusers."""
    with torch.no_grad():
        sample: torch.Tensor = load_component(pipeline, "vae").decode(torch.from_numpy(latents)).sample
    return sample.numpy()


def compute_psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    """PSNR in dB of images from -1 to 1."""
    return float(10 * np.log10(4 / np.square(image.astype(np.float64) - expected).mean()))


@pytest.fixture(scope="module")
def pipeline(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline with the VAE of the demo, because random weights lose more in float16."""
    folder = tmp_path_factory.mktemp("demo-vae") / "pipeline"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(DEMO_PIPELINE / "vae", folder / "vae")
    return folder


def test_float_tile_graphs_give_the_image_that_is_decoded_whole(pipeline: Path, tmp_path: Path) -> None:
    model, size = open_source(pipeline), (64, 128)
    npu, latents = load_npu_spec(model.family), make_latents(*size)
    host = load_npu_host_class(npu)(model.configs, size, 32, np.zeros((4, 4), np.float32), 64)
    assert host.decoder_tiling is not None
    weights = make_part_weights(model, npu, "vae")
    names = [graph.name for graph in host.decoder_tiling.graphs]
    files = {
        graph.name: write_part_onnx(GraphPart(graph.name, graph), model, weights, host.axis_sizes, tmp_path)
        for graph in host.decoder_tiling.graphs
    }
    assert [graph.name for graph in with_tiled_decoder(npu, host).graphs if graph.component == "vae"] == names
    part_refs = {
        graph.name: [PartRef(graph.name, tuple(port.name for port in graph.inputs))]
        for graph in host.decoder_tiling.graphs
    }
    image = chain_graphs(host, part_refs, SessionPool(files))(host.decoder_graph, {"latents": latents})
    assert compute_psnr(image, decode_whole(pipeline, latents)) > 50


@needs_toolkit
@pytest.mark.slow
def test_tile_graphs_run_on_the_npu_alone_and_the_artifact_decodes_in_tiles(pipeline: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "out"
    export_rknn(pipeline, artifact, Recipe(device="test", rknn=SETTINGS), components=VAE)
    content = json.loads((artifact / "rknn" / "pipeline.json").read_text())
    assert content["tile"] == 64
    assert list(content["graphs"]) == ["vae_begin", "vae_measure_3", "vae_make_3"]
    for (part,) in content["graphs"].values():
        assert part["operators"]["not_on_npu"] == part["errors"] == []
        assert part["simulated"]["relative_error"] <= 2e-3
    host, backend = open_backend(load_exported_rknn(artifact))
    latents = make_latents(64, 128)
    image = backend(host.decoder_graph, {"latents": latents})
    assert compute_psnr(image, decode_whole(pipeline, latents)) > 45


def test_a_tiled_decoder_cannot_run_on_the_cpu(tiny: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"rknn\.cpu = \[vae_decoder\]: unknown graph 'vae_decoder'\. Choose from: .*vae_begin, vae_measure_3",
    ):
        open_host(open_source(tiny), SETTINGS.model_copy(update={"cpu": ("vae_decoder",)}))


def test_a_plan_counts_tiles_on_the_npu_and_the_whole_decoder_on_the_cpu(tiny: Path) -> None:
    def estimate(tile: int | None) -> tuple[Any, Any]:
        settings = RknnSettings(size=(256, 256), tile=tile)
        estimator = MemoryEstimator(open_source(tiny), settings, QuantizationSettings())
        return estimator.estimate_npu("fp16"), estimator.estimate_cpu(keep_loaded=True)

    (whole, cpu), (tiles, cpu_with_tiles) = estimate(None), estimate(64)
    memory = {part.name: part.internal_bytes for part in (*whole.parts, *tiles.parts) if part.name.startswith("vae")}
    (decoder,) = (memory.pop(name) for name in ["vae_decoder"])
    assert list(memory) == [
        "vae_begin",
        "vae_measure_2",
        "vae_make_2",
        "vae_measure_3",
        "vae_make_3",
    ]
    assert max(memory.values()) < decoder / 4
    assert cpu == cpu_with_tiles
