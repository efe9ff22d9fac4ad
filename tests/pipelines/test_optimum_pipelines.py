from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.candidates import detect_image_source
from edgepress.pipelines.optimum_pipelines import find_optimum_format, require_optimum, sum_graph_bytes


def write_folder(folder: Path, graph: str) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "P", "unet": ["diffusers", "U"]}')
    (folder / "unet" / graph).write_bytes(b"12345")
    (folder / "unet" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("graph", "distribution", "module"),
    [
        ("model.onnx", "optimum-onnx", "optimum/onnxruntime"),
        ("openvino_model.xml", "optimum-intel", "optimum/intel"),
    ],
)
def test_a_missing_package_is_named(graph: str, distribution: str, module: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, graph)
    assert detect_image_source(folder).kind == "optimum"
    assert sum_graph_bytes(folder) == 5
    spec = find_spec("optimum")
    places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    if any((place.parent / module).exists() for place in places):
        pytest.skip(f"{distribution} is installed")
    with pytest.raises(UserError, match=rf"holds graphs of {distribution}, .*Run: pip install {distribution}"):
        require_optimum(folder)


def test_weights_are_no_graphs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", "diffusion_pytorch_model.safetensors")
    assert (find_optimum_format(folder), detect_image_source(folder).kind) == (None, "diffusers")
    assert find_optimum_format(tmp_path) is None
