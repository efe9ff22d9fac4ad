"""Exports of a pipeline folder: what is published, how far it is from torch, and what is rejected."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.described_folder import write_checksum_of
from helpers.tiles import without_tile_graphs
from helpers.torch_graphs import generate_with_torch, psnr
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.onnx import writer
from edgepress.export.onnx.exporter import ExportResult, export_onnx
from edgepress.export.verification.parity import (
    INT8_TOLERANCE,
    TOLERANCES,
    OrtRunner,
    Parity,
    Tolerance,
    compute_error,
    measure_errors,
    require_parity,
)
from edgepress.models.base.reference import GoldenIO
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.golden import run_goldens
from edgepress.runtime.pipeline import ImagePipeline
from edgepress.storage.files import hash_files

GRAPHS = ("text_encoder", "caption", "transformer", "vae_decoder")
PREFIXES = ("in.", "out.")
TILES = ("vae_begin", "vae_up_1", "vae_up_2", "vae_up_3")
RECIPE = {
    "device": "test",
    "quantize": {
        "method": "rtn",
        "scheme": {"group_size": 64},
        "extra_schemes": {"qdq": {"group_size": 64, "symmetric": True}},
        "embeddings": "int8",
    },
    "calibration": {"count": 1, "steps": 1},
}


@pytest.fixture(scope="module")
def quantized(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose pad tokens are large random vectors, which attention sees."""
    from helpers.tiny import edit_weights

    folder = tmp_path_factory.mktemp("quantized")
    shutil.copytree(tiny, folder / "pipeline")
    with edit_weights(folder / "pipeline" / "transformer") as tensors:
        for name in ("x_pad_token", "cap_pad_token"):
            tensors[name] = 3 * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1))
    quantize_pipeline(Recipe.model_validate(RECIPE), folder / "pipeline", folder / "artifact")
    return folder / "artifact"


def read_config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "pipeline.json").read_text("utf-8")))


