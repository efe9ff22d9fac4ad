"""Families without a host through the same export: what is published, how near to torch it is, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from helpers.onnx_graphs import error
from helpers.tiny import edit_weights
from helpers.tiny_families import FLUX, SD3, SDXL, write_tiny_family

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.onnx.exporter import export_onnx
from edgepress.export.verification.parity import OrtRunner
from edgepress.models.base.graph import Graph
from edgepress.models.base.reference import GoldenIO, load_observer
from edgepress.models.registry import get_family
from edgepress.pipelines.sampling import load_pipeline
from edgepress.recipes.schema import ExportSettings

FP32 = ExportSettings(precision="fp32")
families = pytest.mark.parametrize("name", [FLUX, SD3, SDXL])
SIZES = {FLUX: [(64, 64), (64, 112)], SD3: [(64, 64), (96, 48)], SDXL: [(64, 64), (72, 88)]}
TOKENIZERS = {FLUX: 2, SD3: 3, SDXL: 2}


class Made(NamedTuple):
    """A pipeline folder, and the folder that was published of it."""

    source: Path
    onnx: Path


Maker = Callable[[str], Made]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A tiny pipeline of a class, and its export."""

    @cache
    def made(name: str) -> Made:
        folder = tmp_path_factory.mktemp(name)
        write_tiny_family(name, folder / "pipeline")
        export_onnx(folder / "pipeline", folder / "artifact", FP32, SIZES[name])
        return Made(folder / "pipeline", folder / "artifact" / "onnx")

    return made


def words(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "pipeline.json").read_text("utf-8")))


# ---------------------------------------------------------------- what is published


@pytest.mark.slow
@families
def test_every_graph_is_torch_to_1e_4_and_no_picture_is_claimed(exported: Maker, name: str) -> None:
    parity = words(exported(name).onnx)["parity"]["exact"]
    assert list(parity["graphs"]) == sorted(graph.name for graph in get_family(name).graphs)
    assert max(found["relative"] for found in parity["graphs"].values()) < 1e-4
    assert (parity["painted"], parity["psnr"]) == (False, None)


@pytest.mark.slow
@families
def test_what_is_published_is_sound_and_has_every_tokenizer(exported: Maker, name: str) -> None:
    (source, folder), graphs = exported(name), get_family(name).graphs
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tokenizers = {path.relative_to(source).as_posix() for path in source.glob("tokenizer*/*")}
    assert len({file.split("/")[0] for file in tokenizers}) == TOKENIZERS[name]
    assert found == tokenizers | {
        "pipeline.json",
        *(f"{graph.component}-00001-of-00001.safetensors" for graph in graphs),
        *(f"{graph.name}.onnx" for graph in graphs),
        *(f"golden/{graph.name}.npz" for graph in graphs),
    }
    for graph in graphs:
        onnx.checker.check_model(folder / f"{graph.name}.onnx", full_check=True)
        values = onnx.load(folder / f"{graph.name}.onnx", load_external_data=False).graph.initializer
        assert max((len(value.raw_data) for value in values), default=0) <= 4096  # tables, no weights


@pytest.mark.slow
@families
def test_golden_outputs_are_all_outputs(exported: Maker, name: str) -> None:
    folder = exported(name).onnx
    said = words(folder)["graphs"]
    graphs = OrtRunner({part: folder / graph["file"] for part, graph in said.items()})
    for part, graph in said.items():
        with np.load(folder / "golden" / f"{part}.npz") as stored:
            assert list(stored) == [
                *(f"in.{port['name']}" for port in graph["inputs"]),
                *(f"out.{port['name']}" for port in graph["outputs"]),
            ]
            found = graphs.run(part, {port["name"]: stored[f"in.{port['name']}"] for port in graph["inputs"]})
            for port, array in found.items():
                assert np.abs(array - stored[f"out.{port}"]).max() <= 1e-4 * np.abs(stored[f"out.{port}"]).max()


# ---------------------------------------------------------------- one model for all sizes and prompts


@pytest.mark.slow
@families
def test_graphs_answer_as_the_pipelines_parts_at_other_sizes(exported: Maker, name: str) -> None:
    (source, folder), family = exported(name), get_family(name)
    pipeline = load_pipeline(source, torch.float32)
    graphs = OrtRunner({graph.name: folder / f"{graph.name}.onnx" for graph in family.graphs})
    for size in ((32, 32), (16, 96), (112, 80)):
        asked: list[GoldenIO] = load_observer(family)(pipeline, "two dogs in the rain", size)
        for one in asked:
            found = graphs.run(one.graph, one.inputs)
            for port, expected in one.outputs.items():
                assert error(found[port], torch.from_numpy(expected)) < 1e-4, (one.graph, port, size)


