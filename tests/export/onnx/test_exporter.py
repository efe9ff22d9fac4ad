"""From a pipeline folder to a published export: what is there, how near to torch it is, and what is refused."""

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
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.onnx import exporter as module
from edgepress.export.onnx.exporter import ExportResult, export_onnx
from edgepress.export.verification.image_parity import compute_psnr
from edgepress.export.verification.parity import (
    INT8_TOLERANCE,
    OrtRunner,
    OutputError,
    Parity,
    Tolerance,
    compute_error,
    measure_errors,
    require_parity,
)
from edgepress.models.base.reference import GoldenIO
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.runtime.pipeline import GenerationRequest, ImagePipeline
from edgepress.storage import manifest

GRAPHS = ("text_encoder", "caption", "transformer", "vae_decoder")
SIDES = ("in.", "out.")
TILES = ("vae_begin", "vae_up_1", "vae_up_2", "vae_up_3")
RECIPE = {
    "device": "test",
    "quantize": {
        "method": "rtn",
        "scheme": {"group_size": 64},
        "also": {"qdq": {"group_size": 64, "zero_point": False}},
        "embeddings": "int8",
    },
    "calibration": {"count": 1, "steps": 1},
}


@pytest.fixture(scope="module")
def pressed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose pad tokens are large random vectors: they are attended to."""
    from helpers.tiny import edit_weights

    folder = tmp_path_factory.mktemp("pressed")
    shutil.copytree(tiny, folder / "pipeline")
    with edit_weights(folder / "pipeline" / "transformer") as tensors:
        for name in ("x_pad_token", "cap_pad_token"):
            tensors[name] = 3 * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1))
    quantize_pipeline(Recipe.model_validate(RECIPE), folder / "pipeline", folder / "artifact")
    return folder / "artifact"


def words(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "pipeline.json").read_text("utf-8")))


def stored_goldens(folder: Path) -> list[GoldenIO]:
    """What torch answers each graph, as it was published."""
    found = []
    for name in GRAPHS:
        with np.load(folder / "golden" / f"{name}.npz") as stored:
            sides = {side: {key[len(side) :]: stored[key] for key in stored if key.startswith(side)} for side in SIDES}
        found.append(GoldenIO(name, *sides.values()))
    return found


def leftovers(output: Path) -> list[str]:
    return sorted(path.name for path in (output / ".work").iterdir() if path.is_dir())


# ---------------------------------------------------------------- what is published


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """In float32, for a square picture and one whose token count is no multiple of 32."""
    sizes = [(64, 64), (64, 112)]
    return export_onnx(tiny, tmp_path_factory.mktemp("plain"), ExportSettings(precision="fp32"), sizes)


@pytest.mark.slow
def test_float32_is_torch_to_1e_4_and_the_picture_to_45_db(plain: ExportResult) -> None:
    found = plain.parity["exact"]
    assert set(found.graphs) == {*GRAPHS, "vae_decoder in tiles"}
    assert max(error.relative for error in found.graphs.values()) < 1e-4
    assert found.psnr is None or found.psnr > 45


@pytest.mark.slow
def test_what_is_published_is_all_that_a_device_needs(plain: ExportResult) -> None:
    names = {path.relative_to(plain.folder).as_posix() for path in plain.folder.rglob("*") if path.is_file()}
    weights = {f"{part}-00001-of-00001.safetensors" for part in ("text_encoder", "transformer", "vae")}
    tokenizer = {f"tokenizer/{name}" for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")}
    golden = {f"golden/{name}.npz" for name in GRAPHS}
    graphs = {f"{name}.onnx" for name in (*GRAPHS, *TILES)}
    assert names == {"pipeline.json", *graphs, *weights, *tokenizer, *golden}
    assert leftovers(plain.folder.parent) == []
    for name in GRAPHS:
        onnx.checker.check_model(plain.folder / f"{name}.onnx")


@pytest.mark.slow
def test_graphs_hold_no_weights_and_files_no_more_than_they_read(plain: ExportResult) -> None:
    read: dict[str, set[str]] = {}
    for name in (*GRAPHS, *TILES):
        graph = onnx.load(plain.folder / f"{name}.onnx", load_external_data=False).graph
        assert max((len(value.raw_data) for value in graph.initializer), default=0) <= 4096  # tables, no weights
        for value in graph.initializer:
            if value.external_data:
                read.setdefault(value.external_data[0].value, set()).add(value.name)
    for file, expected in read.items():
        with safe_open(plain.folder / file, "np") as stored:
            assert set(stored.keys()) == expected


@pytest.mark.slow
def test_pipeline_json_says_what_a_runtime_asks(plain: ExportResult, tiny: Path) -> None:
    said = words(plain.folder)
    assert (said["schema_version"], said["precision"], said["opset"]) == (1, "fp32", 23)
    assert said["family"] == json.loads((tiny / "model_index.json").read_text())["_class_name"]
    assert said["graphs"]["text_encoder"]["inputs"] == [{"name": "ids", "dtype": "int64", "shape": [1, "T"]}]
    assert said["graphs"]["caption"]["component"] == "transformer"
    assert said["host"]["vae"]["scaling_factor"] == 0.3611
    assert said["sizes"] == [[64, 64], [64, 112]]
    assert said["sources"] == [file.model_dump() for file in manifest.hash_files(tiny)]
    assert said["parity"]["exact"]["graphs"]["transformer"]["relative"] < 1e-4


@pytest.mark.slow
def test_golden_inputs_give_golden_outputs(plain: ExportResult) -> None:
    graphs = OrtRunner({name: plain.folder / f"{name}.onnx" for name in GRAPHS})
    for golden in stored_goldens(plain.folder):
        (expected,) = golden.outputs.values()
        assert compute_error(graphs(golden.graph, golden.inputs), expected).relative < 1e-4


@pytest.mark.slow
def test_graphs_of_fixed_shapes_are_there_for_every_size_and_prompt(tiny: Path, tmp_path: Path) -> None:
    settings = ExportSettings(precision="fp32", shapes="fixed", max_prompt_tokens=40, extra_graphs=("vae_encoder",))
    found = export_onnx(tiny, tmp_path, settings, [(64, 64), (32, 96)])
    assert max(error.relative for error in found.parity["exact"].graphs.values()) < 1e-4
    names = {file.stem for file in found.folder.glob("*.onnx")}
    assert names == {
        *(f"{name}{length}" for name in ("text_encoder-T", "caption-L") for length in (32, 64)),
        *(f"transformer-N32-L{length}" for length in (32, 64)),
        *("vae_decoder-h8-w8", "vae_decoder-h4-w12", "vae_encoder-H64-W64", "vae_encoder-H32-W96"),
    }
    for name in names:
        graph = onnx.load(found.folder / f"{name}.onnx", load_external_data=False).graph
        ports = [*graph.input, *graph.output]
        assert not [port.name for port in ports for axis in port.type.tensor_type.shape.dim if axis.dim_param]
    painter = ImagePipeline(tmp_path, keep_loaded=False)
    assert painter.generate(GenerationRequest("a cat", steps=1, size=(32, 96))).size == (96, 32)
    with pytest.raises(UserError, match="fixed shapes, for pictures of 64x64, 32x96; give one as --size"):
        painter.generate(GenerationRequest("a cat", steps=1, size=(96, 96)))
    told: list[str] = []
    painter.generate(GenerationRequest("a" * 60, steps=1), warn=told.append)
    assert "of which 40 are read" in told[0]


# ---------------------------------------------------------------- 4 bits


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["ort", "qdq"])
def test_int4_is_torch_with_the_same_codes(flavour: str, pressed: Path, tmp_path: Path) -> None:
    settings = ExportSettings.model_validate({"precision": "int4", "flavour": flavour})
    found = export_onnx(pressed, tmp_path, settings)
    assert max(error.relative for error in found.parity["exact"].graphs.values()) < 1e-4
    psnr = found.parity["exact"].psnr
    assert psnr is None or psnr > 38
    graph = onnx.load(found.folder / "transformer.onnx", load_external_data=False).graph
    operator = {"ort": "MatMulNBits", "qdq": "DequantizeLinear"}[flavour]
    assert sum(node.op_type == operator for node in graph.node) == 14  # seven in each of two blocks
    for component in ("transformer", "text_encoder"):
        held = pressed / "model" / ("." if flavour == "ort" else "solutions/qdq") / component
        assert_carried(tensors_in(held, "*"), tensors_in(found.folder, f"{component}-*"), flavour)


def tensors_in(folder: Path, stem: str) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob(f"{stem}.safetensors") for name, tensor in load_file(file).items()}


def assert_carried(held: dict[str, Tensor], published: dict[str, Tensor], flavour: str) -> None:
    """Codes, scales and zero points in the published files are those of the model's, to the bit."""
    linears = [name.removesuffix(".qzeros") for name in held if name.endswith(".qzeros")]
    read = [linear for linear in linears if f"{linear}.qweight" in published]
    assert len(read) > len(linears) // 2  # the text encoder's last layer is not read
    for linear in read:
        codes, zeros = (codes_in(held[f"{linear}.{kind}"]) for kind in ("qweight", "qzeros"))
        scales = held[f"{linear}.scales"].float()
        found = {kind: published.get(f"{linear}.{kind}") for kind in ("qweight", "scales", "zero_points")}
        assert found["qweight"] is not None
        assert found["scales"] is not None
        if flavour == "qdq":
            assert torch.equal(nibbles(found["qweight"]), codes - 8 & 15)
            assert torch.equal(found["scales"], scales)
            assert (zeros == 8).all()
            continue
        assert torch.equal(nibbles(found["qweight"]).flatten(1), codes.T)
        assert torch.equal(found["scales"], scales.T)
        assert found["zero_points"] is not None
        assert torch.equal(nibbles(found["zero_points"])[:, : len(zeros)], zeros.T)