def load_goldens(folder: Path) -> list[GoldenIO]:
    """Returns the published golden inputs and outputs."""
    goldens = []
    for name in GRAPHS:
        with np.load(folder / "golden" / f"{name}.npz") as arrays:
            inputs, outputs = (
                {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
                for prefix in PREFIXES
            )
        goldens.append(GoldenIO(name, inputs, outputs))
    return goldens


def list_work_folders(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob(".work/*") if path.is_dir())


# ---------------------------------------------------------------- what is published


def require_goldens(folder: Path, names: set[str]) -> None:
    """What `edgepress verify` runs again gives torch's outputs again."""
    results = run_goldens(folder)
    assert {result.graph for result in results} == names
    assert max(result.relative_error for result in results) < 1e-4
    assert all(result.passed for result in results)


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """Exported in float32, for a square image and one whose token count is no multiple of 32."""
    sizes = [(64, 64), (64, 112)]
    return export_onnx(tiny, tmp_path_factory.mktemp("plain"), precision="fp32", sizes=sizes)


@pytest.mark.slow
def test_float32_graphs_are_within_1e_4_of_torch_and_the_image_within_45_db(plain: ExportResult) -> None:
    parity = plain.parity["exact"]
    assert set(parity.graphs) == {*GRAPHS, "vae_decoder in tiles"}
    assert max(error.relative for error in parity.graphs.values()) < 1e-4
    assert parity.psnr is None or parity.psnr > 45
    require_goldens(plain.folder, set(parity.graphs))


@pytest.mark.slow
def test_the_result_prints_the_folder_and_every_error(plain: ExportResult) -> None:
    text = str(plain)
    assert text.splitlines()[0] == f"ONNX export in {plain.folder}"
    assert all(name in text for name in (*GRAPHS, "vae_decoder in tiles", "image: "))
    assert [file.stem for file in plain.graph_files] == sorted((*GRAPHS, *TILES))


@pytest.mark.slow
def test_the_export_is_complete(plain: ExportResult) -> None:
    names = {path.relative_to(plain.folder).as_posix() for path in plain.folder.rglob("*") if path.is_file()}
    weights = {f"{component}-00001-of-00001.safetensors" for component in ("text_encoder", "transformer", "vae")}
    tokenizer = {f"tokenizer/{name}" for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")}
    golden = {f"golden/{name}.npz" for name in GRAPHS}
    graphs = {f"{name}.onnx" for name in (*GRAPHS, *TILES)}
    assert names == {"pipeline.json", "SHA256SUMS", *graphs, *weights, *tokenizer, *golden}
    assert list_work_folders(plain.folder.parent) == []
    for name in GRAPHS:
        onnx.checker.check_model(plain.folder / f"{name}.onnx")


@pytest.mark.slow
def test_graphs_hold_no_weights_and_files_hold_nothing_else(plain: ExportResult) -> None:
    read: dict[str, set[str]] = {}
    for name in (*GRAPHS, *TILES):
        graph = onnx.load(plain.folder / f"{name}.onnx", load_external_data=False).graph
        assert max((len(value.raw_data) for value in graph.initializer), default=0) <= 4096  # tables
        for value in graph.initializer:
            if value.external_data:
                read.setdefault(value.external_data[0].value, set()).add(value.name)
    for file, expected in read.items():
        with safe_open(plain.folder / file, "np") as tensors:
            assert set(tensors.keys()) == expected


@pytest.mark.slow
def test_pipeline_json_holds_what_a_runtime_needs(plain: ExportResult, tiny: Path) -> None:
    config = read_config(plain.folder)
    assert (config["schema_version"], config["precision"], config["opset"]) == (1, "fp32", 23)
    assert config["family"] == json.loads((tiny / "model_index.json").read_text())["_class_name"]
    assert config["graphs"]["text_encoder"]["inputs"] == [{"name": "ids", "dtype": "int64", "shape": [1, "T"]}]
    assert config["graphs"]["caption"]["component"] == "transformer"
    assert config["host"]["vae"]["scaling_factor"] == 0.3611
    assert config["sizes"] == [[64, 64], [64, 112]]
    assert config["sources"] == [file.model_dump() for file in hash_files(tiny)]
    assert config["parity"]["exact"]["graphs"]["transformer"]["relative"] < 1e-4
    assert config["session_options"]["entries"] == {"session.qdq_matmulnbits_accuracy_level": "0"}


@pytest.mark.slow
def test_golden_inputs_give_golden_outputs(plain: ExportResult) -> None:
    graphs = OrtRunner({name: plain.folder / f"{name}.onnx" for name in GRAPHS})
    for golden in load_goldens(plain.folder):
        (expected,) = golden.outputs.values()
        assert compute_error(graphs(golden.graph, golden.inputs), expected).relative < 1e-4


@pytest.mark.slow
def test_fixed_shapes_have_a_graph_for_every_size_and_prompt_length(tiny: Path, tmp_path: Path) -> None:
    settings = ExportSettings(precision="fp32", shapes="fixed", max_prompt_tokens=40, extra_graphs=("vae_encoder",))
    result = export_onnx(tiny, tmp_path, settings, sizes=[(64, 64), (32, 96)])
    assert max(error.relative for error in result.parity["exact"].graphs.values()) < 1e-4
    require_goldens(result.folder, set(result.parity["exact"].graphs))
    names = {file.stem for file in result.folder.glob("*.onnx")}
    assert names == {
        *(f"{name}{length}" for name in ("text_encoder-T", "caption-L") for length in (32, 64)),
        *(f"transformer-N32-L{length}" for length in (32, 64)),
        *("vae_decoder-h8-w8", "vae_decoder-h4-w12", "vae_encoder-H64-W64", "vae_encoder-H32-W96"),
    }
    for name in names:
        graph = onnx.load(result.folder / f"{name}.onnx", load_external_data=False).graph
        ports = [*graph.input, *graph.output]
        assert not [port.name for port in ports for axis in port.type.tensor_type.shape.dim if axis.dim_param]
    pipeline = ImagePipeline(tmp_path, keep_loaded=False)
    assert pipeline.generate(GenerationRequest("a cat", steps=1, size=(32, 96))).size == (96, 32)
    start = Image.effect_noise((100, 40), 90)  # which is scaled to an exported size
    request = GenerationRequest("a cat", steps=2, size=(32, 96), image=start.convert("RGB"), strength=0.5)
    assert psnr(pipeline.generate(request), generate_with_torch(load_pipeline(tiny, torch.float32), request)) > 45
    with pytest.raises(UserError, match="exported for images of 64x64, 32x96, but 96x96 was requested"):
        pipeline.generate(GenerationRequest("a cat", steps=1, size=(96, 96)))
    warnings: list[str] = []
    pipeline.generate(GenerationRequest("a" * 60, steps=1), warn=warnings.append)
    assert "the model reads the first 40" in warnings[0]


# ---------------------------------------------------------------- 4 bits


@pytest.mark.slow
@pytest.mark.parametrize("int4_format", ["ort", "qdq"])
def test_int4_equals_torch_with_the_same_codes(int4_format: str, quantized: Path, tmp_path: Path) -> None:
    settings = ExportSettings.model_validate({"precision": "int4", "format": int4_format})
    result = export_onnx(quantized, tmp_path, settings)
    assert max(error.relative for error in result.parity["exact"].graphs.values()) < 1e-4
    require_goldens(result.folder, {*GRAPHS, "vae_decoder in tiles"})
    psnr = result.parity["exact"].psnr
    assert psnr is None or psnr > 38
    graph = onnx.load(result.folder / "transformer.onnx", load_external_data=False).graph
    operator = {"ort": "MatMulNBits", "qdq": "DequantizeLinear"}[int4_format]
    assert sum(node.op_type == operator for node in graph.node) == 14  # seven in each of two blocks
    for component in ("transformer", "text_encoder"):
        source = quantized / "model" / ("." if int4_format == "ort" else "solutions/qdq") / component
        check_codes(load_tensors(source, "*"), load_tensors(result.folder, f"{component}-*"), int4_format)


def load_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob(f"{stem}.safetensors") for name, tensor in load_file(file).items()}


def check_codes(source: dict[str, Tensor], published: dict[str, Tensor], int4_format: str) -> None:
    """Checks that codes, scales and zero points in the published files are exactly those of the model."""
    linears = [name.removesuffix(".qzeros") for name in source if name.endswith(".qzeros")]
    read = [linear for linear in linears if f"{linear}.qweight" in published]
    assert len(read) > len(linears) // 2  # the text encoder's last layer is not read
    for linear in read:
        codes, zeros = (codes_in(source[f"{linear}.{kind}"]) for kind in ("qweight", "qzeros"))
        scales = source[f"{linear}.scales"].float()
        operands = {kind: published.get(f"{linear}.{kind}") for kind in ("qweight", "scales", "zero_points")}
        assert operands["qweight"] is not None
        assert operands["scales"] is not None
        if int4_format == "qdq":
            assert torch.equal(nibbles(operands["qweight"]), codes - 8 & 15)
            assert torch.equal(operands["scales"], scales)
            assert (zeros == 8).all()
            continue
        assert torch.equal(nibbles(operands["qweight"]).flatten(1), codes.T)
        assert torch.equal(operands["scales"], scales.T)
        assert operands["zero_points"] is not None
        assert torch.equal(nibbles(operands["zero_points"])[:, : len(zeros)], zeros.T)


def codes_in(packed_words: Tensor) -> Tensor:
    """AutoAWQ's words (rows, columns / 8) as codes (rows, columns), each at the nibble that it has in its word."""
    return torch.stack([packed_words >> 4 * nibble & 15 for nibble in (0, 4, 1, 5, 2, 6, 3, 7)], dim=-1).flatten(1)


def nibbles(values: Tensor) -> Tensor:
    """Bytes (..., n) as codes (..., 2 n), the low nibble first."""
    return torch.stack([values & 15, values >> 4], dim=-1).flatten(-2).int()


def map_values(file: Path, name: str, dtype: type) -> Any:
    """Maps the values of a tensor in a safetensors file; writing to them changes the file."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        begin, end = json.loads(stream.read(length))[name]["data_offsets"]
    return np.memmap(file, dtype, "r+", 8 + length + begin, ((end - begin) // np.dtype(dtype).itemsize,))


@pytest.fixture(scope="module")
def level_4(quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    with without_tile_graphs():
        return export_onnx(quantized, tmp_path_factory.mktemp("level-4"), ExportSettings(accuracy_level=4))


@pytest.mark.slow
def test_the_error_of_int8_products_is_reported_separately(level_4: ExportResult) -> None:
    exact, exported = (level_4.parity[name].graphs["transformer"].relative for name in ("exact", "exported"))
    assert exact < 1e-4 < exported
    assert not list(level_4.folder.glob("*.exact.onnx"))
    nodes = onnx.load(level_4.folder / "transformer.onnx", load_external_data=False).graph.node
    levels = {value.i for node in nodes for value in node.attribute if value.name == "accuracy_level"}
    assert levels == {4}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "file", "linear", "kind"),
    [
        ("caption", "transformer", "context_refiner.0.attention.to_v", "qweight"),
        ("text_encoder", "text_encoder", "layers.0.self_attn.v_proj", "scales"),
    ],
)
def test_a_single_wrong_linear_exceeds_the_tolerance_of_int8_products(
    level_4: ExportResult, tmp_path: Path, graph: str, file: str, linear: str, kind: str
) -> None:
    """Its published scales are multiplied by four, or all bits of its codes are inverted."""
    shutil.copytree(level_4.folder, tmp_path / "onnx")
    require_parity(measure_at_level_4(tmp_path / "onnx"), INT8_TOLERANCE)
    dtype = {"scales": np.float32, "qweight": np.uint8}[kind]
    values = map_values(tmp_path / "onnx" / f"{file}-00001-of-00001.safetensors", f"{linear}.{kind}", dtype)
    values[:] = values * 4 if kind == "scales" else ~values
    values.flush()
    with pytest.raises(UserError, match=f"Graph '{graph}' deviates from torch by .* nothing was published"):
        require_parity(measure_at_level_4(tmp_path / "onnx"), INT8_TOLERANCE)


def measure_at_level_4(folder: Path) -> Parity:
    """Compares published graphs with published outputs."""
    graphs = OrtRunner({name: folder / f"{name}.onnx" for name in GRAPHS}, accuracy_level=4)
    return Parity(measure_errors(load_goldens(folder), graphs), None)


@pytest.mark.slow
def test_graphs_with_wrong_int8_products_are_not_published(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the published graphs are wrong, not those that are written for parity."""
    set_accuracy_level = writer.set_accuracy_level

    def set_level_and_drop_zero_points(model: ir.Model, level: int) -> None:
        set_accuracy_level(model, level)
        for node in model.graph if level else ():
            if node.op_type == "MatMulNBits":
                node.replace_input_with(3, None)  # the zero points

    monkeypatch.setattr(writer, "set_accuracy_level", set_level_and_drop_zero_points)
    message = r"Graph \'\w+\' deviates from torch by .* nothing was published"
    with without_tile_graphs(), pytest.raises(UserError, match=message):
        export_onnx(quantized, tmp_path, ExportSettings(accuracy_level=4))
    assert not (tmp_path / "onnx").exists()


@pytest.mark.slow
def test_no_script_is_written_for_block_sizes_that_tensorrt_does_not_support(tiny: Path, tmp_path: Path) -> None:
    scheme = {"group_size": 32, "symmetric": True}
    recipe = Recipe.model_validate(RECIPE | {"quantize": {"method": "rtn", "scheme": scheme}})
    quantize_pipeline(recipe, tiny, tmp_path)
    with without_tile_graphs():
        result = export_onnx(tmp_path, tmp_path, ExportSettings(format="qdq"), verify=False)
    assert not (result.folder / "build_engines.sh").exists()
    assert "in blocks of 64 or 128, not 32" in result.tensorrt_unsupported_reason


@pytest.mark.slow
def test_the_engine_script_builds_the_published_graphs_with_their_inputs(quantized: Path, tmp_path: Path) -> None:
    settings = ExportSettings.model_validate({"precision": "int4", "format": "qdq", "opset": 21})
    folder = export_onnx(quantized, tmp_path, settings, sizes=[(64, 64), (128, 192)], verify=False).folder
    script = folder / "build_engines.sh"
    assert "NOT VERIFIED HERE" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
    lines = subprocess.run([script], env=os.environ | {"TRTEXEC": "echo"}, capture_output=True, text=True, check=True)
    built = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines.stdout.splitlines()]
    assert {options["--onnx"] for options in built} == {f"{name}.onnx" for name in GRAPHS}
    sizes = {"T": (32, 128), "L": (32, 128), "N": (32, 96), "h": (8, 16), "w": (8, 24)}
    for options in built:
        inputs = onnx.load(folder / options["--onnx"], load_external_data=False).graph.input
        axes = {
            port.name: [axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim] for port in inputs
        }
        for kind, which in (("min", 0), ("opt", 1), ("max", 1)):
            assert dict(shape.split(":") for shape in options[f"--{kind}Shapes"].split(",")) == {
                name: "x".join(str(sizes[axis][which] if isinstance(axis, str) else axis) for axis in port)
                for name, port in axes.items()
                if set(port) & set(sizes)
            }


