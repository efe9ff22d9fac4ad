"""Exports of other families: what is published, how far it is from torch, and what is rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_graphs import compute_error
from helpers.tiles import without_tile_graphs
from helpers.tiny import edit_weights
from helpers.tiny_families import FLUX, SD3, SDXL, write_tiny_family

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.onnx.exporter import export_onnx
from edgepress.export.verification.parity import OrtRunner
from edgepress.models.base.graph import Graph
from edgepress.models.base.host import load_host
from edgepress.models.base.reference import GoldenIO, load_observer
from edgepress.models.registry import get_family
from edgepress.models.shared.vae_tiling import VAE_TILE_GRAPHS
from edgepress.pipelines.sampling import load_pipeline
from edgepress.recipes.schema import ExportSettings
from edgepress.runtime.golden import run_goldens

FP32 = ExportSettings(precision="fp32")
families = pytest.mark.parametrize("name", [FLUX, SD3, SDXL])
SIZES = {FLUX: [(64, 64), (64, 112)], SD3: [(64, 64), (96, 48)], SDXL: [(64, 64), (72, 88)]}
TOKENIZERS = {FLUX: 2, SD3: 3, SDXL: 2}


class ExportedPipeline(NamedTuple):
    """A pipeline folder, and its published export."""

    source: Path
    onnx: Path


Export = Callable[[str], ExportedPipeline]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports a tiny pipeline of a class."""

    @cache
    def export_tiny(name: str) -> ExportedPipeline:
        folder = tmp_path_factory.mktemp(name)
        write_tiny_family(name, folder / "pipeline")
        with nullcontext() if name == FLUX else without_tile_graphs():
            export_onnx(folder / "pipeline", folder / "artifact", FP32, sizes=SIZES[name])
        return ExportedPipeline(folder / "pipeline", folder / "artifact" / "onnx")

    return export_tiny


def read_config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "pipeline.json").read_text("utf-8")))


# ---------------------------------------------------------------- what is published


@pytest.mark.slow
@families
def test_every_graph_is_within_1e_4_of_torch_and_so_is_the_image(exported: Export, name: str) -> None:
    parity = read_config(exported(name).onnx)["parity"]["exact"]
    in_tiles = ["vae_decoder in tiles"] if name == FLUX else []
    assert list(parity["graphs"]) == sorted(graph.name for graph in list_graphs(name)) + in_tiles
    assert max(error["relative"] for error in parity["graphs"].values()) < 1e-4
    assert parity["image_compared"]
    assert parity["psnr"] is None or parity["psnr"] > 45
    results = run_goldens(exported(name).onnx)
    assert [result.graph for result in results] == list(parity["graphs"])
    assert max(result.relative_error for result in results) < 1e-4


def list_graphs(name: str) -> list[Graph]:
    """The graphs of a family but for those that decode in tiles."""
    return [graph for graph in get_family(name).graphs if graph not in VAE_TILE_GRAPHS]


@pytest.mark.slow
@families
def test_the_export_is_complete_and_passes_the_checker(exported: Export, name: str) -> None:
    folder, graphs = exported(name).onnx, list_graphs(name)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tile_graphs = {f"{graph.name}.onnx" for graph in VAE_TILE_GRAPHS} if name == FLUX else set()
    tokenizers = {file.split("/")[0] for file in files if file.startswith("tokenizer")}
    assert len(tokenizers) == TOKENIZERS[name]
    assert files == tile_graphs | {
        "pipeline.json",
        "SHA256SUMS",
        *(f"{folder}/{file}" for folder in tokenizers for file in ("tokenizer.json", "tokenizer_config.json")),
        *(f"{graph.component}-00001-of-00001.safetensors" for graph in graphs),
        *(f"{graph.name}.onnx" for graph in graphs),
        *(f"golden/{graph.name}.npz" for graph in graphs),
    }
    for graph in graphs:
        onnx.checker.check_model(folder / f"{graph.name}.onnx", full_check=True)
        values = onnx.load(folder / f"{graph.name}.onnx", load_external_data=False).graph.initializer
        assert max((len(value.raw_data) for value in values), default=0) <= 4096  # tables