def codes_in(words: Tensor) -> Tensor:
    """AutoAWQ's words (rows, columns / 8) as codes (rows, columns), each at the nibble that it has in its word."""
    return torch.stack([words >> 4 * nibble & 15 for nibble in (0, 4, 1, 5, 2, 6, 3, 7)], dim=-1).flatten(1)


def nibbles(values: Tensor) -> Tensor:
    """Bytes (..., n) as codes (..., 2 n), the low nibble first."""
    return torch.stack([values & 15, values >> 4], dim=-1).flatten(-2).int()


def values_of(file: Path, name: str, dtype: type) -> Any:
    """The values of a tensor in a safetensors file; what is done to them is done to the file."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        begin, end = json.loads(stream.read(length))[name]["data_offsets"]
    return np.memmap(file, dtype, "r+", 8 + length + begin, ((end - begin) // np.dtype(dtype).itemsize,))


@pytest.fixture(scope="module")
def level_4(pressed: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export_onnx(pressed, tmp_path_factory.mktemp("level-4"), ExportSettings(accuracy_level=4))


@pytest.mark.slow
def test_what_products_in_integers_cost_is_said_beside(level_4: ExportResult) -> None:
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
def test_what_integers_may_cost_is_less_than_one_linear_that_is_wrong(
    level_4: ExportResult, tmp_path: Path, graph: str, file: str, linear: str, kind: str
) -> None:
    """Its published scales four times what they were, or all bits of its codes turned."""
    shutil.copytree(level_4.folder, tmp_path / "onnx")
    require_parity(at_level_4(tmp_path / "onnx"), INT8_TOLERANCE)
    dtype = {"scales": np.float32, "qweight": np.uint8}[kind]
    values = values_of(tmp_path / "onnx" / f"{file}-00001-of-00001.safetensors", f"{linear}.{kind}", dtype)
    values[:] = values * 4 if kind == "scales" else ~values
    values.flush()
    with pytest.raises(UserError, match=f"The graph {graph} is off by .* nothing was published"):
        require_parity(at_level_4(tmp_path / "onnx"), INT8_TOLERANCE)


def at_level_4(folder: Path) -> Parity:
    """What published graphs answer to published inputs."""
    graphs = OrtRunner({name: folder / f"{name}.onnx" for name in GRAPHS}, accuracy_level=4)
    return Parity(measure_errors(stored_goldens(folder), graphs), None)


@pytest.mark.slow
def test_products_in_integers_that_are_not_the_products_at_all_are_not_published(
    pressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the graphs that are shipped have a mistake, not those that parity writes beside them."""
    rightly = module.set_accuracy_level

    def wrongly(model: ir.Model, level: int) -> None:
        rightly(model, level)
        for node in model.graph if level else ():
            if node.op_type == "MatMulNBits":
                node.replace_input_with(3, None)  # the zero points

    monkeypatch.setattr(module, "set_accuracy_level", wrongly)
    with pytest.raises(UserError, match=r"The graph \w+ is off by .* nothing was published"):
        export_onnx(pressed, tmp_path, ExportSettings(accuracy_level=4))
    assert not (tmp_path / "onnx").exists()


