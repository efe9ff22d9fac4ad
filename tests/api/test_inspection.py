"""`edgepress.info`: what folders are, from headers; against safetensors' own count, and without torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.published_artifact import write_gguf_export, write_published_artifact
from helpers.tiny_families import SDXL, write_tiny_family
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import edgepress
from edgepress.api.folder_info import ArtifactInfo, ExportInfo, PipelineInfo
from edgepress.api.inspection import to_dict
from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 123\n"


def count_with_safetensors(folder: Path) -> tuple[int, int]:
    """Elements and bytes of the tensors in a folder, as the safetensors library reads them."""
    elements = size = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
                part = tensors.get_slice(name)
                count = 1
                for side in part.get_shape():
                    count *= side
                elements += count
                size += count * {"BF16": 2, "F16": 2, "F32": 4, "I32": 4}[part.get_dtype()]
    return elements, size


@pytest.mark.parametrize("name", ["gguf", "diffusers", "comfyui", "compressed-tensors"])
def test_weights_for_other_programs_are_listed_with_the_exports(tmp_path: Path, name: str) -> None:
    artifact = write_published_artifact(tmp_path / "artifact").path
    write_gguf_export(artifact / name)
    info = edgepress.info(artifact)
    assert isinstance(info, ArtifactInfo)
    assert [export.folder.name for export in info.exports] == ["onnx", name]
    assert f"Export {artifact / name}: ZImagePipeline, {name}: 3 Q4_1, 2 F32, 0.0 MB" in str(info)
    assert "  components: transformer\n  quantized weights within 0.5 steps of model/" in str(info)


def test_a_pipeline_is_described_component_by_component() -> None:
    info = edgepress.info(DEMO_PIPELINE)
    assert isinstance(info, PipelineInfo)
    assert info.pipeline_class == json.loads((DEMO_PIPELINE / "model_index.json").read_text("utf-8"))["_class_name"]
    for component in info.components:
        assert (component.parameters, component.nbytes) == count_with_safetensors(DEMO_PIPELINE / component.name)
    assert info.supported == ("quantize", "export onnx", "export rknn", "generate")
    assert "edgepress can: quantize, export onnx, export rknn, generate" in str(info)


def test_four_bit_codes_are_counted_as_weights(lean: Path, quantized: Path) -> None:
    info = edgepress.info(quantized / "model")
    assert isinstance(info, PipelineInfo)
    assert "quantize" not in info.supported
    component = next(part for part in info.components if part.name == "transformer")
    original = count_with_safetensors(lean / "transformer")[0]
    assert component.parameters == original  # the denoiser loses no weight by quantization
    assert component.bits_per_weight == pytest.approx(component.nbytes * 8 / original)
    assert component.quantization == "awq, 4 bits, groups of 128"
    assert sum(component.dtypes.values()) == pytest.approx(1)


def test_an_artifact_and_its_exports_are_described(quantized: Path, exported: Path) -> None:
    info = edgepress.info(quantized)
    assert isinstance(info, ArtifactInfo)
    assert info.method == "rtn"
    assert "Evaluation: none yet" in str(info)
    graphs = edgepress.info(exported / "onnx")
    assert isinstance(graphs, ExportInfo)
    assert graphs.summary.startswith("ONNX fp32")
    assert graphs.nbytes == sum(path.stat().st_size for path in (exported / "onnx").rglob("*") if path.is_file())
    assert to_dict(edgepress.info(exported))["exports"][0]["graphs"] == list(graphs.graphs)


@pytest.mark.slow
def test_no_weights_and_no_torch_are_read(tmp_path: Path) -> None:
    """Every tensor is replaced by zeros after its header, and torch may not be imported."""
    folder = tmp_path / "headers"
    shutil.copytree(DEMO_PIPELINE, folder)
    for file in folder.rglob("*.safetensors"):
        file_size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.truncate(8 + int.from_bytes(stream.read(8), "little"))
            stream.truncate(file_size)
    code = f"import sys, edgepress; print(edgepress.info({str(folder)!r})); sys.exit('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "15,540,032" in shown.stdout


def test_names_in_configs_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "A\n\x1b[2J", "vae": ["diffusers", "B\n\x1b[2J"]}), "utf-8"
    )
    text = str(edgepress.info(tmp_path))
    assert r"A\n\x1b[2J" in text
    assert r"B\n\x1b[2J" in text
    assert "\x1b" not in text


def test_what_is_neither_is_said(tmp_path: Path) -> None:
    with pytest.raises(edgepress.UserError, match=r"nowhere does not exist\. Give the top folder of"):
        edgepress.info(tmp_path / "nowhere")
    with pytest.raises(edgepress.UserError, match=r"is an empty folder\. Give the top folder of a diffusers"):
        edgepress.info(tmp_path)


def remove(name: str) -> Callable[[Path], None]:
    return lambda pipeline: shutil.rmtree(pipeline / name) if (pipeline / name).is_dir() else (pipeline / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def write_text(pipeline: Path) -> None:
        (pipeline / name).write_text(text)

    return write_text


def add_scales(pipeline: Path) -> None:
    file = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"layers.0.attention.to_q.weight_scale": torch.ones(1)}, file)


def quantize_with_another_tool(pipeline: Path) -> None:
    file = pipeline / "text_encoder" / "config.json"
    content = {"quantization_config": {"quant_method": "bitsandbytes"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (remove("transformer"), "There is no folder .*transformer"),
        (remove("transformer/diffusion_pytorch_model.safetensors"), r"transformer has no \.safetensors file"),
        (remove("text_encoder/config.json"), r"text_encoder/config\.json is missing"),
        (remove("tokenizer/tokenizer.json"), "tokenizer has no vocabulary"),
        (write("tokenizer/tokenizer.json", "[]"), r"tokenizer/tokenizer\.json is no JSON object\. Download"),
        (write("tokenizer/added_tokens.json", "7"), r"tokenizer/added_tokens\.json is no JSON object\. Download"),
        (write("tokenizer/tokenizer.json", LFS_POINTER), r"tokenizer\.json is a git-lfs pointer"),
        (write("scheduler/scheduler_config.json", "{"), r"scheduler_config\.json cannot be read"),
        (add_scales, "quantized weights with scales"),
        (quantize_with_another_tool, r"already quantized \(bitsandbytes\)"),
    ],
)
def test_what_the_commands_would_refuse_is_said(tmp_path: Path, damage: Callable[[Path], None], problem: str) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(DEMO_PIPELINE, folder)
    damage(folder)
    info = edgepress.info(folder)
    assert isinstance(info, PipelineInfo)
    assert info.supported == ()
    assert re.search(problem, info.problem)
    assert f"edgepress can: nothing. {info.problem}" in str(info)
    assert to_dict(info)["problem"] == info.problem


@pytest.mark.parametrize(
    "damage", [write("transformer/config.json", "{"), write("model_index.json", LFS_POINTER)], ids=["config", "index"]
)
def test_what_cannot_be_described_is_an_error(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(DEMO_PIPELINE, folder)
    damage(folder)
    with pytest.raises(edgepress.UserError, match=r"cannot be read|git-lfs pointer"):
        edgepress.info(folder)


def test_the_demo_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As all commands with a model know it, unless a folder has that name."""
    monkeypatch.chdir(tmp_path)
    assert edgepress.info("demo") == edgepress.info(DEMO_PIPELINE)
    (tmp_path / "demo").mkdir()
    with pytest.raises(edgepress.UserError, match="demo"):
        edgepress.info("demo")