@pytest.mark.slow
@families
def test_goldens_hold_all_outputs(exported: Export, name: str) -> None:
    folder = exported(name).onnx
    config = {graph.name: read_config(folder)["graphs"][graph.name] for graph in list_graphs(name)}
    graphs = OrtRunner({name: folder / graph["file"] for name, graph in config.items()})
    for name, graph in config.items():
        with np.load(folder / "golden" / f"{name}.npz") as golden:
            assert list(golden) == [
                *(f"in.{port['name']}" for port in graph["inputs"]),
                *(f"out.{port['name']}" for port in graph["outputs"]),
            ]
            outputs = graphs.run_named(name, {port["name"]: golden[f"in.{port['name']}"] for port in graph["inputs"]})
            for port, output in outputs.items():
                expected = golden[f"out.{port}"]
                assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()


# ---------------------------------------------------------------- one graph for all sizes and prompts


@pytest.mark.slow
@families
def test_graphs_equal_the_components_at_other_sizes(exported: Export, name: str) -> None:
    (source, folder), family = exported(name), get_family(name)
    pipeline = load_pipeline(source, torch.float32)
    graphs = OrtRunner({graph.name: folder / f"{graph.name}.onnx" for graph in list_graphs(name)})
    for size in ((32, 32), (16, 96), (112, 80)):
        goldens: list[GoldenIO] = load_observer(family)(pipeline, "two dogs in the rain", size)
        for golden in goldens:
            outputs = graphs.run_named(golden.graph, golden.inputs)
            for port, expected in golden.outputs.items():
                assert compute_error(outputs[port], torch.from_numpy(expected)) < 1e-4, (golden.graph, port, size)


@pytest.mark.slow
def test_t5_and_the_transformer_accept_prompts_of_any_length(exported: Export) -> None:
    source, folder = exported(FLUX)
    pipeline = load_pipeline(source, torch.float32)
    graphs = OrtRunner({name: folder / f"{name}.onnx" for name in ("text_encoder_2", "transformer")})
    with np.load(folder / "golden" / "transformer.npz") as golden:
        inputs = {key.removeprefix("in."): golden[key] for key in golden if key.startswith("in.")}
    for tokens in (1, 2, 77, 300):
        ids = torch.randint(30, (1, tokens), generator=torch.Generator().manual_seed(tokens))
        places = torch.zeros(8 * 4, 3)  # 8 rows of 4 patches; the golden picture is square
        places[:, 1], places[:, 2] = torch.arange(32) // 4, torch.arange(32) % 4
        patches = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            hidden = pipeline.text_encoder_2(ids)[0]
            velocity = pipeline.transformer(
                hidden_states=patches,
                encoder_hidden_states=hidden,
                pooled_projections=torch.from_numpy(inputs["pooled"]),
                timestep=torch.from_numpy(inputs["timestep"]),
                img_ids=places,
                txt_ids=torch.zeros(tokens, 3),
                guidance=torch.from_numpy(inputs["guidance"]),
            ).sample
            image, text = (
                [table[:, ::2].numpy().copy() for table in pipeline.transformer.pos_embed(ids)]
                for ids in (places, torch.zeros(tokens, 3))
            )
        assert compute_error(graphs("text_encoder_2", {"ids": ids.numpy()}), hidden) < 1e-4, tokens
        fed = inputs | {"patches": patches.numpy(), "hidden": hidden.numpy()}
        fed |= {"image_cos": image[0], "image_sin": image[1], "text_cos": text[0], "text_sin": text[1]}
        assert compute_error(graphs("transformer", fed), velocity) < 1e-4, tokens