@pytest.mark.slow
def test_no_script_is_there_for_blocks_that_tensorrt_does_not_read(tiny: Path, tmp_path: Path) -> None:
    scheme = {"group_size": 32, "zero_point": False}
    recipe = Recipe.model_validate(RECIPE | {"quantize": {"method": "rtn", "scheme": scheme}})
    quantize_pipeline(recipe, tiny, tmp_path)
    found = export_onnx(tmp_path, tmp_path, ExportSettings(format="qdq"), verify=False)
    assert not (found.folder / "build_engines.sh").exists()
    assert "blocks of 64 or 128 and these have 32" in found.tensorrt_unsupported_reason


@pytest.mark.slow
def test_the_boards_script_builds_the_published_graphs_by_their_own_inputs(pressed: Path, tmp_path: Path) -> None:
    settings = ExportSettings.model_validate({"precision": "int4", "flavour": "qdq", "opset": 21})
    folder = export_onnx(pressed, tmp_path, settings, [(64, 64), (128, 192)], verify=False).folder
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
def test_a_pressed_pipeline_is_dequantized_for_float32(pressed: Path, tmp_path: Path) -> None:
    found = export_onnx(pressed, tmp_path, ExportSettings(precision="fp32"))
    assert max(error.relative for error in found.parity["exact"].graphs.values()) < 1e-4


