"""Folders that other libraries quantized, with weights missing: those libraries would fill in random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.previous_artifact import extract_previous_artifact
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.diffusers.exporter import export_diffusers
from edgepress.models.registry import get_family
from edgepress.pipelines.component_weights import check_family_weights, check_pipeline_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline in auto-round's layout."""
    folder = extract_previous_artifact(tmp_path_factory.mktemp("packed"))
    export_diffusers(folder, folder)
    return folder / "diffusers"


def check_pipeline(folder: Path) -> None:
    check_pipeline_weights(folder)
    check_family_weights(folder, get_family("ZImagePipeline"))


@pytest.fixture
def edit(exported: Path) -> object:
    """Changes the names of a component's tensors until the test ends; None drops a tensor."""
    originals: dict[Path, bytes] = {}

    def apply(component: str, rename: Callable[[str], str | None]) -> Path:
        (file,) = (exported / component).glob("*.safetensors")
        originals[file] = file.read_bytes()
        tensors: dict[str, Tensor] = load_file(file)
        save_file({new: tensor for name, tensor in tensors.items() if (new := rename(name))}, file)
        return exported

    yield apply
    for file, content in originals.items():
        file.write_bytes(content)


def test_a_whole_folder_passes(exported: Path) -> None:
    check_pipeline(exported)


@pytest.mark.parametrize(
    ("component", "dropped", "named"),
    [
        ("transformer", "layers.0.attention.to_q.qweight", "layers.0.attention.to_q.qweight"),
        ("text_encoder", "layers.1.mlp.up_proj.scales", "layers.1.mlp.up_proj.scales"),
        ("transformer", "layers.0.attention.to_q.", "layers.0.attention.to_q.weight"),
        ("transformer", "x_pad_token", "x_pad_token"),
        ("transformer", "cap_embedder.1.bias", "cap_embedder.1.bias"),
        ("text_encoder", "norm.weight", "norm.weight"),
    ],
)
def test_a_missing_weight_is_named(edit: Callable[..., Path], component: str, dropped: str, named: str) -> None:
    folder = edit(component, lambda name: None if name.startswith(dropped) else name)
    with pytest.raises(UserError, match=rf"Weight '{named}', .* is missing from {folder / component}\. Download"):
        check_pipeline(folder)


def test_the_layout_of_compressed_tensors(edit: Callable[..., Path]) -> None:
    parts = {"qweight": "weight_packed", "scales": "weight_scale", "qzeros": "weight_zero_point"}

    def rename(name: str) -> str | None:
        layer, _, part = name.rpartition(".")
        return None if name == "layers.1.mlp.up_proj.scales" else f"{layer}.{parts.get(part, part)}"

    with pytest.raises(UserError, match=r"Weight 'layers\.1\.mlp\.up_proj\.weight_scale'"):
        check_pipeline(edit("text_encoder", rename))