# ---------------------------------------------------------------- graphs that depend on the config


def write_and_open(pipeline: str, folder: Path, **config: Any) -> dict[str, Graph]:
    write_tiny_family(pipeline, folder, **config)
    return {graph.name: graph for graph in open_source(folder).family.graphs}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "key", "value"), [(FLUX, "guidance_embeds", True), (SDXL, "time_cond_proj_dim", 8)]
)
def test_guidance_is_an_input_where_the_model_has_it(pipeline: str, key: str, value: Any, tmp_path: Path) -> None:
    name = get_family(pipeline).denoiser
    for setting, ports in ((value, 1), (None, 0)):
        graph = write_and_open(pipeline, tmp_path / str(setting), **{key: setting})[name]
        assert sum(port.name == "guidance" for port in graph.inputs) == ports


@pytest.mark.slow
def test_a_pipeline_without_t5_has_no_graph_of_it(tmp_path: Path) -> None:
    names = list(write_and_open(SD3, tmp_path))
    index = json.loads((tmp_path / "model_index.json").read_text()) | {"text_encoder_3": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    names.remove("text_encoder_3")
    assert [graph.name for graph in open_source(tmp_path).family.graphs] == names


def test_a_missing_component_is_rejected(tmp_path: Path) -> None:
    write_tiny_family(SD3, tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "pipeline" / "text_encoder_2")
    with pytest.raises(UserError, match=r"There is no folder .*text_encoder_2"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32)


def test_the_prefix_of_older_text_encoders_is_stripped(tmp_path: Path) -> None:
    write_tiny_family(FLUX, tmp_path)
    plain = set(open_source(tmp_path).open_checkpoint("text_encoder").names())
    with edit_weights(tmp_path / "text_encoder") as tensors:
        for name in list(tensors):
            tensors[f"text_model.{name}"] = tensors.pop(name)
    assert set(open_source(tmp_path).open_checkpoint("text_encoder").names()) == plain


# ---------------------------------------------------------------- what is rejected


@pytest.mark.parametrize(
    ("pipeline", "size", "multiple"), [(FLUX, (64, 72), 16), (SD3, (40, 64), 16), (SDXL, (64, 60), 8)]
)
def test_an_invalid_size_is_rejected_before_anything_is_written(
    pipeline: str, size: tuple[int, int], multiple: int, tmp_path: Path
) -> None:
    write_tiny_family(pipeline, tmp_path / "pipeline")
    with pytest.raises(UserError, match=f"Invalid image size {size[0]}x{size[1]}: .* multiples of {multiple}"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32, sizes=[size])
    assert not (tmp_path / "out").exists()


def test_a_vae_of_another_class_is_rejected(tmp_path: Path) -> None:
    write_tiny_family(SDXL, tmp_path / "pipeline")
    (tmp_path / "pipeline" / "vae" / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(UserError, match=r"vae/config\.json describes an 'AutoencoderTiny'"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32, sizes=[(64, 64)])


@pytest.mark.slow
def test_a_size_that_the_pipeline_does_not_support_is_reported(tmp_path: Path) -> None:
    write_tiny_family(SD3, tmp_path / "pipeline")
    with pytest.raises(UserError, match="Invalid image size 208x64: the model's position tables end at"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32, sizes=[(208, 64)])
    assert not (tmp_path / "out" / "onnx").exists()


def test_images_cannot_be_generated_without_a_host() -> None:
    with pytest.raises(UserError, match="edgepress cannot generate images with FluxPipeline; it only exports"):
        load_host(replace(get_family(FLUX), host=""), {})


@pytest.mark.slow
def test_int4_of_an_original_pipeline_is_rejected(tmp_path: Path) -> None:
    write_tiny_family(SDXL, tmp_path)
    with pytest.raises(UserError, match="no INT4 weights"):
        export_onnx(tmp_path, tmp_path.with_name("out"), ExportSettings(precision="int4"))