# ---------------------------------------------------------------- what is refused


def refusal(source: Path, output: Path, sizes: list[tuple[int, int]] | None = None, **settings: Any) -> str:
    with pytest.raises(UserError) as refused:
        export_onnx(source, output, ExportSettings.model_validate(settings), sizes or [], verify=False)
    assert not (output / "onnx").exists()
    return str(refused.value)


def test_a_size_that_cannot_be_painted_is_refused_before_anything_is_written(tiny: Path, tmp_path: Path) -> None:
    assert "multiples of 16" in refusal(tiny, tmp_path / "out", [(64, 72)], precision="fp32")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("opset", "flavour"), [(11, "ort"), (99, "ort"), (20, "qdq")])
def test_an_opset_that_cannot_be_written_is_refused(opset: int, flavour: str, tiny: Path, tmp_path: Path) -> None:
    assert f"Opset {opset} cannot be exported" in refusal(tiny, tmp_path / "out", opset=opset, flavour=flavour)


def test_int4_of_a_pipeline_that_was_not_pressed_is_refused(tiny: Path, tmp_path: Path) -> None:
    assert "no 4-bit weights" in refusal(tiny, tmp_path / "out", precision="int4")


def test_a_further_graph_that_there_is_none_of_is_refused(tiny: Path, tmp_path: Path) -> None:
    said = refusal(tiny, tmp_path / "out", precision="fp32", graphs=("nothing",))
    assert "no further graph 'nothing'" in said
    assert "vae_encoder" in said


