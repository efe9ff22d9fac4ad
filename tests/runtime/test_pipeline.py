"""Whole images: the host with components in torch, and exported graphs, against the pipeline of diffusers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from helpers.small_artifact import write_small_artifact
from helpers.torch_graphs import generate_with_torch, make_torch_runner, psnr, read_host_configs, write_stub_artifact

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import load_pipeline
from edgepress.runtime import pipeline
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.pipeline import ImagePipeline

SIZES = [(128, 128), (96, 208), (208, 96), (80, 112), (256, 256)]  # 64, 78, 78, 35 and 256 tokens
PROMPT = 'a plain white wall, large red letters, top: "WARM"'
WITHOUT_TORCH = """
import sys

class ImportBlocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "diffusers", "transformers", "safetensors", "onnx", "onnxscript"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, ImportBlocker())
from edgepress.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_pipeline(DEMO_PIPELINE, torch.float32)


@pytest.fixture
def image_pipeline(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImagePipeline:
    """The tiny pipeline; its graphs are the components in torch."""
    run = make_torch_runner(load_pipeline(tiny, torch.float32))
    monkeypatch.setattr(pipeline, "SessionPool", lambda *_: run)
    write_stub_artifact(tiny, tmp_path / "artifact")
    return ImagePipeline(tmp_path / "artifact")


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (80, 48)])
@pytest.mark.parametrize("length", [0, 30, 300])
def test_image_equals_that_of_diffusers(
    image_pipeline: ImagePipeline, tiny: Path, size: tuple[int, int], length: int
) -> None:
    request = GenerationRequest("a" * length, seed=2**40 + 3, steps=3, size=size)
    expected = generate_with_torch(load_pipeline(tiny, torch.float32), request)
    assert psnr(expected, image_pipeline.generate(request)) > 60


def test_guidance_equals_that_of_diffusers(image_pipeline: ImagePipeline, tiny: Path) -> None:
    request = GenerationRequest("a cat", seed=1, steps=3, size=(32, 48), guidance=2.5, negative_prompt="rain, " * 12)
    guided = image_pipeline.generate(request)
    assert psnr(generate_with_torch(load_pipeline(tiny, torch.float32), request), guided) > 60
    assert psnr(image_pipeline.generate(GenerationRequest("a cat", seed=1, steps=3, size=(32, 48))), guided) < 40


