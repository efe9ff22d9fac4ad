"""Whole pictures: the host with torch's components, and exported graphs, both held against the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from helpers.torch_graphs import configs, psnr, torch_run, torchs_picture, write_unrunnable

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import load_pipeline
from edgepress.runtime import pipeline
from edgepress.runtime.pipeline import GenerationRequest, ImagePipeline

SIZES = [(128, 128), (96, 208), (208, 96), (80, 112), (256, 256)]  # 64, 78, 78, 35 and 256 tokens
PROMPT = 'a plain white wall, large red letters, top: "WARM"'
REFUSE_TORCH = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "diffusers", "transformers", "safetensors", "onnx", "onnxscript"}:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refusing())
from edgepress.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_pipeline(DEMO_PIPELINE, torch.float32)


@pytest.fixture
def hosted(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImagePipeline:
    """A painter of the tiny pipeline whose graphs are torch's components."""
    run = torch_run(load_pipeline(tiny, torch.float32))
    monkeypatch.setattr(pipeline, "Sessions", lambda *_: run)
    write_unrunnable(tiny, tmp_path / "artifact")
    return ImagePipeline(tmp_path / "artifact")


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (80, 48)])
@pytest.mark.parametrize("length", [0, 30, 300])
def test_with_torchs_components_it_is_the_pipelines_picture(
    hosted: ImagePipeline, tiny: Path, size: tuple[int, int], length: int
) -> None:
    wish = GenerationRequest("a" * length, seed=2**40 + 3, steps=3, size=size)
    assert psnr(torchs_picture(load_pipeline(tiny, torch.float32), wish), hosted.generate(wish)) > 60


def test_the_size_left_out_is_the_pipelines_own(hosted: ImagePipeline) -> None:
    assert hosted.generate(GenerationRequest("a", steps=1)).size == (64, 64)


def test_every_step_is_reported(hosted: ImagePipeline) -> None:
    said: list[tuple[str, int, int]] = []
    hosted.generate(GenerationRequest("a", steps=3), lambda *state: said.append(state))
    assert [state for state in said if state[0] == "painting"] == [("painting", done, 3) for done in range(4)]


def test_a_prompt_too_long_is_cut_and_told_and_painted_all_the_same(hosted: ImagePipeline, tiny: Path) -> None:
    told: list[str] = []
    wish = GenerationRequest("b" * 600, steps=1)
    found = hosted.generate(wish, warn=told.append)
    assert psnr(torchs_picture(load_pipeline(tiny, torch.float32), wish), found) > 60
    (sentence,) = told
    assert "of which 512 are read" in sentence


@pytest.mark.parametrize("tile", [62, 129, 0, -128])
def test_a_tile_that_cannot_be_is_refused(hosted: ImagePipeline, tile: int) -> None:
    with pytest.raises(UserError, match=f"Tiles of {tile} pixels cannot be"):
        hosted.generate(GenerationRequest("a", tile_size=tile))


# ---------------------------------------------------------------- what pipeline.json may lack


def changed(artifact: Path, **keys: Any) -> Path:
    file = artifact / "onnx" / "pipeline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return artifact


def test_an_artifact_that_was_not_exported_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no onnx/pipeline\.json; 'edgepress export onnx' makes it"):
        ImagePipeline(tmp_path)
    with pytest.raises(UserError, match="There is no artifact folder"):
        ImagePipeline(tmp_path / "nowhere")


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_is_refused(tiny: Path, tmp_path: Path, version: Any) -> None:
    write_unrunnable(tiny, tmp_path / "artifact")
    with pytest.raises(UserError, match=f"of schema {version}, and this edgepress reads 1"):
        ImagePipeline(changed(tmp_path / "artifact", schema_version=version))


def test_a_missing_graph_is_named(tiny: Path, tmp_path: Path) -> None:
    write_unrunnable(tiny, tmp_path / "artifact")
    (tmp_path / "artifact" / "onnx" / "caption.onnx").unlink()
    with pytest.raises(UserError, match=r"caption\.onnx is missing"):
        ImagePipeline(tmp_path / "artifact")


def test_a_damaged_pipeline_json_is_named(tiny: Path, tmp_path: Path) -> None:
    write_unrunnable(tiny, tmp_path / "artifact")
    (tmp_path / "artifact" / "onnx" / "pipeline.json").write_text("{")
    with pytest.raises(UserError, match=r"pipeline\.json is damaged"):
        ImagePipeline(tmp_path / "artifact")


@pytest.mark.parametrize("graphs", [[], {"caption": 1}, {"caption": {"file": 1}}, {"caption": {"buckets": [1]}}])
def test_graphs_that_no_version_wrote_are_damage(tiny: Path, tmp_path: Path, graphs: Any) -> None:
    write_unrunnable(tiny, tmp_path / "artifact")
    with pytest.raises(UserError, match=r"pipeline\.json is damaged"):
        ImagePipeline(changed(tmp_path / "artifact", graphs=graphs))


@pytest.mark.parametrize("host", [{}, [], {"scheduler": {}}, {"transformer": {}, "vae": {}, "scheduler": {}}])
def test_a_host_that_no_version_wrote_is_damage(tiny: Path, tmp_path: Path, host: Any) -> None:
    write_unrunnable(tiny, tmp_path / "artifact")
    with pytest.raises(UserError, match=r"pipeline\.json is damaged .* export the artifact again"):
        ImagePipeline(changed(tmp_path / "artifact", host=host))


@pytest.mark.parametrize("lacking", ["scheduler", "transformer.in_channels", "vae.sample_size", "vae.scaling_factor"])
def test_what_a_host_must_know_is_asked_before_painting(tiny: Path, tmp_path: Path, lacking: str) -> None:
    write_unrunnable(tiny, tmp_path / "artifact")
    host = configs(tiny)
    part, _, key = lacking.partition(".")
    (host[part] if key else host).pop(key or part)
    with pytest.raises(UserError, match=r"pipeline\.json is damaged"):
        ImagePipeline(changed(tmp_path / "artifact", host=host)).resolve_size()


# ---------------------------------------------------------------- exported graphs


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_exported_graphs_paint_torchs_picture(exported: Path, demo: Any, size: tuple[int, int]) -> None:
    wish = GenerationRequest(PROMPT, seed=2**33 + 5, size=size)
    assert psnr(torchs_picture(demo, wish), ImagePipeline(exported, keep_loaded=False).generate(wish)) > 45


@pytest.mark.slow
def test_it_paints_where_there_is_no_torch(exported: Path, demo: Any, tmp_path: Path) -> None:
    """The command line with every heavy library refused."""
    arguments = ["generate", exported, "--prompt", PROMPT, "--seed", "7", "--size", "96x128", "-o", tmp_path / "a.png"]
    done = subprocess.run([sys.executable, "-c", REFUSE_TORCH, *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with PIL.Image.open(tmp_path / "a.png") as found:
        assert psnr(torchs_picture(demo, GenerationRequest(PROMPT, seed=7, size=(96, 128))), found) > 45
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_importing_the_runtime_leaves_torch_alone() -> None:
    script = (
        "import sys; import edgepress.runtime, edgepress.cli.generate, edgepress.runtime.pipeline\n"
        "from edgepress.models.registry import families; families()\n"
        "sys.exit(9 if {'torch', 'diffusers', 'transformers', 'safetensors'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