def test_an_encoder_that_pressing_dropped_is_refused(tiny: Path, tmp_path: Path) -> None:
    from helpers.tiny import edit_weights

    shutil.copytree(tiny, tmp_path / "model")
    with edit_weights(tmp_path / "model" / "vae") as tensors:
        for name in [name for name in tensors if name.startswith("encoder.")]:
            del tensors[name]
    said = refusal(tmp_path / "model", tmp_path / "out", precision="fp32", graphs=("vae_encoder",))
    assert "has lost its encoder" in said


@pytest.mark.slow
def test_an_output_inside_the_model_is_refused(tiny: Path, pressed: Path) -> None:
    """Also where the model is an artifact's, which would no longer be what its manifest says."""
    assert "inside the model folder" in refusal(tiny, tiny / "onnx", precision="fp32")
    for source in (pressed, pressed / "model"):
        assert "inside the model folder" in refusal(source, pressed / "model" / "out", precision="fp32")


@pytest.mark.parametrize("shapes", ["dynamic", "fixed"])
def test_more_tokens_than_the_pipeline_reads_are_refused(shapes: str, tiny: Path, tmp_path: Path) -> None:
    said = refusal(tiny, tmp_path / "out", precision="fp32", shapes=shapes, tokens=513)
    assert "reads 512 tokens of a prompt at most, and export.tokens asks for 513" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_qdq_without_a_symmetric_solution_is_refused(pressed: Path, tmp_path: Path) -> None:
    shutil.copytree(pressed, tmp_path / "artifact")
    shutil.rmtree(tmp_path / "artifact" / "model" / "solutions")
    assert "has zero points" in refusal(tmp_path / "artifact", tmp_path / "out", flavour="qdq")


@pytest.mark.slow
def test_weights_that_changed_since_are_refused_and_the_export_that_was_there_stays(
    pressed: Path, tmp_path: Path
) -> None:
    from helpers.tiny import edit_weights

    folder = tmp_path / "artifact"
    shutil.copytree(pressed, folder)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "old").touch()
    with edit_weights(folder / "model" / "transformer") as tensors:
        tensors["x_pad_token"] += 1
    with pytest.raises(UserError, match="was changed since it was quantized"):
        export_onnx(folder, folder, ExportSettings(), verify=False)
    assert (folder / "onnx" / "old").exists()


@pytest.mark.slow
def test_an_export_that_is_too_far_from_torch_is_not_published(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.TOLERANCES, "fp32", Tolerance(0.0, 200.0))
    with pytest.raises(UserError, match=r"The graph .* is off by .*; nothing was published"):
        export_onnx(tiny, tmp_path, ExportSettings(precision="fp32"))
    assert not (tmp_path / "onnx").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("relative", "psnr"), [(float("nan"), 60.0), (2e-4, 60.0), (1e-6, 40.0), (1e-6, float("nan"))])
def test_what_is_too_far_is_refused(relative: float, psnr: float) -> None:
    with pytest.raises(UserError, match="nothing was published"):
        require_parity(Parity({"a": OutputError(1.0, relative)}, psnr), Tolerance(1e-4, 45.0))


def test_a_picture_of_noise_is_refused_of_integers_too() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for value in (0, 128, 255):
        found = compute_psnr(np.full_like(noise, value), noise)
        with pytest.raises(UserError, match=r"dB from torch's, where 15 dB is the least; nothing was published"):
            require_parity(Parity({}, found), INT8_TOLERANCE)


def test_pictures_that_are_equal_are_near_enough() -> None:
    require_parity(Parity({"a": OutputError(0.0, 0.0)}, None), Tolerance(1e-4, 45.0))
