"""Exports in the packages that they are for: auto-round, compressed-tensors and comfy-kitchen, without edgepress.

One process opens all of them. `make test` installs the packages in build/readers; diffusers' and transformers' own GGUF
loaders are tested beside the export.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.previous_artifact import extract_previous_artifact
from safetensors.torch import load_file
from torch import Tensor

import edgepress
from edgepress.benchmarks.interop import reader_worker
from edgepress.benchmarks.interop.__main__ import compare_weights
from edgepress.export.comfyui.exporter import export_comfyui
from edgepress.export.compressed_tensors.exporter import export_compressed_tensors
from edgepress.export.diffusers.exporter import export_diffusers
from edgepress.numerics.psnr import compute_psnr
from edgepress.pipelines.sampling import load_pipeline
from edgepress.storage.weight_export import read_weight_export

pytestmark = pytest.mark.slow

PACKAGES = Path(edgepress.__file__).resolve().parent / "build" / "readers"
EXPORTS = {"diffusers": export_diffusers, "compressed-tensors": export_compressed_tensors, "comfyui": export_comfyui}
ROUNDED_IMAGE = 50  # dB: comfyui's format rounds the zero of a group


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny artifact with an export for each package."""
    folder = extract_previous_artifact(tmp_path_factory.mktemp("artifact"))
    for export in EXPORTS.values():
        export(folder, folder)
    return folder


@pytest.fixture(scope="module")
def readings(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """Weights and an image by export, as the packages make them."""
    if not (PACKAGES / "auto_round").is_dir():
        message = "auto-round and other readers of exports are not installed in build/; make test installs them."
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    folder = tmp_path_factory.mktemp("readings")
    command = [sys.executable, "-P", str(reader_worker.__file__), str(artifact), str(folder), *EXPORTS]
    environment = os.environ | {"PYTHONPATH": str(PACKAGES)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {name: load_file(folder / f"{name}.safetensors") for name in EXPORTS}


@pytest.fixture(scope="module")
def image(artifact: Path) -> Tensor:
    """The image of the artifact itself."""
    return reader_worker.generate_image(load_pipeline(artifact / "model", torch.float32))


@pytest.mark.parametrize("name", EXPORTS)
def test_the_package_computes_with_the_weights_of_the_artifact(
    artifact: Path, readings: dict[str, dict[str, Tensor]], name: str
) -> None:
    components = read_weight_export(artifact / name).components
    count, equal, largest = compare_weights(artifact / "model", readings[name], list(components))
    assert count > 0
    rounding = max(record.max_difference for record in components.values())
    assert largest <= rounding + 1e-4 if name == "comfyui" else equal == count


@pytest.mark.parametrize("name", EXPORTS)
def test_the_image_is_that_of_the_artifact(readings: dict[str, dict[str, Tensor]], image: Tensor, name: str) -> None:
    psnr = compute_psnr(image.numpy(), readings[name]["image"].numpy())
    assert psnr is None or psnr > ROUNDED_IMAGE
