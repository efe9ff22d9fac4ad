"""The decoder's tile graphs as they are exported: in ONNX Runtime and in the simulator, beside diffusers' decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from older_export import check_untouched
from onnx_graphs import load
from toolkit_here import needs_toolkit

from edgepress.errors import UserError
from edgepress.export.onnx.model import find
from edgepress.export.rknn.export import export
from edgepress.export.rknn.graph import source_of, write
from edgepress.export.rknn.job import prepare
from edgepress.export.rknn.plan import Scales
from edgepress.models.npu import Part, npu_host_class, npu_of, tiled
from edgepress.recipe import Recipe, Rknn
from edgepress.runtime.rknn.backend import opened
from edgepress.runtime.rknn.chain import Link
from edgepress.runtime.rknn.manifest import read
from edgepress.runtime.rknn.tiles import chained
from edgepress.runtime.sessions import Sessions
from edgepress.sources import DEMO

VAE = ("vae",)
SETTINGS = Rknn(target="rk3588", precision="fp16", tokens=32, size=(64, 128), tile=64)


def latents(height: int, width: int) -> NDArray[np.float32]:
    """Of a picture of some pixels, whose left is another than its right."""
    noise = np.random.default_rng(0).standard_normal((1, 16, height // 8, width // 8))
    return (noise + np.linspace(-2, 2, width // 8)).astype(np.float32)


def whole(pipeline: Path, given: NDArray[np.float32]) -> NDArray[np.float32]:
    """What diffusers' own decoder makes of latents."""
    with torch.no_grad():
        sample: torch.Tensor = load(pipeline, "vae").decode(torch.from_numpy(given)).sample
    return sample.numpy()


def psnr(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Decibels, of pictures from -1 to 1."""
    return float(10 * np.log10(4 / np.square(found.astype(np.float64) - expected).mean()))


def test_float_graphs_decode_the_picture_that_is_decoded_whole(tiny: Path, tmp_path: Path) -> None:
    model, size = find(tiny), (64, 128)
    npu, given = npu_of(model.family), latents(*size)
    host = npu_host_class(npu)(model.configs(), size, 32, np.zeros((4, 4), np.float32), 64)
    assert host.tiling is not None
    source = source_of(model, npu, "vae")
    names = [graph.name for graph in host.tiling.graphs]
    files = {
        graph.name: write(Part(graph.name, graph), model, source, host.sizes, tmp_path) for graph in host.tiling.graphs
    }
    assert [graph.name for graph in tiled(npu, host).graphs if graph.component == "vae"] == names
    links = {graph.name: [Link(graph.name, tuple(port.name for port in graph.inputs))] for graph in host.tiling.graphs}
    found = chained(host, links, Sessions(files))(host.decoder, {"latents": given})
    assert psnr(found, whole(tiny, given)) > 50


@needs_toolkit
@pytest.mark.slow
def test_tiles_are_wholly_on_the_npu_and_the_artifact_decodes_in_them(tiny: Path, tmp_path: Path) -> None:
    """With the demo's VAE, as random weights lose more by float16."""
    pipeline, artifact = tmp_path / "pipeline", tmp_path / "out"
    shutil.copytree(tiny, pipeline, ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(DEMO / "vae", pipeline / "vae")
    export(pipeline, artifact, SETTINGS, VAE)
    content = json.loads((artifact / "rknn" / "pipeline.json").read_text())
    assert content["tile"] == 64
    assert list(content["graphs"]) == ["vae_begin", "vae_measure_3", "vae_make_3"]
    for (part,) in content["graphs"].values():
        assert part["operators"]["elsewhere"] == part["faults"] == []
        assert part["simulated"]["relative"] <= 2e-3
    host, backend = opened(read(artifact))
    given = latents(64, 128)
    assert psnr(backend(host.decoder, {"latents": given}), whole(pipeline, given)) > 45


@needs_toolkit
def test_a_decoder_cannot_be_the_cpus_and_in_tiles(tiny: Path, occupied: Path) -> None:
    with pytest.raises(UserError, match=r"rknn\.cpu names 'vae_decoder'; graphs are .*vae_begin, vae_measure_3"):
        prepare(tiny, occupied, SETTINGS.model_copy(update={"cpu": ("vae_decoder",)}), ())
    check_untouched(occupied)


def test_a_plan_counts_tiles_on_the_npu_and_the_whole_decoder_on_the_cpu(tiny: Path) -> None:
    def ways(tile: int | None) -> tuple[Any, Any]:
        scales = Scales(find(tiny), Recipe(device="board"), Rknn(size=(256, 256), tile=tile))
        return scales.on_npu("fp16"), scales.on_cpu(keep=True)

    (whole, cpu), (tiles, same) = ways(None), ways(64)
    memory = {part.name: part.internal for part in (*whole.parts, *tiles.parts) if part.name.startswith("vae")}
    (decoder,) = (memory.pop(name) for name in ["vae_decoder"])
    assert list(memory) == [
        "vae_begin",
        "vae_measure_2",
        "vae_make_2",
        "vae_measure_3",
        "vae_make_3",
    ]
    assert max(memory.values()) < decoder / 4
    assert cpu == same