def test_a_corrupt_header_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "corrupt"
    shutil.copytree(DEMO_PIPELINE, folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(
        edgepress.UserError, match=r"diffusion_pytorch_model.safetensors is a git-lfs pointer.*git lfs pull"
    ):
        edgepress.info(folder)


@pytest.fixture(scope="module")
def quantized(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspection") / "artifact"
    recipe = edgepress.load_recipe("orin")
    small = recipe.model_copy(update={"calibration": recipe.calibration.model_copy(update={"count": 1, "steps": 1})})
    edgepress.quantize(small, model=lean, method="rtn", output=folder)
    return folder


@pytest.mark.parametrize("settings", [{"bits": 8}, {"version": "gemv"}, {"group_size": 32}])
def test_a_model_whose_config_describes_other_codes_can_nothing(
    settings: dict[str, Any], quantized: Path, tmp_path: Path
) -> None:
    """Neither does a plan say that it fits."""
    model = Path(shutil.copytree(quantized / "model", tmp_path / "pipeline"))
    file = model / "transformer" / "config.json"
    config = json.loads(file.read_text("utf-8"))
    config["quantization_config"] |= settings
    file.write_text(json.dumps(config), "utf-8")
    info = edgepress.info(model)
    assert isinstance(info, PipelineInfo)
    assert info.supported == ()
    assert info.problem.startswith(f"{file} has a quantization_config that does not describe its weights: ")
    with pytest.raises(UserError, match="quantization_config that does not describe its weights"):
        edgepress.plan("x86", model=model)


def test_a_pipeline_says_what_would_be_quantized_and_why_the_rest_is_not() -> None:
    info = edgepress.info(DEMO_PIPELINE, layers=True)
    assert isinstance(info, PipelineInfo)
    assert [selection.component for selection in info.layers] == ["text_encoder", "transformer"]
    denoiser = info.layers[1]
    assert "layers.0.attention.to_out.0" in denoiser.quantized
    assert "layers.0.adaLN_modulation.0" in denoiser.kept_layers["part of a norm or of the modulation"]
    assert 0.5 < denoiser.quantized_share < 1
    assert f"transformer: {len(denoiser.quantized)} of " in str(info)
    assert f"{len(denoiser.kept_layers['outside the repeated blocks'])} (outside the repeated blocks)" in str(info)
    lines = info.list_layers().splitlines()
    assert "transformer.layers.0.attention.to_out.0: 4 bits" in lines
    assert "transformer.layers.0.adaLN_modulation.0: kept, part of a norm or of the modulation" in lines
    linears = sum(len(s.quantized) + sum(map(len, s.kept_layers.values())) for s in info.layers)
    assert len(lines) == linears
    content = to_dict(info)
    assert content["layers"][1]["quantized"] == list(denoiser.quantized)


def test_every_line_about_layers_is_a_line_of_its_own(tmp_path: Path) -> None:
    write_tiny_family(SDXL, tmp_path / "sdxl")
    lines = str(edgepress.info(tmp_path / "sdxl", layers=True)).splitlines()
    unet = next(number for number, line in enumerate(lines) if line.startswith("  unet: "))
    assert lines[unet].endswith(" (embeds timesteps, positions or conditions)")
    line = r"    and \d+ convolutions in 8 bits, if the recipe .*'; kept: 2 \(outside the repeated blocks\)"
    assert re.fullmatch(line, lines[unet + 1])
    listed = edgepress.info(tmp_path / "sdxl", layers=True).list_layers().splitlines()
    assert "unet.conv_in: kept, outside the repeated blocks" in listed


def test_a_pipeline_that_cannot_be_quantized_says_why(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DreamPipeline"}))
    info = edgepress.info(tmp_path, layers=True)
    assert isinstance(info, PipelineInfo)
    assert info.supported == ()
    assert "edgepress can: nothing. " in str(info)
    assert "'DreamPipeline', which diffusers" in str(info)