@pytest.mark.slow
def test_a_quantized_pipeline_is_dequantized_for_float32(quantized: Path, tmp_path: Path) -> None:
    with without_tile_graphs():
        result = export_onnx(quantized, tmp_path, ExportSettings(precision="fp32"))
    assert max(error.relative for error in result.parity["exact"].graphs.values()) < 1e-4


# ---------------------------------------------------------------- what is rejected


def get_rejection(source: Path, output: Path, sizes: list[tuple[int, int]] | None = None, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        export_onnx(source, output, ExportSettings.model_validate(settings), sizes=sizes or [], verify=False)
    assert not (output / "onnx").exists()
    return str(error.value)


def test_an_invalid_size_is_rejected_before_anything_is_written(tiny: Path, tmp_path: Path) -> None:
    assert "multiples of 16" in get_rejection(tiny, tmp_path / "out", [(64, 72)], precision="fp32")
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_the_runtime_lacks_is_rejected_before_anything_is_written(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_karras_sigmas": True}))
    assert "Unsupported scheduler option" in get_rejection(tmp_path / "model", tmp_path / "out", precision="fp32")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("opset", "int4_format"), [(11, "ort"), (99, "ort"), (20, "qdq")])
def test_an_unsupported_opset_is_rejected(opset: int, int4_format: str, tiny: Path, tmp_path: Path) -> None:
    assert f"Opset {opset} does not support" in get_rejection(tiny, tmp_path / "out", opset=opset, format=int4_format)


def test_int4_of_an_original_pipeline_is_rejected(tiny: Path, tmp_path: Path) -> None:
    assert "no INT4 weights" in get_rejection(tiny, tmp_path / "out", precision="int4")


def test_an_unknown_extra_graph_is_rejected(tiny: Path, tmp_path: Path) -> None:
    config = get_rejection(tiny, tmp_path / "out", precision="fp32", extra_graphs=("nothing",))
    assert "no optional graph 'nothing'" in config
    assert "vae_encoder" in config


def test_an_encoder_that_quantization_removed_is_rejected(tiny: Path, tmp_path: Path) -> None:
    from helpers.tiny import edit_weights

    shutil.copytree(tiny, tmp_path / "model")
    with edit_weights(tmp_path / "model" / "vae") as tensors:
        for name in [name for name in tensors if name.startswith("encoder.")]:
            del tensors[name]
    config = get_rejection(tmp_path / "model", tmp_path / "out", precision="fp32", extra_graphs=("vae_encoder",))
    assert "The encoder was removed from" in config


@pytest.mark.slow
def test_an_output_inside_the_model_is_rejected(tiny: Path, quantized: Path) -> None:
    """Also inside the model of an artifact, which would no longer match its manifest."""
    assert "inside the model folder" in get_rejection(tiny, tiny / "onnx", precision="fp32")
    for source in (quantized, quantized / "model"):
        assert "inside the model folder" in get_rejection(source, quantized / "model" / "out", precision="fp32")


@pytest.mark.parametrize("shapes", ["dynamic", "fixed"])
def test_more_tokens_than_the_pipeline_reads_are_rejected(shapes: str, tiny: Path, tmp_path: Path) -> None:
    config = get_rejection(tiny, tmp_path / "out", precision="fp32", shapes=shapes, max_prompt_tokens=513)
    assert "max_prompt_tokens = 513: the pipeline reads at most 512 tokens" in config
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_qdq_without_a_symmetric_solution_is_rejected(quantized: Path, tmp_path: Path) -> None:
    shutil.copytree(quantized, tmp_path / "artifact")
    shutil.rmtree(tmp_path / "artifact" / "model" / "solutions")
    manifest = tmp_path / "artifact" / "manifest.json"
    content = json.loads(manifest.read_text("utf-8"))
    content["files"] = [file for file in content["files"] if not file["path"].startswith("solutions/")]
    manifest.write_text(json.dumps(content), "utf-8")
    write_checksum_of(manifest)
    assert "has zero points" in get_rejection(tmp_path / "artifact", tmp_path / "out", format="qdq")


@pytest.mark.slow
def test_changed_weights_are_rejected_and_the_previous_export_is_kept(quantized: Path, tmp_path: Path) -> None:
    from helpers.tiny import edit_weights

    folder = tmp_path / "artifact"
    shutil.copytree(quantized, folder)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "old").touch()
    (folder / "onnx" / "pipeline.json").write_text('{"schema_version": 1, "family": "f", "graphs": {}, "host": {}}')
    with edit_weights(folder / "model" / "transformer") as tensors:
        tensors["x_pad_token"] += 1
    with pytest.raises(UserError, match="was changed since it was quantized"):
        export_onnx(folder, folder, ExportSettings(), verify=False)
    assert (folder / "onnx" / "old").exists()


@pytest.mark.slow
def test_an_export_that_deviates_from_torch_is_not_published(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "fp32", Tolerance(0.0, 200.0))
    message = r"Graph .* deviates from torch by .*, so nothing was published"
    with without_tile_graphs(), pytest.raises(UserError, match=message):
        export_onnx(tiny, tmp_path, ExportSettings(precision="fp32"))
    assert not (tmp_path / "onnx").exists()
    assert list_work_folders(tmp_path) == []