@pytest.mark.parametrize("strength", [0.05, 0.6, 1])
@pytest.mark.parametrize("size", [(32, 48), (70, 45)])  # the second one is lowered to 64 x 32
def test_an_image_to_start_from_gives_that_of_diffusers(
    image_pipeline: ImagePipeline, tiny: Path, strength: float, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    request = GenerationRequest("a cat", 3, steps=5, image=PIL.Image.fromarray(pixels), strength=strength)
    generated = image_pipeline.generate(request)
    assert psnr(generate_with_torch(load_pipeline(tiny, torch.float32), request), generated) > 60
    assert psnr(image_pipeline.generate(replace(request, image=None, size=generated.size[::-1])), generated) < 40


def test_an_image_to_start_from_is_scaled_to_the_size(image_pipeline: ImagePipeline) -> None:
    image = PIL.Image.new("RGB", (200, 100), "red")
    assert image_pipeline.generate(GenerationRequest("a", steps=2, size=(48, 64), image=image)).size == (64, 48)
    with pytest.raises(UserError, match=r"15 pixels wide and 100 high, smaller than the 16 pixels of a patch"):
        image_pipeline.generate(GenerationRequest("a", image=PIL.Image.new("RGB", (15, 100))))
    with pytest.raises(UserError, match=r"Invalid strength 0: it must be a number above 0, up to 1\."):
        image_pipeline.generate(GenerationRequest("a", image=image, strength=0))


def test_a_step_cache_counts_the_steps_that_an_image_leaves(image_pipeline: ImagePipeline) -> None:
    """Of 8 steps diffusers does 3 at a strength of 0.3, and 4 at 0.5."""
    image = PIL.Image.new("RGB", (64, 64), "red")
    request = GenerationRequest("a", steps=8, image=image, strength=0.5, step_cache=0.1)
    image_pipeline.check_request(request)
    with pytest.raises(UserError, match=r"The step cache has no effect: .* computed, and there are 3 in all"):
        image_pipeline.check_request(replace(request, strength=0.3))
    image_pipeline.check_request(replace(request, strength=0.3, step_cache=0.0))


def test_an_artifact_without_an_encoder_takes_no_image(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    write_small_artifact(tmp_path)
    with pytest.raises(UserError, match=r"no graph 'vae_encoder', which reads images\. .* --extra-graph vae_encoder"):
        ImagePipeline(tmp_path).check_request(GenerationRequest("a", image=PIL.Image.new("RGB", (64, 64))))


def test_a_negative_prompt_needs_guidance(image_pipeline: ImagePipeline) -> None:
    with pytest.raises(UserError, match="no effect without guidance"):
        image_pipeline.check_request(GenerationRequest("a cat", negative_prompt="rain"))


def test_default_size_is_native(image_pipeline: ImagePipeline) -> None:
    assert image_pipeline.generate(GenerationRequest("a", steps=1)).size == (64, 64)


def test_call_equals_generate(image_pipeline: ImagePipeline) -> None:
    image = image_pipeline("a cat", seed=3, steps=2, size=(32, 48))
    assert image == image_pipeline.generate(GenerationRequest("a cat", seed=3, steps=2, size=(32, 48)))
    assert image.size == (48, 32)


def test_call_with_a_list_counts_seeds_up(image_pipeline: ImagePipeline) -> None:
    images = image_pipeline(["a cat", "rain"], seed=3, steps=1, size=(32, 32))
    assert images == [
        image_pipeline("a cat", seed=3, steps=1, size=(32, 32)),
        image_pipeline("rain", seed=4, steps=1, size=(32, 32)),
    ]


def test_progress_reports_every_step(image_pipeline: ImagePipeline) -> None:
    reports: list[tuple[str, int, int]] = []
    image_pipeline.generate(GenerationRequest("a", steps=3), lambda *state: reports.append(state))
    assert [state for state in reports if state[0] == "denoising"] == [("denoising", done, 3) for done in range(4)]


def test_long_prompt_is_truncated_with_a_warning(image_pipeline: ImagePipeline, tiny: Path) -> None:
    warnings: list[str] = []
    request = GenerationRequest("b" * 600, steps=1)
    image = image_pipeline.generate(request, warn=warnings.append)
    assert psnr(generate_with_torch(load_pipeline(tiny, torch.float32), request), image) > 60
    (warning,) = warnings
    assert "the model reads the first 512" in warning


def test_truncation_is_logged_by_default(image_pipeline: ImagePipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        image_pipeline("b" * 600, steps=1)
    assert "the model reads the first 512" in caplog.text


@pytest.mark.parametrize(
    ("component", "value", "problem"),
    [
        ("text_encoder", float("nan"), "the output of text_encoder has NaN while encoding"),
        ("transformer", float("nan"), "the output of transformer has NaN while denoising"),
        ("vae", float("inf"), "the output of vae_decoder has infinite values while decoding"),
    ],
)
def test_outputs_that_are_not_finite_make_no_image(
    component: str, value: float, problem: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_pipeline(tiny, torch.float32)
    changed = {"text_encoder": "mlp", "transformer": "final_layer", "vae": "decoder.conv_out.bias"}[component]
    for name, parameter in loaded.components[component].named_parameters():
        if changed in name:
            parameter.data.fill_(value)
    monkeypatch.setattr(pipeline, "SessionPool", lambda *_: make_torch_runner(loaded))
    write_stub_artifact(tiny, tmp_path / "artifact")
    image_pipeline = ImagePipeline(tmp_path / "artifact")
    with pytest.raises(UserError, match=f"{problem}.*in another precision") as raised:
        image_pipeline("a", steps=1, size=(32, 32))
    assert str(tmp_path / "artifact" / "onnx") in str(raised.value)


@pytest.mark.parametrize("tile_size", [62, 129, 0, -128])
def test_invalid_tile_size(image_pipeline: ImagePipeline, tile_size: int) -> None:
    with pytest.raises(UserError, match=f"Invalid tile size {tile_size}: it must be even and at least 64"):
        image_pipeline.generate(GenerationRequest("a", tile_size=tile_size))


def test_tiles_without_their_graphs_are_refused_before_any_work(image_pipeline: ImagePipeline) -> None:
    reports: list[tuple[str, int, int]] = []
    with pytest.raises(UserError, match=r"has no graphs that decode in tiles, such as vae_\w+\. Give no tile size"):
        image_pipeline.generate(GenerationRequest("a", tile_size=64), lambda *state: reports.append(state))
    assert reports == []


# ---------------------------------------------------------------- corrupt exports


def change_config(artifact: Path, **keys: Any) -> Path:
    file = artifact / "onnx" / "pipeline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return artifact


def test_missing_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is an empty folder\. Give an artifact that 'edgepress export onnx'"):
        ImagePipeline(tmp_path)
    with pytest.raises(UserError, match=r"Artifact folder .*nowhere does not exist"):
        ImagePipeline(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_unsupported_schema_version(tiny: Path, tmp_path: Path, version: Any) -> None:
    write_stub_artifact(tiny, tmp_path / "artifact")
    with pytest.raises(UserError, match=f"has schema version {version}, but this edgepress reads version 1"):
        ImagePipeline(change_config(tmp_path / "artifact", schema_version=version))


def test_missing_graph_file(tiny: Path, tmp_path: Path) -> None:
    write_stub_artifact(tiny, tmp_path / "artifact")
    (tmp_path / "artifact" / "onnx" / "caption.onnx").unlink()
    with pytest.raises(UserError, match=r"caption\.onnx, named in pipeline\.json, is missing"):
        ImagePipeline(tmp_path / "artifact")


def test_invalid_json(tiny: Path, tmp_path: Path) -> None:
    write_stub_artifact(tiny, tmp_path / "artifact")
    (tmp_path / "artifact" / "onnx" / "pipeline.json").write_text("{")
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt"):
        ImagePipeline(tmp_path / "artifact")


@pytest.mark.parametrize("graphs", [[], {"caption": 1}, {"caption": {"file": 1}}, {"caption": {"buckets": [1]}}])
def test_invalid_graphs(tiny: Path, tmp_path: Path, graphs: Any) -> None:
    write_stub_artifact(tiny, tmp_path / "artifact")
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt"):
        ImagePipeline(change_config(tmp_path / "artifact", graphs=graphs))


@pytest.mark.parametrize("host", [{}, [], {"scheduler": {}}, {"transformer": {}, "vae": {}, "scheduler": {}}])
def test_invalid_host_configs(tiny: Path, tmp_path: Path, host: Any) -> None:
    write_stub_artifact(tiny, tmp_path / "artifact")
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt"):
        ImagePipeline(change_config(tmp_path / "artifact", host=host))


@pytest.mark.parametrize("key", ["scheduler", "transformer.in_channels", "vae.sample_size", "vae.scaling_factor"])
def test_missing_key_of_the_host_is_found_before_generation(tiny: Path, tmp_path: Path, key: str) -> None:
    write_stub_artifact(tiny, tmp_path / "artifact")
    host = read_host_configs(tiny)
    component, _, name = key.partition(".")
    (host[component] if name else host).pop(name or component)
    with pytest.raises(UserError, match=r"pipeline\.json is corrupt"):
        ImagePipeline(change_config(tmp_path / "artifact", host=host)).resolve_size()


# ---------------------------------------------------------------- exported graphs


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_exported_graphs_generate_the_image_of_diffusers(exported: Path, demo: Any, size: tuple[int, int]) -> None:
    request = GenerationRequest(PROMPT, seed=2**33 + 5, size=size)
    image = ImagePipeline(exported, keep_loaded=False).generate(request)
    assert psnr(generate_with_torch(demo, request), image) > 45


@pytest.mark.slow
def test_generation_without_torch(exported: Path, demo: Any, tmp_path: Path) -> None:
    """The command line, with all heavy libraries blocked."""
    arguments = ["generate", exported, "--prompt", PROMPT, "--seed", "7", "--size", "96x128", "-o", tmp_path / "a.png"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, check=False)
    assert process.returncode == 0, process.stderr.decode()
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert psnr(generate_with_torch(demo, GenerationRequest(PROMPT, seed=7, size=(96, 128))), image) > 45
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
def test_runtime_does_not_import_torch() -> None:
    script = (
        "import sys; import edgepress.runtime, edgepress.cli.generate, edgepress.runtime.pipeline\n"
        "from edgepress.models.registry import load_families; load_families()\n"
        "sys.exit(9 if {'torch', 'diffusers', 'transformers', 'safetensors'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