@pytest.mark.slow
def test_t5_and_the_transformer_take_prompts_of_any_length(exported: Maker) -> None:
    source, folder = exported(FLUX)
    pipeline = load_pipeline(source, torch.float32)
    graphs = OrtRunner({name: folder / f"{name}.onnx" for name in ("text_encoder_2", "transformer")})
    with np.load(folder / "golden" / "transformer.npz") as stored:
        inputs = {key.removeprefix("in."): stored[key] for key in stored if key.startswith("in.")}
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
        assert error(graphs("text_encoder_2", {"ids": ids.numpy()}), hidden) < 1e-4, tokens
        fed = inputs | {"patches": patches.numpy(), "hidden": hidden.numpy()}
        fed |= {"image_cos": image[0], "image_sin": image[1], "text_cos": text[0], "text_sin": text[1]}
        assert error(graphs("transformer", fed), velocity) < 1e-4, tokens


# ---------------------------------------------------------------- what a config asks for


def graphs_of(pipeline: str, folder: Path, **config: Any) -> dict[str, Graph]:
    write_tiny_family(pipeline, folder, **config)
    return {graph.name: graph for graph in open_source(folder).family.graphs}


@pytest.mark.parametrize(
    ("pipeline", "key", "value"), [(FLUX, "guidance_embeds", True), (SDXL, "time_cond_proj_dim", 8)]
)
def test_guidance_is_an_input_where_the_model_knows_of_it(pipeline: str, key: str, value: Any, tmp_path: Path) -> None:
    name = get_family(pipeline).denoiser
    for said, ports in ((value, 1), (None, 0)):
        graph = graphs_of(pipeline, tmp_path / str(said), **{key: said})[name]
        assert sum(port.name == "guidance" for port in graph.inputs) == ports


def test_a_pipeline_without_t5_has_no_graph_of_it(tmp_path: Path) -> None:
    names = list(graphs_of(SD3, tmp_path))
    index = json.loads((tmp_path / "model_index.json").read_text()) | {"text_encoder_3": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    names.remove("text_encoder_3")
    assert [graph.name for graph in open_source(tmp_path).family.graphs] == names


def test_a_part_that_every_pipeline_of_the_class_has_must_be_there(tmp_path: Path) -> None:
    write_tiny_family(SD3, tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "pipeline" / "text_encoder_2")
    with pytest.raises(UserError, match=r"no component folder .*text_encoder_2"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32)


def test_the_names_of_older_text_encoders_begin_with_a_prefix(tmp_path: Path) -> None:
    write_tiny_family(FLUX, tmp_path)
    plain = set(open_source(tmp_path).open_checkpoint("text_encoder").names())
    with edit_weights(tmp_path / "text_encoder") as tensors:
        for name in list(tensors):
            tensors[f"text_model.{name}"] = tensors.pop(name)
    assert set(open_source(tmp_path).open_checkpoint("text_encoder").names()) == plain


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("pipeline", "size", "multiple"), [(FLUX, (64, 72), 16), (SD3, (40, 64), 16), (SDXL, (64, 60), 8)]
)
def test_a_size_that_cannot_be_painted_is_refused_before_anything_is_written(
    pipeline: str, size: tuple[int, int], multiple: int, tmp_path: Path
) -> None:
    write_tiny_family(pipeline, tmp_path / "pipeline")
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} cannot be painted; .* multiples of {multiple}"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32, [size])
    assert not (tmp_path / "out").exists()


def test_a_vae_of_another_class_is_refused(tmp_path: Path) -> None:
    write_tiny_family(SDXL, tmp_path / "pipeline")
    (tmp_path / "pipeline" / "vae" / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(UserError, match="vae holds no AutoencoderKL"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32, [(64, 64)])


@pytest.mark.slow
def test_a_size_that_the_pipeline_refuses_is_one_sentence_and_nothing_is_published(tmp_path: Path) -> None:
    write_tiny_family(SD3, tmp_path / "pipeline")
    with pytest.raises(UserError, match=r"The pipeline refuses a picture of 208x64: .*pos_embed_max_size"):
        export_onnx(tmp_path / "pipeline", tmp_path / "out", FP32, [(208, 64)])
    assert not (tmp_path / "out" / "onnx").exists()


@pytest.mark.slow
@families
def test_nothing_here_paints_with_such_graphs(exported: Maker, name: str, tmp_path: Path) -> None:
    folder = exported(name).onnx
    result = CliRunner().invoke(main, ["generate", str(folder), "--prompt", "a cat", "-o", str(tmp_path / "a.png")])
    assert result.exit_code == 2
    assert f"Nothing here paints with graphs of the class {name}" in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_there_are_no_4_bits_to_carry_over(tmp_path: Path) -> None:
    write_tiny_family(SDXL, tmp_path)
    with pytest.raises(UserError, match="no 4-bit weights"):
        export_onnx(tmp_path, tmp_path.with_name("out"), ExportSettings(precision="int4"))
